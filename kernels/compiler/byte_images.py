"""8-bit images before a convolution: its geometry, and how they are made ready for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from distort.kernels.compiler.codegen import byte_dots as dots
from distort.kernels.compiler.codegen.operands import BROADCAST, CONTIGUOUS
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.expression import Expression
from distort.kernels.compiler.fuse import same_elements
from distort.kernels.compiler.ir import Call, Map, Operation, Tensor
from distort.kernels.compiler.keys import Key
from distort.kernels.windows import Windows


class Geometry(NamedTuple):
    """Of a convolution: images [images, groups · channels, height, width], results [images, groups · filters, …]."""

    images: int
    groups: int
    channels: int
    filters: int
    height: int
    width: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    begins: tuple[int, int]
    out: tuple[int, int]

    @property
    def n_taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def padded(self) -> tuple[int, int]:
        """What the windows reach."""
        reach = [
            (o - 1) * s + (k - 1) * d + 1
            for o, s, k, d in zip(self.out, self.strides, self.kernel, self.dilations, strict=True)
        ]
        return max(reach[0], self.height + self.begins[0]), max(reach[1], self.width + self.begins[1])

    @property
    def direct(self) -> bool:
        """Whether windows are pixels, one after the other."""
        return self.n_taps == 1 and self.strides == (1, 1) and self.padded == self.out

    @property
    def n_columns(self) -> int:
        return self.out[0] * self.out[1]


def geometry_of(shape: tuple[int, ...], w_shape: tuple[int, ...], groups: int, windows: Windows) -> Geometry:
    """Of images with one or two spatial dimensions."""
    one = len(shape) == 3

    def both(values: tuple[int, ...], missing: int) -> tuple[int, int]:
        return (missing, values[0]) if one else (values[0], values[1])

    return Geometry(
        shape[0],
        groups,
        w_shape[1],
        w_shape[0] // groups,
        *both(shape[2:], 1),
        both(windows.kernel, 1),
        both(windows.strides, 1),
        both(windows.dilations, 1),
        both(windows.begins, 0),
        both(windows.out, 1),
    )


class Image(NamedTuple):
    """How a prepared image lies, in bytes."""

    size: int  # channels of a group
    n_planes: int  # of one group of the convolution
    plane: int
    group: int
    image: int
    flip: bool


def image_of(geometry: Geometry, size: int, least_planes: int, dtype: str, mode: str) -> Image:
    padded = geometry.padded
    plane = padded[0] * padded[1] * size
    n_planes = -(-geometry.channels // size)
    group = max(n_planes, least_planes) * plane
    return Image(size, n_planes, plane, group, group * geometry.groups, dots.must_flip(mode, dtype))


@dataclass(eq=False)
class Interleave(Operation):
    """Make an image ready. ``inputs``: what the bytes are made of, then the zero point where it is a tensor."""

    geometry: Geometry
    image: Image
    operands: tuple[Tensor, ...]  # views [images, groups · channels, height, width]
    zero: Tensor | None
    expression: Expression
    kind: ClassVar[str] = "interleave"

    def calls(self, target: Target, n_threads: int) -> list[Call]:
        del n_threads
        geometry, image = self.geometry, self.image
        (result,) = self.outputs
        size, padded = (geometry.height, geometry.width), geometry.padded
        if padded == size and all(t.strides[2] == t.strides[3] * size[1] or size[0] == 1 for t in self.operands):
            size = padded = (1, size[0] * size[1])  # rows one after the other are one
        words: list[Any] = [geometry.images, geometry.groups, geometry.channels, image.n_planes]
        words += [*size, *padded, *geometry.begins]
        words += [result.address(), image.image, image.group, (self.zero or result).address()]
        for tensor in self.operands:
            words += [tensor.address(), *tensor.strides[:3]]
        ways = tuple(BROADCAST if t.strides[3] == 0 else CONTIGUOUS for t in self.operands)
        key = Key("interleave", (image.size, self.expression, ways, image.flip, self.zero is not None))
        n_units = geometry.images * geometry.groups * image.n_planes * padded[0]
        work = geometry.images * geometry.groups * geometry.channels * geometry.height * geometry.width
        return [Call(key, words, work * (0.1 + 0.06 * len(self.expression.body)), most_threads=n_units)]

    def absorb_before(self, before: Map, position: int, target: Target) -> Operation | None:
        del target
        if position or len(self.operands) != 1 or self.expression.body or len(before.outputs) != 1:
            return None
        (x,) = self.operands
        made = before.outputs[0]
        if made.shape != self.inputs[0].shape or not same_elements(made, self.inputs[0]):
            return None
        operands = []
        for tensor in before.inputs:
            view = as_image(tensor)
            if view.strides[3] not in (0, 1) and view.shape[3] != 1:
                return None
            operands.append(view)
        if x.shape != operands[0].shape:
            return None
        inputs = [*operands] if self.zero is None else [*operands, self.zero]
        return Interleave(
            inputs, self.outputs, self.geometry, self.image, tuple(operands), self.zero, before.expression
        )


def as_image(tensor: Tensor) -> Tensor:
    """A view with two spatial dimensions."""
    if len(tensor.shape) == 4:
        return tensor
    (n, c, w), (of_n, of_c, of_w) = tensor.shape, tensor.strides
    return tensor.view((n, c, 1, w), (of_n, of_c, 0, of_w))
