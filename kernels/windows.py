"""Sliding windows over spatial axes: the geometry that convolutions and pools share.

Output sizes, paddings and the strided slices of each kernel tap; see Conv-22, MaxPool-22 and ConvTranspose-22.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from types import ModuleType
from typing import Any

from distort.kernels.errors import Failed, InvalidInput

Array = Any
Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """Each field has one entry a spatial axis."""

    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    begins: Sizes  # padding before the first element
    ends: Sizes  # padding after the last element, as the model says
    out: Sizes

    @property
    def padded(self) -> bool:
        return any(self.begins) or any(self.ends)

    def tap(self, axis: int, position: int) -> slice:
        """What kernel element ``position`` of an axis reads of the padded input, one element a window."""
        start = position * self.dilations[axis]
        return slice(start, start + (self.out[axis] - 1) * self.strides[axis] + 1, self.strides[axis])

    def taps(self) -> Iterator[tuple[Sizes, tuple[slice, ...]]]:
        """(kernel element, its slices of the padded input), in row-major order."""
        for element in product(*map(range, self.kernel)):
            yield element, tuple(self.tap(axis, position) for axis, position in enumerate(element))


def windows_of(
    size: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
    ceil_mode: int = 0,
) -> Windows:
    """The windows over an input of spatial ``size``. Raises InvalidInput where there is no output element."""
    return _windows_of(
        tuple(size),
        tuple(kernel),
        None if strides is None else tuple(strides),
        None if dilations is None else tuple(dilations),
        None if pads is None else tuple(pads),
        auto_pad,
        bool(ceil_mode),
    )


def spatial_attribute(name: str, values: Sequence[int] | None, rank: int, default: int = 1, least: int = 1) -> Sizes:
    """An attribute with one number a spatial axis; an absent or empty one is all ``default``."""
    if not values:
        return (default,) * rank
    if len(values) != rank:
        raise InvalidInput(f"{name} {list(values)} must have {rank} entries, one a spatial axis")
    if min(values) < least:
        raise InvalidInput(f"{name} {list(values)} must be at least {least}")
    return tuple(values)


def explicit_pads(pads: Sequence[int] | None, rank: int) -> tuple[Sizes, Sizes]:
    """Attribute ``pads`` (all begins, then all ends); absent or empty is zero. Raises InvalidInput if negative."""
    if not pads:
        return (0,) * rank, (0,) * rank
    if len(pads) != 2 * rank:
        raise InvalidInput(f"pads {list(pads)} must have {2 * rank} entries for {rank} spatial axes")
    if min(pads) < 0:
        raise InvalidInput(f"pads {list(pads)} must not be negative")
    return tuple(pads[:rank]), tuple(pads[rank:])


def shared_padding(total: int, auto_pad: str) -> tuple[int, int]:
    """Padding before and after: SAME_UPPER puts the odd one after, every other mode before."""
    less = total // 2
    return (less, total - less) if auto_pad == "SAME_UPPER" else (total - less, less)


@lru_cache(maxsize=4096)
def _windows_of(
    size: Sizes,
    kernel: Sizes,
    strides: Sizes | None,
    dilations: Sizes | None,
    pads: Sizes | None,
    auto_pad: str,
    ceil_mode: bool,
) -> Windows:
    rank = len(size)
    kernel = spatial_attribute("kernel_shape", kernel, rank)
    if not rank:
        raise InvalidInput("the input must have at least one spatial axis")
    strides = spatial_attribute("strides", strides, rank)
    dilations = spatial_attribute("dilations", dilations, rank)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        out = tuple(-(-n // s) for n, s in zip(size, strides, strict=True))
        both = [
            shared_padding(max((o - 1) * s + r - n, 0), auto_pad)
            for o, s, r, n in zip(out, strides, reach, size, strict=True)
        ]
        begins, ends = tuple(b for b, _ in both), tuple(e for _, e in both)
    elif auto_pad in ("NOTSET", "VALID", ""):
        begins, ends = explicit_pads(None if auto_pad == "VALID" else pads, rank)
        out = tuple(map(_out_size, size, reach, strides, begins, ends, (ceil_mode,) * rank))
    else:
        raise InvalidInput(f"auto_pad '{auto_pad}' is none of NOTSET, SAME_UPPER, SAME_LOWER, VALID")
    if min(out) < 1:
        raise Failed(
            f"spatial axes {list(size)} with pads {[*begins, *ends]} are smaller than the kernel {list(kernel)} "
            f"with dilations {list(dilations)}"
        )
    return Windows(kernel, strides, dilations, begins, ends, out)


def _out_size(size: int, reach: int, stride: int, begin: int, end: int, ceil_mode: bool) -> int:
    room = size + begin + end - reach
    if not ceil_mode:
        return room // stride + 1
    out = -(-room // stride) + 1
    # a last window that would start in the padding after the input is left out
    return out - 1 if (out - 1) * stride >= size + begin else out


def padded_input(xp: ModuleType, x: Array, windows: Windows, value: Any = 0) -> Array:
    """x [N, C, *size] with its padding, and with what windows of ceil_mode reach beyond it, filled with ``value``."""
    size = x.shape[2:]
    ends = [
        max(e, (o - 1) * s + (k - 1) * d + 1 - n - b)
        for n, k, s, d, b, e, o in zip(
            size,
            windows.kernel,
            windows.strides,
            windows.dilations,
            windows.begins,
            windows.ends,
            windows.out,
            strict=True,
        )
    ]
    if not any(ends) and not any(windows.begins):
        return x
    shape = tuple(n + b + e for n, b, e in zip(size, windows.begins, ends, strict=True))
    whole = xp.zeros(x.shape[:2] + shape, x.dtype) if value == 0 else xp.full(x.shape[:2] + shape, value, x.dtype)
    whole[(slice(None), slice(None), *(slice(b, b + n) for b, n in zip(windows.begins, size, strict=True)))] = x
    return whole
