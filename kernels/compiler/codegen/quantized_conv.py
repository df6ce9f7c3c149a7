"""Convolutions of 8-bit images: products of weights [channels, depth] with panels of pixels.

Images are as ``interleave`` leaves them. Depth goes through channel groups, then through the taps of the window, then
through the channels of a group. Each thread packs panels of output pixels as it needs them: where a vector of pixels
lies in one row of the image, by whole vectors. Windows of one tap and stride 1 need no packing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from distort.kernels.compiler.codegen import byte_dots as dots
from distort.kernels.compiler.codegen import elements
from distort.kernels.compiler.codegen.quantized import ProductEmitter
from distort.kernels.compiler.codegen.quantized_sums import WORDS, Product, emit_parts
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector

#: between those of a product and those of its operands; in bytes
CONV_WORDS = (
    *("out_width", "step_y", "step_x"),  # between windows
    *("n_taps", "taps", "n_planes", "plane"),  # taps: int64, where each reads; a plane is a channel group
)


class Conv(NamedTuple):
    direct: bool  # windows of one tap, one after the other
    stride: int  # between windows of a row, in pixels; 0: another than 1 and 2
    product: Product


def emit_conv(f: Function, target: Target, direct: bool, stride: int, product: tuple[object, ...]) -> None:
    def emit(part: Function, shared: Product) -> None:
        ConvEmitter(part, target, Conv(direct, stride, shared)).emit()

    name = f"bytes_conv_{int(direct)}_{stride}"
    n_words = len(WORDS) + len(CONV_WORDS)
    emit_parts(f, target, Product(*product), n_words, name, emit)  # type: ignore[arg-type]


class ConvEmitter(ProductEmitter):
    def __init__(self, f: Function, target: Target, conv: Conv) -> None:
        super().__init__(f, target, conv.product)
        self.conv = conv
        for n, name in enumerate(CONV_WORDS, len(WORDS)):
            self.words[name] = (f.address if name == "taps" else f.word)(n)
        self.bytes = vector("i8", self.lanes * self.group)
        self.offsets = f.alloca("i32", self.lanes)  # of a vector's pixels
        if conv.direct:
            self.line_nbytes = self.words["plane"]

    def panel(self, batch: tuple[Index, Index], panel: Index) -> Value:
        f, words = self.f, self.words
        image = f.at(words["b"], self.in_batch(batch, words["b_outer"], words["b_inner"]), "i8")
        first = f.mul(panel, self.width)
        if self.conv.direct:
            lines = f.at(image, f.mul(first, self.group), "i8")
        else:
            lines = self.copied
            with f.loop(0, self.product.vectors) as loop:
                begin = f.add(first, f.mul(loop.index, self.lanes))
                self._pack(image, begin, f.at(lines, f.mul(loop.index, self.lanes * self.group), "i8"))
        if self.product.has_weight_zeros:
            with f.loop(0, self.product.vectors) as loop:
                self._sum_columns(lines, loop.index)
        return lines

    def _sum_columns(self, lines: Value, number: Index) -> None:
        """Σ over the depth of each column of a vector, but for what is behind the last channel group."""
        f = self.f
        mode = dots.mode_of(self.target)
        ones = f.const(vector("i16" if mode == dots.PAIRS else "i8", self.lanes * self.group), 1)
        n_lines = f.mul(self.words["n_planes"], self.words["n_taps"])
        place = f.mul(number, self.lanes * self.group)
        with f.loop(0, n_lines, 1, [f.const(self.type, 0)]) as loop:
            value = f.load(self.bytes, f.at(lines, f.add(f.mul(loop.index, self.line_nbytes), place), "i8"))
            is_signed = self.product.b_signed
            # tiles take either sign; the vectors' dot product takes one
            if mode == dots.MIXED and is_signed:
                one, other = ones, value
            elif mode == dots.SIGNED and not is_signed:
                raise ValueError("arm's dot product is of signed numbers")
            else:
                one, other = dots.wide(f, value, mode, is_signed), ones
            loop.carry([dots.add_products(f, self.target, mode, loop.carried[0], one, other)])
        f.store(loop.carried[0], f.at(self.totals, f.mul(number, self.lanes), "i32"))

    def _pack(self, image: Value, begin: Index, target: Value) -> None:
        """A vector of pixels from ``begin`` on, for all of the depth."""
        f, words = self.f, self.words
        last = f.sub(words["columns"], 1)
        begin = f.min(begin, last)
        y, x = f.div(begin, words["out_width"]), f.rem(begin, words["out_width"])
        source = f.at(image, f.add(f.mul(y, words["step_y"]), f.mul(x, words["step_x"])), "i8")

        def apart() -> list[Value]:
            left = f.sub(words["columns"], begin)
            self._find_offsets(x, left)
            self._each_line(source, target, self._gather)
            return []

        if self.conv.stride == 0:
            apart()
            return

        def along() -> list[Value]:
            self._each_line(source, target, self._load)
            return []

        f.choose(f.compare("sle", f.add(x, self.lanes), words["out_width"]), (along, apart))

    def _each_line(self, source: Value, target: Value, read: Callable[[Value, Value], None]) -> None:
        f, words = self.f, self.words
        with f.loop(0, words["n_planes"]) as plane:
            plane_source = f.at(source, f.mul(plane.index, words["plane"]), "i8")
            plane_line = f.mul(plane.index, words["n_taps"])
            with f.loop(0, words["n_taps"]) as tap:
                offset = f.load("i64", f.at(words["taps"], tap.index, "i64"))
                place = f.mul(f.add(plane_line, tap.index), self.line_nbytes)
                read(f.at(plane_source, offset, "i8"), f.at(target, place, "i8"))

    def _load(self, source: Value, target: Value) -> None:
        """Pixels of one row."""
        f = self.f
        if self.conv.stride == 1:
            f.store(f.load(self.bytes, source), target)
            return
        # every second one, of two vectors
        pixels = vector(f"i{8 * self.group}", self.lanes)
        one, other = (f.load(pixels, f.at(source, n * self.lanes * self.group, "i8"), 1) for n in (0, 1))
        f.store(f.shuffle(one, other, range(0, 2 * self.lanes, 2)), target, 1)

    def _find_offsets(self, x: Index, left: Index) -> None:
        """Bytes from the first pixel to each; those behind the last one are where that is."""
        f, words = self.f, self.words
        turn = f.sub(words["step_y"], f.mul(f.sub(words["out_width"], 1), words["step_x"]))
        with f.loop(0, self.lanes, 1, [f.i64(0), f.i64(x)]) as loop:
            offset, column = loop.carried
            f.store(f.op("i32", f"trunc {offset} to i32"), f.at(self.offsets, loop.index, "i32"))
            is_last = f.compare("sge", f.add(loop.index, 1), left)
            following = f.add(column, 1)
            turns = f.compare("eq", following, words["out_width"])
            step = f.select(turns, f.i64(turn), words["step_x"])
            step = f.select(is_last, f.i64(0), step)
            loop.carry([f.i64(f.add(offset, step)), f.select(turns, f.i64(0), f.i64(following))])

    def _gather(self, source: Value, target: Value) -> None:
        f = self.f
        if elements.has_masks(self.target) and self.group == 4:
            type_ = vector("i32", self.lanes)
            index = f.load(type_, self.offsets)
            places = f.op(vector("ptr", self.lanes), f"getelementptr i8, {source}, {index}")
            name = f"llvm.masked.gather.v{self.lanes}i32.v{self.lanes}p0"
            mask = f.const(vector("i1", self.lanes), 1)
            f.declare(f"{type_} @{name}({places.type}, i32 immarg, {mask.type}, {type_})")
            value = f.op(type_, f"call {type_} @{name}({places}, i32 1, {mask}, {f.const(type_, 0)})")
            f.store(value, target, 1)
            return
        pixel = f"i{8 * self.group}"
        with f.loop(0, self.lanes) as lane:
            offset = f.op("i64", f"sext {f.load('i32', f.at(self.offsets, lane.index, 'i32'))} to i64")
            value = f.load(pixel, f.at(source, offset, "i8"), 1)
            f.store(value, f.at(target, f.mul(lane.index, self.group), "i8"), 1)
