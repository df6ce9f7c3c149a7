"""Col2Im of images: windows' elements are added where they lie."""

from __future__ import annotations

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.expression import STORED

WORDS = (
    "columns",  # address, [planes, taps down, taps across, windows down, windows across]
    "image",  # address, [planes, height, width]
    "planes",
    *("height", "width"),
    *("taps_down", "taps_across"),
    *("windows_down", "windows_across"),
    *("stride_down", "stride_across"),
    *("dilation_down", "dilation_across"),
    *("pad_down", "pad_across"),  # before the image
)
_ADDRESSES = 2


def emit_fold(f: Function, target: Target, dtype: str, dense: bool) -> None:
    """image[p, y, x] = the sum of what windows have there, tap by tap. ``dense``: windows have no stride across."""
    element = STORED[dtype]
    words = {name: (f.address if n < _ADDRESSES else f.word)(n) for n, name in enumerate(WORDS)}
    lanes = target.lanes(element)
    n_pixels = f.mul(words["height"], words["width"])
    n_windows = f.mul(words["windows_down"], words["windows_across"])
    n_taps = f.mul(words["taps_down"], words["taps_across"])
    begin, end = f.share(words["planes"])

    def within(tap: Index, along: str, size: Value) -> tuple[Index, Index, Index]:
        """(the first window whose tap is in the image, one after the last, the tap's place in the first window)."""
        stride = words[f"stride_{along}"]
        ahead = f.sub(words[f"pad_{along}"], f.mul(tap, words[f"dilation_{along}"]))
        first = f.div(f.add(f.max(ahead, 0), f.sub(stride, 1)), stride)
        reach = f.max(f.add(f.add(f.sub(size, 1), ahead), stride), 0)
        return first, f.min(f.div(reach, stride), words[f"windows_{along}"]), f.sub(0, ahead)

    with f.loop(begin, end) as plane:
        image = f.at(words["image"], f.mul(plane.index, n_pixels), element)
        _clear(f, image, n_pixels, element, lanes)
        columns = f.at(words["columns"], f.mul(plane.index, f.mul(n_taps, n_windows)), element)
        with f.loop(0, n_taps) as tap:
            down, across = f.div(tap.index, words["taps_across"]), f.rem(tap.index, words["taps_across"])
            top, bottom, y = within(down, "down", words["height"])
            left, right, x = within(across, "across", words["width"])
            source = f.at(columns, f.mul(tap.index, n_windows), element)
            with f.loop(top, bottom) as row:
                own = f.at(source, f.mul(row.index, words["windows_across"]), element)
                place = f.add(y, f.mul(row.index, words["stride_down"]))
                to = f.add(f.mul(place, words["width"]), x)

                def add(at: Index, width: int, own: Value = own, to: Index = to) -> None:
                    step = at if dense else f.mul(at, words["stride_across"])
                    cell = f.at(image, f.add(to, step), element)
                    type_ = vector(element, width)
                    f.store(f.fadd(f.load(type_, cell), f.load(type_, f.at(own, at, element))), cell)

                if dense:
                    whole = f.add(left, f.mul(f.div(f.max(f.sub(right, left), 0), lanes), lanes))
                    with f.loop(left, whole, lanes) as some:
                        add(some.index, lanes)
                    with f.when(f.compare("slt", whole, right)):
                        mask, zero = f.first_lanes(lanes, f.sub(right, whole)), f.const(vector(element, lanes), 0)
                        cell = f.at(image, f.add(to, whole), element)
                        ours = f.masked_load(zero.type, cell, mask, zero)
                        theirs = f.masked_load(zero.type, f.at(own, whole, element), mask, zero)
                        f.masked_store(f.fadd(ours, theirs), cell, mask)
                else:
                    with f.loop(left, right) as single:
                        add(single.index, 1)
    f.ret()


def _clear(f: Function, image: Value, count: Index, element: str, lanes: int) -> None:
    whole = f.mul(f.div(count, lanes), lanes)
    for begin, end, width in ((0, whole, lanes), (whole, count, 1)):
        with f.loop(begin, end, width) as some:
            f.store(f.const(vector(element, width), 0), f.at(image, some.index, element))
