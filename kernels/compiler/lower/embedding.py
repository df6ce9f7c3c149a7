"""EmbedLayerNormalization of com.microsoft: sums of rows of tables, standardized. B: batch, S: tokens, H: features."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.expression import Instruction
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.rows import standardized
from distort.kernels.compiler.rows import Body

Result = list[Tensor | None] | None


@lowers("EmbedLayerNormalization", domain="com.microsoft")
def _embed_layer_normalization(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    given: list[Tensor | None] = [*inputs, *[None] * 9][:9]
    ids, segments, words, places, segment_table, gamma, beta, mask, place_ids = given
    if ids is None or words is None or places is None or gamma is None or beta is None:
        return None
    tables = [table for table in (words, places, segment_table) if table is not None]
    if (segments is None) != (segment_table is None) or len(ids.shape) != 2 or not ids.size:
        return None
    width = words.shape[-1:]
    if any(t.dtype != np.float32 or len(t.shape) != 2 or t.shape[-1:] != width or not t.size for t in tables):
        return None
    if any(t.dtype != np.float32 or t.shape != width for t in (gamma, beta)):
        return None
    if any(t is not None and t.element not in ("int32", "int64") for t in (ids, segments, mask, place_ids)):
        return None
    if any(t is not None and t.shape != ids.shape for t in (segments, mask)):
        return None
    batch, steps = ids.shape
    shape = (batch, steps, *width)

    def rows(table: Tensor, at: Tensor) -> Tensor:
        return b.gathered(table, 0, at).reshaped((*at.shape, *width))

    parts = [rows(words, ids)]
    if place_ids is not None:
        if place_ids.shape not in (ids.shape, (1, steps)):
            return None
        parts.append(rows(places, place_ids))
    elif steps > places.shape[0]:
        return None
    else:
        parts.append(places.view((1, steps, *width), (0, *places.strides)))
    if segments is not None and segment_table is not None:
        parts.append(rows(segment_table, segments))
    body = Body(shape, "float32")
    total, *more = [body.input(part) for part in parts]
    scale, shift = body.input(gamma), body.input(beta)
    for other in more:
        total = body.op("add", total, other)
    value, _, _ = standardized(body, total, node.attributes.get("epsilon", 1e-12), True)
    value = body.op("add", body.op("mul", value, scale), shift)
    results = [(value, "float32", False)]
    if len(node.outputs) > 2 and node.outputs[2]:
        results.append((total, "float32", False))
    made = body.add(b, (2,), results)
    if made is None:
        return None
    counts = b.constant(np.zeros(batch, np.int32)) if mask is None else _counts(b, mask)
    return None if counts is None else [made[0], counts, *made[1:]]


def _counts(b: Builder, mask: Tensor) -> Tensor | None:
    """How many of a mask [B, S] are 1: int32 [B]"""
    instructions = [
        Instruction("constant", (0,), mask.element, (1,)),
        Instruction("equal", (0, 1), "bool"),
        Instruction("cast", (2,), "int32"),
    ]
    ones = b.map("", [mask], np.int32, body=instructions)
    body = Body(ones.shape, "int32")
    made = body.add(b, (1,), [(body.op("row_sum", body.input(ones)), "int32", True)])
    return None if made is None else made[0].reshaped(mask.shape[:1])
