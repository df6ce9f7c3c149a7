"""Which provider runs which node of a session, and what a session's options ask of that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from distort import config_keys, providers
from distort.graph.errors import ModelError

if TYPE_CHECKING:
    from distort.engine import Engine
    from distort.graph.ir import Node


def groups(engine: Engine) -> list[tuple[str, list[Node]]]:
    """Provider and nodes of each part that runs together: stages on actors, else what a GPU and the CPU run."""
    nodes = engine.model.graph.nodes
    if engine.parallel:
        names = {"cuda": providers.CUDA, "cpu": providers.CPU}
        return [(names[stage.device.kind], [nodes[i] for i in stage.nodes]) for stage in engine.plan.stages]
    if engine.gpu is None:
        return [(providers.CPU, list(nodes))]
    from distort.kernels.cuda.builder import why_on_cpu

    on_cpu = [why_on_cpu(node) is not None for node in nodes]
    parts = [
        (providers.CUDA, [node for node, elsewhere in zip(nodes, on_cpu, strict=True) if not elsewhere]),
        (providers.CPU, [node for node, elsewhere in zip(nodes, on_cpu, strict=True) if elsewhere]),
    ]
    return [(name, part) for name, part in parts if part]


def check(
    engine: Engine,
    chosen: Sequence[tuple[str, Mapping[str, str]]],
    entries: Mapping[str, str],
    explicit_cpu: bool,
) -> None:
    """Refuse what options say must not be: nodes on the CPU, or nodes that no graph of CUDA can have.

    Raises ModelError. ``explicit_cpu``: the CPU's provider was asked for by name.
    """
    if config_keys.refuses_cpu(entries):
        on_cpu = [node for name, nodes in groups(engine) if name == providers.CPU for node in nodes]
        config_keys.check_providers(entries, explicit_cpu, len(on_cpu))
    options = next((given for name, given in chosen if name == providers.CUDA), None)
    if options is not None and engine.gpu is not None and providers.cuda_options(options).enable_cuda_graph:
        _check_capture(engine)


def _check_capture(engine: Engine) -> None:
    """A captured graph is nothing but work on the GPU."""
    start = "This session cannot use the graph capture feature as requested by the user as "
    remedy = "Leave out enable_cuda_graph."
    for node in engine.model.graph.nodes:
        if any(True for _ in node.subgraphs()):
            raise ModelError(
                "FAIL",
                f"{start}the model has control flow nodes which can't be supported by {providers.CUDA}: "
                f"{node.label()}. {remedy}",
            )
    from distort.kernels.cuda.builder import why_on_cpu

    reasons = [(node, why_on_cpu(node)) for node in engine.model.graph.nodes]
    elsewhere = [f"{node.label()} ({why})" for node, why in reasons if why is not None]
    if elsewhere:
        raise ModelError(
            "FAIL",
            f"{start}all the graph nodes have not been partitioned to the {providers.CUDA}. On the CPU are "
            f"{'; '.join(elsewhere)}. {remedy}",
        )
