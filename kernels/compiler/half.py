"""Half precision: float16 and bfloat16 are how values are stored, and float32 is what is computed with.

An operator whose lowering takes float32 only gets casts of its inputs, and its results are cast back. Casts are
element-wise work, which joins what makes and what takes the value, so a value is rounded where it would be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.kernels.compiler.ir import Tensor

if TYPE_CHECKING:
    from distort.kernels.compiler.builder import Builder

NARROW = frozenset(["float16", "bfloat16"])


def is_narrow(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.element in NARROW


def widened(b: Builder, tensor: Tensor) -> Tensor:
    """The tensor as float32. Known ones are converted once for all shapes of runs."""
    if not is_narrow(tensor):
        return tensor
    value = tensor.value
    if value is not None:
        made = b.packed(("float32", b.identity(value)), lambda: value.astype(np.float32))
        return made if made.shape == tensor.shape else made.reshaped(tensor.shape)
    return b.map("cast", [tensor], np.float32)


def narrowed(b: Builder, tensor: Tensor, dtype: Any) -> Tensor:
    """A float32 tensor as ``dtype``."""
    return b.map("cast", [tensor], dtype) if tensor.dtype == np.float32 != dtype else tensor


def all_narrowed(b: Builder, tensors: Sequence[Tensor | None], dtype: Any) -> list[Tensor | None]:
    return [None if t is None else narrowed(b, t, dtype) for t in tensors]


__all__ = ["NARROW", "all_narrowed", "is_narrow", "narrowed", "widened"]
