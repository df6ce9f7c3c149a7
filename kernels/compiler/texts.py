"""What NumPy kernels make of text that was fed: of these shapes are known before, so that no run has to show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.graph.types import DTYPE_OF
from distort.kernels.compiler.expression import STORED, name_of

#: dtype and shape of a value
Known = tuple[np.dtype[Any], tuple[int, ...]]
_LABELS = {"values_floats": np.float32, "values_int64s": np.int64, "classes_strings": np.int64}


def made_of_text(node: Node, shapes: Mapping[str, tuple[int, ...]]) -> Known | None:
    """What the node's first output will be; None where that isn't known. ``shapes``: of values that are text."""
    shape = shapes.get(node.inputs[0]) if node.inputs else None
    if shape is None:
        return None
    dtype: Any = None
    if (node.domain, node.op_type) == ("ai.onnx.ml", "LabelEncoder"):
        dtype = next((dtype for name, dtype in _LABELS.items() if node.attributes.get(name)), None)
        values = node.attributes.get("values_tensor")
        if isinstance(values, np.ndarray):
            dtype = values.dtype
    elif (node.domain, node.op_type) == ("", "Cast"):
        dtype = DTYPE_OF.get(node.attributes.get("to", 0))
    if dtype is None or name_of(np.dtype(dtype)) not in STORED:
        return None
    return np.dtype(dtype), shape


__all__ = ["made_of_text"]
