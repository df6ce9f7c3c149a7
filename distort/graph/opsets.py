"""The opset imports that a graph of nodes with versions of their own can be written under."""

from __future__ import annotations

from collections.abc import Iterator

from .errors import ModelError
from .ir import Graph, Model, Node
from .onnx_parts import schema


def opset_imports(model: Model) -> dict[str, int]:
    """Domain -> version under which each node means what it means now.

    Inlined bodies may bring other versions, or domains that the model did not import. Raises ModelError where no
    version serves all nodes of a domain.
    """
    imports = dict(model.opsets)
    nodes: dict[str, dict[tuple[str, int], Node]] = {}
    for node in _nodes(model.graph):
        nodes.setdefault(node.domain, {}).setdefault((node.op_type, node.opset), node)
    for domain, operators in nodes.items():
        versions = {opset for _, opset in operators}
        if versions != {imports.get(domain)}:
            imports[domain] = _serving(domain, imports.get(domain, 0), operators)
    return imports


def _serving(domain: str, imported: int, operators: dict[tuple[str, int], Node]) -> int:
    versions = sorted({opset for _, opset in operators} | {imported}, key=lambda v: (v != imported, -v))
    for version in versions:
        if version and all(_same(domain, op_type, opset, version) for op_type, opset in operators):
            return version
    listed = ", ".join(f"{op_type}({opset})" for op_type, opset in sorted(operators))
    raise ModelError("NOT_IMPLEMENTED", f"No opset of domain '{domain or 'ai.onnx'}' has all of {listed}")


def _same(domain: str, op_type: str, opset: int, version: int) -> bool:
    if opset == version:
        return True
    now, then = schema(op_type, domain, opset), schema(op_type, domain, version)
    if now is None or then is None:
        return now is then
    return bool(now.since_version == then.since_version)


def _nodes(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        yield node
        for body in node.subgraphs():
            yield from _nodes(body)
