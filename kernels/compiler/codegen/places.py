"""The largest elements of windows and where they are, in blocked layout."""

from __future__ import annotations

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value

WORDS = (
    "x",  # address, [images, channel blocks, height, width, lanes]
    "best",  # address, the same of the output
    "places",  # address, int32: elements from the plane's first
    "images",
    "blocks",
    "height",
    "width",
    "out_height",
    "out_width",
    "kernel_height",
    "kernel_width",
    "step_down",
    "step_across",
    "dilation_down",
    "dilation_across",
    "pad_top",
    "pad_left",
    "row_pitch",  # what a row adds to a place, and what a column does
    "column_pitch",
    "x_image",  # elements from one image to the next
    "x_block",  # and from one block to the next
)


def emit_places(f: Function, target: Target) -> None:
    """NaN is larger than every number; of equal elements the first counts. Nothing inside: -inf, at -1."""
    lanes = target.lanes("float")
    words = {name: (f.address if n < 3 else f.word)(n) for n, name in enumerate(WORDS)}
    vector = f"<{lanes} x float>"
    begin, end = f.share(f.mul(f.mul(words["images"], words["blocks"]), words["out_height"]))
    with f.loop(begin, end) as unit:
        out_row, plane = f.rem(unit.index, words["out_height"]), f.div(unit.index, words["out_height"])
        block, image = f.rem(plane, words["blocks"]), f.div(plane, words["blocks"])
        x = f.at(words["x"], f.add(f.mul(image, words["x_image"]), f.mul(block, words["x_block"])), "float")
        top = f.sub(f.mul(out_row, words["step_down"]), words["pad_top"])
        first_row, last_row = _inside(f, top, words["height"], words["kernel_height"], words["dilation_down"])
        made = f.mul(f.mul(unit.index, words["out_width"]), lanes)
        with f.loop(0, words["out_width"]) as column:
            left = f.sub(f.mul(column.index, words["step_across"]), words["pad_left"])
            first, last = _inside(f, left, words["width"], words["kernel_width"], words["dilation_across"])

            def place(tap_row: Index, tap: Index, left: Index = left) -> tuple[Index, Index]:
                y = f.add(top, f.mul(tap_row, words["dilation_down"]))
                return y, f.add(left, f.mul(tap, words["dilation_across"]))

            def number(y: Index, at: Index) -> Value:
                there = f.add(f.mul(y, words["row_pitch"]), f.mul(at, words["column_pitch"]))
                return f.cast("trunc", f.i64(there), "i32")

            some = f.binary("and", f.compare("slt", first_row, last_row), f.compare("slt", first, last))
            start = f.select(some, number(*place(first_row, first)), Value("i32", "-1"))
            state = [f.const(vector, float("-inf")), f.splat(start, lanes)]
            with f.loop(first_row, last_row, carried=state) as row:
                with f.loop(first, last, carried=row.carried) as tap:
                    best, at = tap.carried
                    y, here = place(row.index, tap.index)
                    value = f.load(vector, f.at(x, f.mul(f.add(f.mul(y, words["width"]), here), lanes), "float"))
                    better = f.binary("and", f.fcmp("ugt", value, best), f.fcmp("ord", best, best))
                    found = f.select(better, f.splat(number(y, here), lanes), at)
                    tap.carry([f.select(better, value, best), found])
                row.carry(tap.carried)
            spot = f.add(made, f.mul(column.index, lanes))
            best, at = row.carried
            f.store(best, f.at(words["best"], spot, "float"))
            f.store(at, f.at(words["places"], spot, "i32"))
    f.ret()


def _inside(f: Function, begin: Index, size: Index, kernel: Index, dilation: Index) -> tuple[Index, Index]:
    """As :func:`sliding.inside`, of a dilation that is a word."""
    before, room = f.max(f.sub(0, begin), 0), f.max(f.sub(size, begin), 0)
    less = f.sub(dilation, 1)
    first, last = (f.div(f.add(n, less), dilation) for n in (before, room))
    last = f.min(last, kernel)
    return f.min(first, last), last
