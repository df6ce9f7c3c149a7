"""What a program is fed: its types, and where it lies.

CuPy has bytes for elements that it lacks (8-bit floats, int4, …): of these arrays the model says what they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from distort.graph.types import DTYPE_OF, TensorType, ValueType
from distort.kernels.cuda import copies
from distort.kernels.cuda.fallback import on_host
from distort.kernels.cuda.running import is_on_device

if TYPE_CHECKING:
    from distort.kernels.compiler.specialise import FeedType


def lacking(kind: ValueType | None) -> np.dtype[Any] | None:
    """The dtype of an input if CuPy lacks it, else None."""
    dtype = DTYPE_OF.get(kind.element) if isinstance(kind, TensorType) else None
    return None if dtype is None or dtype.kind in "OUST" or not on_host(dtype) else dtype


def type_of(lacks: np.dtype[Any] | None, value: Any) -> FeedType:
    """Of a feed whose input has a dtype that CuPy ``lacks``, or not; None for what is no array."""
    if not (hasattr(value, "dtype") and hasattr(value, "shape")):
        return None
    dtype = np.dtype(value.dtype)
    if lacks is not None and dtype == np.uint8 and is_on_device(value):
        dtype = lacks
    return dtype, tuple(value.shape)


def at_home(lacks: np.dtype[Any] | None, value: Any) -> Any:
    """A feed as NumPy has it."""
    kind = type_of(lacks, value)
    return copies.to_host([value], [kind[0]])[0] if kind is not None and is_on_device(value) else value


def as_nodes_take(lacks: np.dtype[Any] | None, value: Any) -> Any:
    """A feed as nodes one at a time take it: on the host, where the GPU has only its bytes."""
    kind = type_of(lacks, value)
    return at_home(lacks, value) if kind is not None and kind[0] != value.dtype else value


__all__ = ["as_nodes_take", "at_home", "lacking", "type_of"]
