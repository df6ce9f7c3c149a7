"""Volumes: tensors [N, C, D, H, W] as images of two spatial dimensions, one for each depth.

In blocks the memory of a volume is [N, D, C/block, H, W, block]: what a three-dimensional kernel looks at for one depth
of the output are the channel blocks of neighbouring images, which follow each other. So it is a two-dimensional kernel
over the channels of as many images as it is deep, and element-wise work and joining are those of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from distort.kernels.compiler.ir import Tensor

#: of a volume
RANK = 5


class Slab(NamedTuple):
    """Images of an output that look at the same elements of a kernel's depth, ``taps``: from to before.

    Image ``i`` of them is ``out + i · out_step``, and looks at those from ``x + i · x_step`` on.
    """

    out: int = 0
    n_images: int = 1
    x: int = 0
    taps: tuple[int, int] = (0, 1)
    x_step: int = 1
    out_step: int = 1


def slabs_of(
    images: int, size: int, out: int, kernel: int, stride: int, begin: int, dilation: int = 1
) -> list[Slab] | None:
    """The output's depths of each volume, ``size`` deep, by what lies inside of their windows.

    None where nothing does.
    """
    found: list[Slab] = []
    for depth in range(out):
        top = depth * stride - begin
        inside = [k for k in range(kernel) if 0 <= top + k * dilation < size]
        if not inside:
            return None
        taps = (inside[0], inside[-1] + 1)
        if found and found[-1].taps == taps:
            found[-1] = found[-1]._replace(n_images=found[-1].n_images + 1)
        else:
            found.append(Slab(depth, 1, top + taps[0] * dilation, taps, stride))
    return [s._replace(out=n * out + s.out, x=n * size + s.x) for n in range(images) for s in found]


def flat(tensor: Tensor) -> Tensor | None:
    """A volume as images [N·D, C, H, W], plain or in blocks. None where they are not equally far apart."""
    if len(tensor.shape) != RANK:
        return tensor
    n, c, d, h, w = tensor.shape
    image, channel, depth, *rest = tensor.strides
    if n > 1 and d > 1 and image != d * depth:
        return None
    strides = (depth if d > 1 else image, channel, *rest)
    made = Tensor(tensor.dtype, (n * d, c, h, w), strides, tensor.buffer, tensor.offset, block=tensor.block)
    if tensor.value is not None:
        made.value = tensor.value.transpose(0, 2, 1, 3, 4).reshape(made.shape)
    return made


def volume(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Images as the volume [N, C, D, H, W] that they are; others as they are."""
    if len(shape) != RANK:
        return tensor
    image, channel, *rest = tensor.strides
    strides = (image * shape[2], channel, image, *rest)
    return Tensor(tensor.dtype, tuple(shape), strides, tensor.buffer, tensor.offset, block=tensor.block)


def flat_operand(tensor: Tensor, shape: Sequence[int]) -> Tensor | None:
    """What broadcasts to the volume ``shape``, in blocks, as something that does to its images."""
    if len(shape) != RANK or tensor.shape[:3] == (shape[0], tensor.shape[1], shape[2]):
        return flat(tensor)
    if tensor.shape[0] == 1 and tensor.shape[2] == 1:
        return flat(tensor)
    if shape[0] == 1:
        return flat(tensor)
    return None
