"""Convolutions and products whose operands are dequantized just before: done on the bytes.

float32(Σ (x − zero) · (w − zero)) · (scale of x · scale of w) is what the dequantized operands would give, rounded less
often. What comes after, quantization again for one, is element-wise and joins the product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distort.graph.ir import Graph, Node
from distort.kernels import adapters
from distort.kernels.compiler.ir import Tensor

if TYPE_CHECKING:
    from distort.kernels.compiler.builder import Builder

_DOMAINS = ("", "com.microsoft")
_BYTES = (np.uint8, np.int8)


def _is_dequantization(node: Node | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear" and node.domain in _DOMAINS and len(node.inputs) > 1


def products_of_bytes(graph: Graph) -> tuple[dict[int, tuple[Node, Node]], set[int]]:
    """(by ``id`` of a node whose operands are dequantized, weights the second: what dequantizes them; ``id`` of
    dequantizations that nobody else reads)."""
    maker = {name: node for node in graph.nodes for name in node.outputs if name}
    found: dict[int, tuple[Node, Node]] = {}
    reads: dict[str, int] = {}
    for node in graph.nodes:
        if node.domain or node.op_type not in ("Conv", "MatMul", "Gemm"):
            continue
        x, w = (maker.get(name) for name in node.inputs[:2])
        if not (_is_dequantization(x) and _is_dequantization(w)):
            continue
        assert x is not None and w is not None
        if isinstance(graph.initializers.get(w.inputs[0]), np.ndarray):
            found[id(node)] = (x, w)
            for name in node.inputs[:2]:
                reads[name] = reads.get(name, 0) + 1
    n_readers: dict[str, int] = {}
    for name in (*graph.outputs, *(name for node in graph.nodes for name in node.reads())):
        n_readers[name] = n_readers.get(name, 0) + 1
    alone = {id(d) for pair in found.values() for d in pair if n_readers[d.outputs[0]] == reads.get(d.outputs[0])}
    return found, alone


def product_of_bytes(b: Builder, node: Node, x: Node, w: Node) -> Tensor | None:
    """The result of a node of ``products_of_bytes``. None where it has to be done in float32."""
    from distort.kernels.compiler.lower.quantized import convolved, product
    from distort.kernels.compiler.lower.quantized_linear import by_column, combined, scalar

    node, x, w = (adapters.modern(one)[0] for one in (node, x, w))
    get = node.attributes.get
    of_x, of_w = ([b.find(name) if name else None for name in one.inputs] for one in (x, w))
    (left, x_scale, x_zero), (right, w_scale, w_zero) = ([*found, None][:3] for found in (of_x, of_w))
    for one in (x, w):
        if one.attributes.get("block_size", 0) or one.attributes.get("output_dtype", 0) not in (0, 1):
            return None
    if left is None or right is None or right.value is None or left.dtype not in _BYTES or right.dtype not in _BYTES:
        return None
    if x_scale is None or w_scale is None or x_scale.dtype != np.float32 or w_scale.dtype != np.float32:
        return None
    if any(
        name and t is None for one, found in ((x, of_x), (w, of_w)) for name, t in zip(one.inputs, found, strict=True)
    ):
        return None
    bias = b.find(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if len(node.inputs) > 2 and node.inputs[2] and (bias is None or bias.dtype != np.float32):
        return None
    rank = len(right.shape)
    axis = 0 if node.op_type == "Conv" else rank - 1
    if node.op_type == "Gemm":
        if get("transA", 0) or get("alpha", 1.0) != 1.0 or get("beta", 1.0) != 1.0 or rank != 2:
            return None
        axis = 0 if get("transB", 0) else 1
    if w_scale.size != 1 and w.attributes.get("axis", 1) % rank != axis:
        return None
    filters = right.shape[axis]
    scale_x, scale_w = scalar(b, x_scale), by_column(b, w_scale, filters)
    if scale_x is None or scale_w is None:
        return None
    factor = combined(b, "multiply", scale_x, scale_w)
    if node.op_type == "Conv":
        total = convolved(b, node, left, right, x_zero, w_zero)
        if total is None or (bias is not None and bias.shape != (filters,)):
            return None
        shape = (filters, *(1,) * (rank - 2))
        factor = b.contiguous(factor).reshaped(shape) if factor.shape else factor
        bias = None if bias is None else b.contiguous(bias).reshaped(shape)
    else:
        if rank != 2 or (node.op_type == "Gemm" and len(left.shape) != 2):
            return None
        right = right.permuted([1, 0]) if axis == 0 else right
        total = product(b, left, right, x_zero, w_zero)
        if total is None:
            return None
        if bias is not None and any(n not in (1, m) for n, m in zip(bias.shape[::-1], total.shape[::-1], strict=False)):
            return None
        if bias is not None and len(bias.shape) > 2:
            return None
    y = b.map("mul", [b.map("cast", [total], np.float32), factor])
    return y if bias is None else b.map("add", [y, bias])
