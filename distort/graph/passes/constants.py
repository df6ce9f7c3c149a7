"""Constant nodes become initializers; nodes of constants are evaluated once."""

from __future__ import annotations

from typing import Any

import numpy as np

from distort.graph.ir import Graph, Node, SparseInitializer

from .context import Context

#: a folded result may be larger than what it is made from only up to this size
_GROWTH_NBYTES = 1 << 20
_NEVER = frozenset(
    (
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"),
        *("Dropout", "If", "Loop", "Scan", "SequenceMap", "Optional", "SequenceConstruct", "SequenceEmpty"),
    )
)


#: operators whose result takes the shape that their inputs broadcast to
_BROADCASTING = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Where", "MatMul", "And", "Or", "Xor", "Equal", "Less"),
        *("Greater", "LessOrEqual", "GreaterOrEqual", "Max", "Min", "Mean", "Sum", "PRelu", "BitShift"),
    )
)


def lift(graph: Graph, context: Context) -> int:
    """Constant nodes with a tensor value become initializers."""
    kept: list[Node] = []
    for node in graph.nodes:
        value = _constant_value(node, context)
        if value is None:
            kept.append(node)
        else:
            graph.initializers[node.outputs[0]] = value
    n_lifted = len(graph.nodes) - len(kept)
    graph.nodes = kept
    return n_lifted


def _constant_value(node: Node, context: Context) -> np.ndarray[Any, Any] | None:
    if node.op_type != "Constant" or node.domain or not node.outputs[0]:
        return None
    value = node.attributes.get("value")
    if isinstance(value, np.ndarray):
        return value
    results = context.evaluate(node, [])
    return results[0] if results and isinstance(results[0], np.ndarray) else None


def fold(graph: Graph, context: Context) -> int:
    """Evaluate nodes whose inputs are all constant.

    Weights in bytes stay where they meet dequantized activations: a compiled program multiplies the bytes.
    """
    constants = context.constants(graph)
    kept: list[Node] = []
    of_bytes = _weights_in_bytes(graph)
    for node in graph.nodes:
        results = _evaluated(node, constants, context) if id(node) not in of_bytes else None
        if results is None:
            kept.append(node)
            continue
        for name, value in zip(node.outputs, results, strict=False):
            if name:
                graph.initializers[name] = constants[name] = value
    n_folded = len(graph.nodes) - len(kept)
    graph.nodes = kept
    return n_folded


def _weights_in_bytes(graph: Graph) -> set[int]:
    """``id`` of nodes that dequantize weights of products whose other operand is dequantized too."""
    makers = {node.outputs[0]: node for node in graph.nodes if node.op_type == "DequantizeLinear"}
    found = set()
    for node in graph.nodes:
        if node.op_type not in ("Conv", "MatMul", "Gemm") or node.domain:
            continue
        x, w = (makers.get(name) for name in node.inputs[:2])
        if x is None or w is None or x.inputs[0] in graph.initializers:
            continue
        weights = graph.initializers.get(w.inputs[0])
        if isinstance(weights, np.ndarray) and weights.dtype in (np.uint8, np.int8):
            found.add(id(w))
    return found


def _evaluated(node: Node, constants: dict[str, Any], context: Context) -> tuple[Any, ...] | None:
    if node.op_type in _NEVER or id(node) in context.refused:
        return None
    if not all(name in constants for name in node.inputs if name) or not any(node.inputs):
        return None
    values = [constants[name] if name else None for name in node.inputs]
    if any(isinstance(value, SparseInitializer) for value in values) or any(True for _ in node.subgraphs()):
        return None
    given = sum(value.nbytes for value in values if value is not None)
    limit = max(4 * given, _GROWTH_NBYTES) if context.fold_nbytes is None else context.fold_nbytes
    results = context.evaluate(node, values) if _least_nbytes(node, values) <= limit else None
    if (
        results is None
        or not all(isinstance(value, np.ndarray) for value in results if value is not None)
        or sum(value.nbytes for value in results if value is not None) > limit
    ):
        context.refused[id(node)] = node
        return None
    return results


def _least_nbytes(node: Node, values: list[Any]) -> float:
    """What the result takes up, as far as that is known before it is made; 0 where it isn't."""
    first = values[0]
    if first is None:
        return 0
    kind = node.op_type
    if kind == "ConstantOfShape":
        filled = node.attributes.get("value")
        itemsize = filled.itemsize if isinstance(filled, np.ndarray) else 4
        return float(np.prod(first.astype(np.float64))) * itemsize
    if kind == "Tile" and values[1].size == first.ndim:
        return float(np.prod(values[1].astype(np.float64))) * float(first.nbytes)
    if kind == "Range":
        if any(value is None or value.size != 1 for value in values):
            return 0
        start, limit, delta = (float(value.reshape(())) for value in values)
        count = abs((limit - start) / (delta or 1))
        return count * first.itemsize if np.isfinite(count) else 0
    if kind == "OneHot":
        return float(first.size) * float(values[1].reshape(-1)[0]) * float(values[2].itemsize)
    if kind == "Pad" and len(values) > 1 and values[1] is not None and values[1].size == 2 * first.ndim:
        pads = values[1].astype(np.float64).reshape(2, -1).sum(axis=0)
        return float(np.prod(np.maximum(first.shape + pads, 0))) * float(first.itemsize)
    if kind in ("Resize", "Upsample"):
        factors = next((v for v in reversed(values[1:]) if v is not None and v.size == first.ndim), None)
        if factors is None:
            return 0
        # integers are sizes, floats are factors
        grown = factors.astype(np.float64) * (1 if factors.dtype == np.int64 else np.array(first.shape))
        return float(np.prod(grown)) * float(first.itemsize)
    if kind != "Expand" and kind not in _BROADCASTING:
        return 0
    shapes = [tuple(values[1].tolist())] if kind == "Expand" else [v.shape for v in values[1:] if v is not None]
    try:
        shape = np.broadcast_shapes(first.shape, *shapes)
    except ValueError:
        return 0
    # comparisons make one byte an element
    return float(np.prod(np.array(shape, np.float64))) * (first.itemsize if kind == "Expand" else 1)
