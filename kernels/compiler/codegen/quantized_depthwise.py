"""Convolutions of 8-bit images channel by channel: lanes are pixels, and a lane adds neighbouring taps of a row.

Bytes of a row of the image are shuffled so that each lane has those that its window reads: one product of a few taps.
Images are as ``interleave`` leaves them, in groups of one channel.
"""

from __future__ import annotations

from typing import NamedTuple

from distort.kernels.compiler.codegen import byte_dots as dots
from distort.kernels.compiler.codegen.quantized_sums import WORDS, Product, SumsEmitter, emit_parts
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector

#: between those of a product and those of its operands; steps in bytes
DEPTHWISE_WORDS = ("out_height", "out_width", "step_y", "tap_y", "unit_rows")


class Window(NamedTuple):
    """Taps, and those between windows and between taps of a row."""

    height: int
    width: int
    step: int
    dilation: int


def n_chunks(window: Window, group: int) -> int:
    """Products for a row of taps."""
    return -(-window.width // group)


def reach(window: Window, lanes: int, group: int) -> int:
    """Bytes that the windows of a vector read of a row, at most, for one product."""
    return (lanes - 1) * window.step + (group - 1) * window.dilation + 1


def fits(window: Window, target: Target) -> bool:
    lanes, group = target.lanes("i32"), dots.group_of(dots.mode_of(target))
    return reach(window, lanes, group) <= 4 * lanes and window.height * n_chunks(window, group) <= 12


def emit_depthwise(f: Function, target: Target, window: tuple[int, ...], product: tuple[object, ...]) -> None:
    def emit(part: Function, shared: Product) -> None:
        _Emitter(part, target, Window(*window), shared).emit()

    name = "_".join(["bytes_depthwise", *map(str, window)])
    n_words = len(WORDS) + len(DEPTHWISE_WORDS)
    emit_parts(f, target, Product(*product), n_words, name, emit)  # type: ignore[arg-type]


class _Emitter(SumsEmitter):
    def __init__(self, f: Function, target: Target, window: Window, product: Product) -> None:
        super().__init__(f, target, product)
        self.window = window
        for n, name in enumerate(DEPTHWISE_WORDS, len(WORDS)):
            self.words[name] = f.word(n)
        most = f.add(f.mul(self.words["unit_rows"], self.words["out_width"]), self.lanes)
        self.totals = f.at(self.sums, most, "i32")

    def emit(self) -> None:
        f, words = self.f, self.words
        some = words["unit_rows"]
        n_parts = f.div(f.add(words["out_height"], f.sub(some, 1)), some)
        of_group = f.mul(n_parts, words["rows"])
        begin, end = f.share(f.mul(of_group, f.mul(words["outer"], words["inner"])))
        with f.loop(begin, end) as unit:
            number, rest = f.div(unit.index, of_group), f.rem(unit.index, of_group)
            batch = (f.div(number, words["inner"]), f.rem(number, words["inner"]))
            row, part = f.div(rest, n_parts), f.rem(rest, n_parts)
            first = f.mul(part, some)
            n_rows = f.min(some, f.sub(words["out_height"], first))
            place = f.add(f.mul(batch[1], words["a_inner"]), f.mul(row, words["a_row"]))
            weights = self._weights(f.at(words["a"], place, "i8"))
            image = f.at(words["b"], self.in_batch(batch, words["b_outer"], words["b_inner"]), "i8")
            with f.loop(0, n_rows) as line, f.loop(0, words["out_width"], self.lanes) as x:
                top = f.mul(f.add(first, line.index), words["step_y"])
                source = f.at(image, f.add(top, f.mul(x.index, self.window.step)), "i8")
                place = f.add(f.mul(line.index, words["out_width"]), x.index)
                self._pixels(source, weights, place)
            n_columns = f.mul(n_rows, words["out_width"])
            self.finish(batch, row, 1, f.mul(first, words["out_width"]), n_columns)
        f.ret()

    def _weights(self, address: Value) -> list[Value]:
        """Of each product, in all lanes."""
        f, group = self.f, self.group
        found = []
        for n in range(self.window.height * n_chunks(self.window, group)):
            taps = f.load(vector("i8", group), f.at(address, n * group, "i8"))
            found.append(dots.every(f, dots.wide(f, taps, self.mode, True), self.lanes))
        return found

    def _pixels(self, source: Value, weights: list[Value], place: Index) -> None:
        """Sums of a vector of pixels. Those behind the end of a row are overwritten by the next one."""
        f, window, group, lanes = self.f, self.window, self.group, self.lanes
        chunks = n_chunks(window, group)
        sums = totals = f.const(self.type, 0)
        for y in range(window.height):
            line = f.at(source, f.mul(y, self.words["tap_y"]), "i8")
            for chunk in range(chunks):
                first = chunk * group
                there = f.load(vector("i8", 4 * lanes), f.at(line, first * window.dilation, "i8"))
                mask = [
                    lane * window.step + min(tap, window.width - 1 - first) * window.dilation
                    for lane in range(lanes)
                    for tap in range(group)
                ]
                values = dots.wide(f, f.shuffle(there, there, mask), self.mode, self.product.b_signed)
                weight = weights[y * chunks + chunk]
                sums = dots.add_products(f, self.target, self.mode, sums, values, weight)
                if self.product.has_weight_zeros:
                    ones = self._ones(min(group, window.width - first))
                    totals = dots.add_products(f, self.target, self.mode, totals, values, ones)
        f.store(sums, f.at(self.sums, place, "i32"))
        if self.product.has_weight_zeros:
            f.store(totals, f.at(self.totals, place, "i32"))

    def _ones(self, n: int) -> Value:
        """A group with n ones and then zeros, in all lanes."""
        element = "i16" if self.mode == dots.PAIRS else "i8"
        numbers = [1 if lane % self.group < n else 0 for lane in range(self.lanes * self.group)]
        text = ", ".join(f"{element} {number}" for number in numbers)
        return Value(vector(element, len(numbers)), f"<{text}>")
