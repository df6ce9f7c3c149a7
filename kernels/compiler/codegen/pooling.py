"""Pooling of float32 in blocked layout."""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.compiler.codegen import epilogues, sliding
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.expression import Expression

#: the largest; the mean of what lies inside; the mean with the padding, but not with what lies beyond it
MAX, MEAN, MEAN_PADDED = "max", "mean", "mean_padded"
MODES = (MAX, MEAN, MEAN_PADDED)


def emit_pool(
    f: Function,
    target: Target,
    window: sliding.Window,
    mode: str,
    pad_right: int,
    expression: Expression,
    kinds: tuple[str, ...],
) -> None:
    """``pad_right`` is what the model says: with ceil_mode a window may reach further. Words: see ``sliding``."""
    window = sliding.Window(*window)
    if mode not in MODES:
        raise ValueError(f"pooling {mode!r} is none of {', '.join(MODES)}")
    lanes = target.lanes("float")
    words = sliding.read(f)
    epilogue = epilogues.read(f, expression, kinds, len(sliding.WORDS))

    def combine(
        row: sliding.Row, sums: list[Value], line: Index, values: Sequence[tuple[int, Index, Value]]
    ) -> list[Value]:
        del row, line
        sums = list(sums)
        for pixel, _, value in values:
            if mode == MAX:
                sums[pixel] = f.intrinsic("maximum", sums[pixel], value)
            else:
                sums[pixel] = f.fadd(sums[pixel], value)
        return sums

    def finish(row: sliding.Row, sums: list[Value], columns: Sequence[Sequence[int]]) -> list[Value]:
        if mode == MAX:
            return sums
        if mode == MEAN:
            n_rows = f.sub(row.last, row.first)
            counts = [len(inside) for inside in columns]
        else:
            top = f.sub(f.mul(row.out_row, window.strides[0]), words["pad_top"])
            _, n_rows = sliding.inside(
                f, top, f.add(words["height"], words["pad_bottom"]), window.kernel[0], window.dilations[0]
            )
            beyond = max(window.overhang - pad_right, 0)
            counts = [len(inside) for inside in window._replace(pad_left=0, overhang=beyond).taps(False, True)]
        made: dict[int, Value] = {}
        results = []
        for value, count in zip(sums, counts, strict=True):
            if count not in made:
                divisor = f.op("float", f"sitofp {f.int(f.mul(n_rows, count))} to float")
                made[count] = f.splat(divisor, lanes)
            results.append(f.fdiv(value, made[count]))
        return results

    initial = float("-inf") if mode == MAX else 0.0
    sliding.emit(f, lanes, window, words, epilogue, initial, combine, finish)
