"""Operators of ai.onnx.ml on rows of features: what makes, fills and encodes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.expression import Instruction
from distort.kernels.compiler.ir import Array, Call, ErrorWord, Native, Tensor, Word
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.lower.gathering import regular
from distort.kernels.compiler.lower.linear import prepared
from distort.kernels.compiler.rows import Body
from distort.kernels.ops import ml, ml_text

Result = list[Tensor | None] | None
_ML = "ai.onnx.ml"
#: integers from the least to the largest key of a LabelEncoder, at most: it becomes a table of all of them
_MOST_KEYS = 1 << 16


@lowers("ArrayFeatureExtractor", domain=_ML)
def _extractor(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x, indices = inputs
    if x is None or indices is None or not x.shape or not x.size or not indices.size:
        return None
    if indices.dtype != np.int64:
        return None
    axis, size = len(x.shape) - 1, x.shape[-1]
    shape = (*(x.shape[:-1] or (1,)), indices.size)
    if indices.value is not None:
        found = indices.value.reshape(-1)
        if not -size <= found.min() <= found.max() < size:
            return None
        view = regular(x, axis, np.where(found < 0, found + size, found))
        if view is not None:
            return [view if len(x.shape) > 1 else view.view(shape, (0, *view.strides))]
    return [b.gathered(x, axis, indices).reshaped(shape)]


@lowers("Binarizer", domain=_ML)
def _binarizer(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    if x is None or x.dtype not in (np.float32, np.float64):
        return None
    limit = b.constant(np.asarray(node.attributes.get("threshold", 0.0), x.dtype))
    return [b.map("cast", [b.map("greater", [x, limit], np.bool_)], x.dtype)]


@lowers("Imputer", domain=_ML)
def _imputer(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    known = prepared(b, node, ml._prepare_imputer)
    if x is None or not x.shape or known is None:
        return None
    values, replaced = known["imputed"], known["replaced"]
    if values.dtype != x.dtype or (values.size != 1 and (len(x.shape) > 2 or x.shape[-1] != values.size)):
        return None
    if replaced != replaced:
        hit = b.map("is_nan", [x], np.bool_)
    else:
        hit = b.map("equal", [x, b.constant(np.asarray(replaced, x.dtype))], np.bool_)
    return [b.map("where", [hit, b.constant(values if values.size > 1 else values.reshape(())), x], x.dtype)]


@lowers("FeatureVectorizer", domain=_ML)
def _vectorizer(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    parts = [t for t in inputs if t is not None]
    wanted = node.attributes.get("inputdimensions")
    if not parts or len(parts) != len(inputs) or (wanted is not None and len(wanted) != len(parts)):
        return None
    rows: list[Tensor] = []
    for position, x in enumerate(parts):
        if x.dtype.kind not in "fiu" or not x.size:
            return None
        shape = (1, x.size) if len(x.shape) <= 1 else (x.shape[0], math.prod(x.shape[1:]))
        length = shape[1] if wanted is None else wanted[position]
        if not 0 <= length <= shape[1]:
            return None
        x = b.contiguous(x).reshaped(shape)
        rows.append(x.view((shape[0], length), x.strides))
    if len({t.shape[0] for t in rows}) > 1:
        return None
    result = b.new(np.float32, (rows[0].shape[0], sum(t.shape[1] for t in rows)))
    begin = 0
    for part in rows:
        place = result.view(part.shape, result.strides, begin)
        b.copy(part if part.dtype == np.float32 else b.map("cast", [part], np.float32), place)
        begin += part.shape[1]
    return [result]


@lowers("OneHotEncoder", domain=_ML)
def _one_hot(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (x,) = inputs
    known = prepared(b, node, ml_text._prepare_one_hot)
    keys = np.asarray(node.attributes.get("cats_int64s") or [], np.int64)
    if x is None or known is None or not x.size or len(keys) == 0 or len(set(keys.tolist())) != len(keys):
        return None
    if x.dtype.kind not in "iuf" or x.element in ("float16", "bfloat16"):
        return None
    if x.dtype != np.int64:
        x = b.map("cast", [x], np.int64)
    wide = x.view((*x.shape, 1), (*x.strides, 0))
    hits = b.map("equal", [wide, b.constant(keys)], np.bool_)
    result = b.map("cast", [hits], np.float32)
    if not known["zeros"]:
        # an unknown category is an error
        n_hits = Body(result.shape, "float32")
        total = n_hits.op("row_sum", n_hits.input(result))
        found = n_hits.add(b, (len(result.shape) - 1,), [(total, "float32", True)])
        if found is None:
            return None
        words: list[Word] = [x.size, found[0].address(), ErrorWord()]
        b.add(Native([found[0]], [], [Call(Key("expect_ones", ()), words, 1.0 * x.size, most_threads=1)]))
    return [result]


@lowers("LabelEncoder", domain=_ML)
def _label_encoder(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    """Integers to numbers, by a table of all integers from the least key to the largest, or by a search for them."""
    (x,) = inputs
    if x is None or x.dtype != np.int64 or node.opset < 2 or not x.size:
        return None
    prepare = ml_text._prepare_label_encoder if node.opset >= 4 else ml_text._prepare_label_encoder_2
    known = prepared(b, node, prepare)
    keys = node.attributes.get("keys_int64s")
    if keys is None:
        given = node.attributes.get("keys_tensor")
        keys = None if given is None or given.dtype != np.int64 else given.reshape(-1).tolist()
    if known is None or not keys:
        return None
    low, high = min(keys), max(keys)
    if high - low >= _MOST_KEYS:
        return _of_sparse_keys(b, x, known["table"], sorted(set(keys)))

    def make() -> Array:
        # the last entry is the default
        return known["table"](np, np.array([*range(low, high + 1), high + 1], np.int64))  # type: ignore[no-any-return]

    table: Any = b.once(("table", b.origin_id), make)
    if table.dtype not in (np.int64, np.float32):
        return None
    first, size = b.constant(np.asarray(low)), b.constant(np.asarray(high - low + 1))
    body = [
        Instruction("sub", (0, 1), "int64"),
        Instruction("less", (0, 1), "bool"),
        Instruction("greater_or_equal", (3, 2), "bool"),
        Instruction("or", (4, 5), "bool"),
        Instruction("where", (6, 2, 3), "int64"),
    ]
    index = b.map("", [x, first, size], np.int64, body=body)
    return [b.gathered(b.constant(table), 0, index).reshaped(x.shape)]


def _of_sparse_keys(b: Builder, x: Tensor, table: Any, keys: list[int]) -> Result:
    """``table`` gives the values of ``keys``, which are in order."""
    ordered = np.array(keys, np.int64)
    gap = int(np.argmax(np.diff(ordered)))  # an integer in the widest one is no key: its value is the default

    def make() -> Array:
        return table(np, np.append(ordered, ordered[gap] + 1))  # type: ignore[no-any-return]

    values: Any = b.once(("table", b.origin_id), make)
    if values.dtype not in (np.int64, np.float32) or ordered[gap] + 1 == ordered[gap + 1]:
        return None
    x, known = b.contiguous(b.plain(x)), b.constant(ordered)
    index = b.new(np.int64, x.shape)
    n_halvings = (len(keys) - 1).bit_length()
    words: list[Word] = [x.size, x.address(), len(keys), known.address(), n_halvings, index.address()]
    b.add(Native([x, known], [index], [Call(Key("find", ()), words, x.size * (2.0 + n_halvings), most_threads=x.size)]))
    return [b.gathered(b.constant(values), 0, index).reshaped(x.shape)]
