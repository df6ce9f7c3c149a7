"""Show a model's inputs, outputs, opsets and operators, and which of them no kernel runs.

Operators are counted as the file has them, in the bodies of If, Loop and Scan and of the model's own functions too.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distort.cli import console
from distort.cli.errors import OK

if TYPE_CHECKING:
    from distort.graph.ir import Graph, Model, Node

#: what runs an operator
KERNEL, FUNCTION, BODY, NOTHING = "kernel", "the model's function", "its ONNX body", "nothing"


@dataclass(frozen=True, slots=True)
class Operator:
    domain: str
    op_type: str
    opset: int
    count: int
    runs_by: str
    compiled: bool  # whether the CPU compiler has code for it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    with console.progress(f"reading {arguments.model}"):
        facts, operators = inspect(arguments.model)
    if arguments.json:
        names = ("domain", "op_type", "opset", "count", "runs_by", "compiled")
        facts["operators"] = [{name: getattr(operator, name) for name in names} for operator in operators]
        console.print_json(facts)
    else:
        _show(facts, operators)
    return OK


def inspect(path: str) -> tuple[dict[str, Any], list[Operator]]:
    """What a model is, as plain values, and its operators. Raises onnxruntime's errors where it can't be read."""
    from distort import errors
    from distort.graph import reader

    with errors.translated():
        proto, _ = reader.parse(path)
        model = reader.read_model(proto, path)
        graph = model.graph
        facts: dict[str, Any] = {
            "model": path,
            "graph": graph.name,
            "ir_version": model.ir_version,
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
            "opsets": {domain or "ai.onnx": version for domain, version in model.opsets.items()},
            "metadata": dict(model.metadata),
            "inputs": _values(graph, [name for name in graph.inputs if name not in graph.defaults]),
            "overridable_initializers": _values(graph, graph.defaults),
            "outputs": _values(graph, graph.outputs),
            "configurations": _configurations(model),
            "functions": [f"{domain or 'ai.onnx'}:{name}" for domain, name, _ in model.functions],
            "n_nodes": len(graph.nodes),
            "n_initializers": len(graph.initializers),
            "initializers_nbytes": sum(_nbytes(value) for value in graph.initializers.values()),
        }
        operators = _operators(model)
        facts["problem"], facts["no_kernel"] = _check(model, proto, operators)
    return facts, operators


def _configurations(model: Model) -> list[dict[str, Any]]:
    """The device configurations (IR 11), and what nodes of the graph say under each."""
    from distort.graph import annotations

    told = []
    for item in annotations.configurations(model):
        found = [annotations.annotation(node, item.name) for node in model.graph.nodes]
        stages = {annotation.stage for annotation in found if annotation is not None and annotation.stage is not None}
        told.append(
            {
                "name": item.name,
                "n_devices": item.n_devices,
                "devices": list(item.devices),
                "stages": sorted(stages),
                "n_annotated": sum(annotation is not None for annotation in found),
            }
        )
    return told


def _values(graph: Graph, names: Iterable[str]) -> list[dict[str, Any]]:
    from distort.metadata import declared_shape

    told = []
    for name in names:
        known = graph.types.get(name)
        shape = declared_shape(known)
        told.append({"name": name, "type": str(known or "?"), "shape": None if shape is None else list(shape)})
    return told


def _nbytes(initializer: Any) -> int:
    if hasattr(initializer, "indices"):
        return int(initializer.values.nbytes + initializer.indices.nbytes)
    return int(initializer.nbytes)


def _operators(model: Model) -> list[Operator]:
    from distort.engine import has_kernel
    from distort.graph.operators import latest_opsets
    from distort.kernels.compiler.account import has_code

    nodes = [*_nodes(model.graph.nodes)]
    for function in model.functions.values():
        nodes += _nodes(function.nodes)
    latest = latest_opsets()
    counts: Counter[tuple[str, str, int, str]] = Counter()
    for node in nodes:
        counts[node.domain, node.op_type, node.opset or latest.get(node.domain, 0), node.overload] += 1
    found = []
    for (domain, op_type, opset, overload), count in counts.items():
        if (domain, op_type, overload) in model.functions:
            runs_by = FUNCTION
        elif has_kernel(domain, op_type, opset):
            runs_by = KERNEL
        else:
            runs_by = BODY if _has_body(domain, op_type, opset) else NOTHING
        compiled = runs_by == KERNEL and has_code(domain, op_type)
        found.append(Operator(domain or "ai.onnx", op_type, opset, count, runs_by, compiled))
    return sorted(found, key=lambda item: (-item.count, item.domain, item.op_type))


def _nodes(nodes: Iterable[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        for body in node.subgraphs():
            yield from _nodes(body.nodes)


def _has_body(domain: str, op_type: str, opset: int) -> bool:
    from distort.graph.onnx_parts import schema

    found = schema(op_type, domain, opset)
    return found is not None and bool(found.has_function or found.has_context_dependent_function)


def _check(model: Model, proto: Any, operators: list[Operator]) -> tuple[str | None, list[str]]:
    """What keeps a session from being made, and the operators that nothing runs once functions are inlined."""
    from distort.engine import has_kernel, missing_kernels
    from distort.graph.errors import ModelError
    from distort.graph.functions import expand
    from distort.graph.validate import check_model

    try:
        check_model(model, proto, has_kernel)
        expand(model, has_kernel)
    except ModelError as error:
        missing = [f"{item.domain}:{item.op_type}({item.opset})" for item in operators if item.runs_by == NOTHING]
        return error.text, sorted(missing)
    nodes = missing_kernels(model.graph)
    return None, sorted({f"{node.domain or 'ai.onnx'}:{node.op_type}({node.opset})" for node in nodes})


def _show(facts: dict[str, Any], operators: list[Operator]) -> None:
    from distort.scheduler.device import format_nbytes

    screen = console.Screen()
    opsets = ", ".join(f"{domain} {version}" for domain, version in facts["opsets"].items())
    screen.line(f"{facts['model']}: {facts['graph'] or 'a graph without a name'}", "bold")
    screen.line(f"IR version {facts['ir_version']}, opsets {opsets}, made by {facts['producer'] or 'nobody named'}")
    screen.line(
        f"{facts['n_nodes']} nodes, {facts['n_initializers']} initializers of "
        f"{format_nbytes(facts['initializers_nbytes'])}, {len(facts['functions'])} functions"
    )
    for title, key in (
        ("Inputs", "inputs"),
        ("Inputs with a default", "overridable_initializers"),
        ("Outputs", "outputs"),
    ):
        if facts[key] or key != "overridable_initializers":
            screen.heading(title)
            screen.table(("name", "type", "shape"), [(v["name"], v["type"], _shape(v["shape"])) for v in facts[key]])
    if facts["metadata"]:
        screen.heading("Metadata")
        screen.table(("key", "value"), list(facts["metadata"].items()))
    if facts["configurations"]:
        screen.heading("Device configurations")
        head = ("name", "devices", "pipeline stages", "annotated nodes")
        configured = [
            (
                told["name"],
                ", ".join(told["devices"]) or str(told["n_devices"]),
                ", ".join(map(str, told["stages"])) or "none",
                f"{told['n_annotated']} of {facts['n_nodes']}",
            )
            for told in facts["configurations"]
        ]
        screen.table(head, configured)
    screen.heading("Operators")
    rows = [
        (o.domain, o.op_type, str(o.opset), str(o.count), o.runs_by, "yes" if o.compiled else "") for o in operators
    ]
    screen.table(("domain", "operator", "opset", "count", "runs by", "compiled"), rows, frozenset({2, 3}))
    screen.line()
    if facts["no_kernel"]:
        screen.line(f"No kernel runs: {', '.join(facts['no_kernel'])}", "bold")
    if facts["problem"] is not None:
        screen.line(f"A session would refuse the model: {' '.join(facts['problem'].split())}", "bold")
    elif not facts["no_kernel"]:
        screen.line("Every operator has a kernel.")


def _shape(shape: list[int | str | None] | None) -> str:
    from distort.cli.arrays import shape_text

    return "?" if shape is None else shape_text(shape)
