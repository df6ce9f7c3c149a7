"""Convolutions of 8-bit images with exact sums.

One group, known weights: what windows see becomes rows, channels last, for cuBLASLt's products of int8. Else, and where
there is no such product, a thread makes one element.
"""

from __future__ import annotations

import math

import numpy as np

from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Array, Map, Tensor
from distort.kernels.cuda.byte_products import SIGNED, lines_of, multiply_bytes, shift_of
from distort.kernels.cuda.operations import CudaByteConv, CudaPatches
from distort.kernels.windows import Windows


def convolved_bytes(
    b: Builder, x: Tensor, w: Tensor, zero: Tensor | None, w_zero: Tensor | None, windows: Windows, groups: int
) -> Tensor:
    """As :meth:`Builder.convolved_bytes`, weights known or not."""
    x = b.plain(x)
    zero = None if zero is None else b.contiguous(b.plain(zero)).reshaped(())
    if b.multiplies_bytes is not None and groups == 1 and w.value is not None:
        n_operations = len(b.operations)
        made = _by_product(b, x, w, zero, w_zero, windows)
        if made is not None:
            return made
        del b.operations[n_operations:]
    result = b.new(np.int32, (x.shape[0], w.shape[0], *windows.out))
    given = [b.contiguous(x), b.contiguous(w), *(t for t in (zero, w_zero) if t is not None)]
    if result.size:
        b.add(CudaByteConv(given, [result], windows, groups, zero is not None, w_zero is not None))
    return result


def _by_product(
    b: Builder, x: Tensor, w: Tensor, zero: Tensor | None, w_zero: Tensor | None, windows: Windows
) -> Tensor | None:
    """None where weights' zero points aren't known, or the library has no such product."""
    value, zeros = w.value, None if w_zero is None else w_zero.value
    if value is None or (w_zero is not None and zeros is None):
        return None
    filters, channels = value.shape[:2]
    rank = len(windows.out)
    pixels = x.permuted([0, *range(2, rank + 2), 1])
    back = [0, rank + 1, *range(1, rank + 1)]
    if max(windows.kernel) == 1 and max(windows.strides) == 1 and not windows.padded:
        flat = b.packed(("filters as columns", b.identity(value)), lambda: value.reshape(filters, channels).T)
        made = multiply_bytes(b, pixels, flat, zero, w_zero)
        return None if made is None else made.permuted(back)
    lines = lines_of(b, pixels)
    around = _around(b, zero, x.dtype)
    depth = math.prod(windows.kernel) * lines.shape[-1]
    patches = b.new(np.int8, (x.shape[0], *windows.out, depth))
    b.add(CudaPatches([lines, *([] if around is None else [around])], [patches], windows, channels))
    shift = shift_of(w)
    of_filters = np.asarray((0 if zeros is None else zeros.astype(np.int64)) - shift, np.int64)

    def columns() -> Array:
        """Where there are no channels, there is a zero point, which counts for nothing."""
        made = np.empty((filters, *windows.kernel, lines.shape[-1]), np.int8)
        made[...] = of_filters.reshape(-1, *(1,) * (rank + 1))
        made[..., :channels] = np.moveaxis(value.astype(np.int16) - shift, 1, -1)
        return made.reshape(filters, depth).T

    name = ("filters of patches", b.identity(value), b.identity(of_filters), lines.shape[-1])
    made = multiply_bytes(
        *(b, patches, b.packed(name, columns), around),
        b.constant(of_filters.astype(np.int8)) if of_filters.any() else None,
    )
    return None if made is None else made.permuted(back)


def _around(b: Builder, zero: Tensor | None, dtype: np.dtype[np.generic]) -> Tensor | None:
    """The zero point of an image as int8, as its pixels are then; None for 0."""
    shift = 128 if dtype == np.uint8 else 0
    if zero is None or zero.value is not None:
        number = (0 if zero is None or zero.value is None else int(zero.value)) - shift
        return b.constant(np.array(number, np.int8)) if number else None
    if not shift:
        return zero
    made = b.new(np.int8, ())
    b.add(Map([zero], [made], SIGNED))
    return made


__all__ = ["convolved_bytes"]
