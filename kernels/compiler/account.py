"""What a plan has code for and what it leaves to NumPy kernels, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distort.kernels.compiler.ir import Host, Mark
from distort.kernels.compiler.lower import HOME

if TYPE_CHECKING:
    from distort.kernels.compiler.program import CompiledProgram
    from distort.kernels.compiler.specialise import FeedType, Plan

#: nodes of an operator that are named, and operators
_NAMED, _KINDS = 3, 12


def has_code(domain: str, op_type: str) -> bool:
    """Whether some lowering takes an operator; it may refuse a node for its attributes or types."""
    return (domain, op_type) in HOME


def reason(host: Host) -> str:
    """Why a NumPy kernel runs a node, as far as what is left of it tells."""
    node = host.node
    if not has_code(node.domain, node.op_type):
        return "there is no code for the operator"
    if any(isinstance(argument, str) for argument in host.arguments):
        return "it reads what is no tensor, or has a shape that nobody knows before the run"
    return "there is no code for its attributes or types"


def lines(program: CompiledProgram) -> list[str]:
    """Of the plan that was made last, and how many there are."""
    plans = program.plans
    if program.refused:
        failed = dict.fromkeys(program.refused.values())
        return [f"NumPy kernels run some feeds, for which making a plan failed: {why}" for why in failed]
    if not plans:
        return ["nothing is compiled now: that happens when the model is run"]
    feeds, plan = plans[-1]
    shapes = "1 shape" if len(plans) == 1 else f"{len(plans)} shapes"
    named = ", ".join(_feed(name, feed) for name, feed in zip(program.inputs, feeds, strict=True) if feed is not None)
    told = [f"compiled for {shapes} of feeds, in {program.compile_s:.2g} s", *_of_plan(plan, program.n_nodes)]
    if named:
        told[1] += f", for {named}"
    return told


def _of_plan(plan: Plan, n_nodes: int) -> list[str]:
    hosts = [operation for operation in plan.operations if isinstance(operation, Host)]
    n_compiled = sum(not isinstance(operation, (Host, Mark)) for operation in plan.operations)
    operations, nodes = _counted(n_compiled, "compiled operation"), _counted(n_nodes, "node")
    told = [f"{operations} from {nodes}, {len(hosts) or 'none'} on NumPy kernels"]
    kinds: dict[tuple[str, str], list[str]] = {}
    for host in hosts:
        kinds.setdefault((host.node.op_type, reason(host)), []).append(host.origin.label())
    for (op_type, why), labels in list(kinds.items())[:_KINDS]:
        some = ", ".join(f"'{label}'" for label in labels[:_NAMED])
        more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
        told.append(f"NumPy: {op_type} {some}{more}: {why}")
    if len(kinds) > _KINDS:
        told.append(f"NumPy: {len(kinds) - _KINDS} more kinds of nodes")
    return told


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _feed(name: str, feed: FeedType) -> str:
    assert feed is not None
    return f"{name} {feed[0].name}{list(feed[1])}"


__all__ = ["has_code", "lines", "reason"]
