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
#: sums under way in a global pool, so that none waits for the one before
_N_SUMS = 4


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

    def finish(row: sliding.Row, sums: list[Value], columns: Sequence[Sequence[int]], last: bool) -> list[Value]:
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
            counts = [len(inside) for inside in window._replace(pad_left=0, overhang=beyond).taps(False, last)]
        made: dict[int, Value] = {}
        results = []
        for value, count in zip(sums, counts, strict=True):
            if count not in made:
                n = f.mul(n_rows, count)
                n = f.mul(n, words["deep_count"]) if window.deep else n
                divisor = f.op("float", f"sitofp {f.i64(n)} to float")
                made[count] = f.splat(divisor, lanes)
            results.append(f.fdiv(value, made[count]))
        return results

    initial = float("-inf") if mode == MAX else 0.0
    sliding.emit(f, lanes, window, words, epilogue, initial, combine, finish)


GLOBAL_WORDS = ("x", "images", "blocks", "pixels", "x_image", "out_image")


def emit_global_pool(f: Function, target: Target, mode: str, expression: Expression, kinds: tuple[str, ...]) -> None:
    """The largest or the mean of all pixels: [N, C/lanes, pixels, lanes] to [N, C/lanes, lanes].

    Words: see ``GLOBAL_WORDS``, then those of the epilogue.
    """
    lanes = target.lanes("float")
    vector = f"<{lanes} x float>"
    words = {name: (f.address if name == "x" else f.word)(n) for n, name in enumerate(GLOBAL_WORDS)}
    epilogue = epilogues.read(f, expression, kinds, len(GLOBAL_WORDS))
    initial = f.const(vector, float("-inf") if mode == MAX else 0.0)
    begin, end = f.share(f.mul(words["images"], words["blocks"]))

    def combine(a: Value, b: Value) -> Value:
        return f.intrinsic("maximum", a, b) if mode == MAX else f.fadd(a, b)

    with f.loop(begin, end) as unit:
        block, image = f.rem(unit.index, words["blocks"]), f.div(unit.index, words["blocks"])
        place = f.add(f.mul(image, words["x_image"]), f.mul(f.mul(block, words["pixels"]), lanes))
        x = f.at(words["x"], place, "float")
        whole = f.mul(f.div(words["pixels"], _N_SUMS), _N_SUMS)
        with f.loop(0, whole, _N_SUMS, carried=[initial] * _N_SUMS) as several:
            here = f.at(x, f.mul(several.index, lanes), "float")
            loaded = [f.load(vector, f.at(here, i * lanes, "float")) for i in range(_N_SUMS)]
            several.carry([combine(a, b) for a, b in zip(several.carried, loaded, strict=True)])
        with f.loop(whole, words["pixels"], carried=[several.carried[0]]) as one:
            one.carry([combine(one.carried[0], f.load(vector, f.at(x, f.mul(one.index, lanes), "float")))])
        total = one.carried[0]
        for other in several.carried[1:]:
            total = combine(total, other)
        if mode != MAX:
            count = f.splat(f.op("float", f"sitofp {words['pixels']} to float"), lanes)
            total = f.fdiv(total, count)
        spot = f.add(f.mul(image, words["out_image"]), f.mul(block, lanes))
        epilogue.apply(f, [[total]], image, [f.mul(block, lanes)], [spot], lanes)
    f.ret()
