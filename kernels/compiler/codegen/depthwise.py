"""Depthwise convolution of float32 in blocked layout: every channel has a kernel of its own."""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.compiler.codegen import epilogues, sliding
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.expression import Expression


def emit_depthwise(
    f: Function, target: Target, window: sliding.Window, expression: Expression, kinds: tuple[str, ...]
) -> None:
    """Weights are [C/lanes, KH, KW, lanes], with a depth before KH where windows have one.

    Words: see ``sliding``, then those of the epilogue.
    """
    window = sliding.Window(*window)
    lanes = target.lanes("float")
    words = sliding.read(f)
    epilogue = epilogues.read(f, expression, kinds, len(sliding.WORDS))
    vector = f"<{lanes} x float>"
    n_taps = window.kernel[0] * window.kernel[1]

    def combine(
        row: sliding.Row, sums: list[Value], line: Index, values: Sequence[tuple[int, Index, Value]]
    ) -> list[Value]:
        own = f.mul(words["all_taps"], n_taps) if window.deep else n_taps
        place = f.add(f.mul(row.block, own), f.mul(line, window.kernel[1]))
        weights = f.at(words["weights"], f.mul(place, lanes), "float")
        known: dict[Index, Value] = {}
        sums = list(sums)
        for pixel, column, value in values:
            if column not in known:
                known[column] = f.load(vector, f.at(weights, f.mul(column, lanes), "float"))
            sums[pixel] = f.fma(value, known[column], sums[pixel])
        return sums

    sliding.emit(f, lanes, window, words, epilogue, 0.0, combine, lambda row, sums, columns, last: sums)
