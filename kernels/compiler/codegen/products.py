"""The register tile of a direct convolution: sums of products of pixels and blocks of output channels."""

from __future__ import annotations

from typing import NamedTuple

from distort.kernels.compiler.codegen.text import Function, Index, Value, vector

#: float32 numbers of a cache line
LINE = 16


class Form(NamedTuple):
    """What the code of a convolution is made for."""

    block: int  # input channels of a block
    pixels: int
    blocks: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    padded: bool = False
    spread: int = 1  # outputs are so many pixels apart
    chunked: bool = False  # so many input blocks at a time that their weights stay in the first-level cache
    streamed: bool = False  # weights come from beyond the second-level cache: those to come are fetched ahead

    @property
    def run(self) -> int:
        """How many products have their input next to each other: a row of the kernel, or one element of it."""
        return self.block * (self.kernel[1] if self.dilations[1] == 1 else 1)

    @property
    def pointwise(self) -> bool:
        return self.kernel == (1, 1)


class Products(NamedTuple):
    """The products of some input blocks with a tile's weights."""

    form: Form
    lanes: int
    n_blocks: Index
    channels: Index  # input channels of these blocks and those after them; matters for 1 x 1 only
    row: Index  # elements from one input row to the next
    plane: Index  # and from one block to the next
    ahead_step: Index  # bytes to fetch ahead for each product
    #: kernel rows from the first to before the second are not all zeros
    rows: tuple[Index, Index] | None = None

    @property
    def vector(self) -> str:
        return vector("float", self.lanes)

    def zeros(self, f: Function) -> list[Value]:
        return [f.const(self.vector, 0)] * (self.form.blocks * self.form.pixels)

    def add(self, f: Function, x: Value, weights: Value, ahead: Value, sums: list[Value]) -> list[Value]:
        """``sums``, by block and pixel, with the products. ``x`` is where the first pixel's window begins.

        One product of each sum is printed, in loops: the machine overlaps their passes, and LLVM, given several,
        would order them by sums, so that each waits for the one before.
        """
        return self._nest(f, 0, x, weights, ahead, self.channels, sums)

    def _loop(self, f: Function, level: int) -> tuple[Index, Index, int]:
        """Passes, and elements of the input and products from one pass to the next."""
        form = self.form
        if level == 0:
            return self.n_blocks, self.plane, form.block * form.kernel[0] * form.kernel[1]
        if level == 1:
            return form.kernel[0], f.mul(self.row, form.dilations[0]), form.block * form.kernel[1]
        if level == 2:
            return form.kernel[1] * form.block // form.run, form.dilations[1] * form.block, form.block
        return form.run, 1, 1

    def _nest(
        self, f: Function, level: int, x: Value, weights: Value, ahead: Value, channels: Index, sums: list[Value]
    ) -> list[Value]:
        """Loops over input blocks, kernel rows, elements of a row where they are apart, and a run."""
        form = self.form
        if level == 4:
            if form.streamed:
                f.prefetch(ahead, 2)
            return self._multiply(f, x, weights, sums)
        count, x_step, products = self._loop(f, level)
        if isinstance(count, int) and count == 1:
            return self._nest(f, level + 1, x, weights, ahead, channels, sums)
        if level == 3 and form.pointwise:
            count = f.min(count, channels)
        first, last = self.rows if level == 1 and self.rows is not None else (0, count)
        with f.loop(first, last, carried=sums) as loop:
            here = f.at(x, f.mul(loop.index, x_step), "float")
            there = f.at(weights, f.mul(loop.index, products * form.blocks * self.lanes), "float")
            later = f.at(ahead, f.mul(loop.index, f.mul(self.ahead_step, products)), "i8")
            if level == 0 and form.pointwise:
                channels = f.sub(channels, f.mul(loop.index, form.block))
                # the next tile's pixels
                reach = form.pixels * form.strides[1] * form.block
                for line in range(0, reach, LINE):
                    f.prefetch(f.at(here, reach + line, "float"))
            loop.carry(self._nest(f, level + 1, here, there, later, channels, loop.carried))
        return loop.carried

    def _multiply(self, f: Function, x: Value, weights: Value, sums: list[Value]) -> list[Value]:
        """One product more of each sum: of elements a stride apart, and the weights of their channel."""
        form = self.form
        row = [f.load(self.vector, f.at(weights, k * self.lanes, "float")) for k in range(form.blocks)]
        sums = list(sums)
        for pixel in range(form.pixels):
            one = f.load("float", f.at(x, pixel * form.strides[1] * form.block, "float"))
            wide = f.splat(one, self.lanes)
            for k in range(form.blocks):
                number = k * form.pixels + pixel
                sums[number] = f.fma(wide, row[k], sums[number])
        return sums
