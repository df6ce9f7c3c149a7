"""NonMaxSuppression: of boxes by falling score, those that no better one of their class overlaps too much.

Candidates are a heap of numbers, the best at its root (see ``selection``): most are never brought in order. Each is
compared with all boxes that were kept, a vector of these at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.compiler.codegen.copying import any_lane, report
from distort.kernels.compiler.codegen.selection import number_of, order_of, sift
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector

WORDS = (
    "boxes",  # address, [images, boxes, 4]
    "scores",  # address, [images, classes, boxes]
    "most",  # address, int64: boxes of a class that are kept, at most
    "overlap",  # address, float: more is too much
    "least",  # address, float: scores must be larger
    "kept",  # address, int64 [images, classes, capacity]
    "counts",  # address, int64 [images, classes]: how many of these there are
    "scratch",  # address
    "error",  # address
    "scratch_stride",  # bytes from one thread's to the next
    "pairs",  # of an image and a class
    "classes",
    "n_boxes",
    "capacity",
)
_ADDRESSES = 9
#: what is kept of a box: begin and end along both axes, and the area
_SIDES = 5


def scratch_nbytes(n_boxes: int, capacity: int, lanes: int) -> int:
    """Of a thread: the heap, then what is kept of boxes."""
    return n_boxes * 8 + _SIDES * (-(-capacity // lanes) * lanes) * 4


def emit_suppression(f: Function, target: Target, limited: bool, centred: bool) -> None:
    """``limited``: whether there is a least score; ``centred``: boxes are two centres and two sizes, else corners."""
    lanes = target.lanes("float")
    words = {name: (f.address if n < _ADDRESSES else f.word)(n) for n, name in enumerate(WORDS)}
    cursor, counter = f.alloca("i64"), f.alloca("i64")
    n_boxes, capacity = words["n_boxes"], words["capacity"]
    scratch = f.at(words["scratch"], f.mul(f.thread, words["scratch_stride"]), "i8")
    heap, room = scratch, f.mul(f.div(f.add(capacity, lanes - 1), lanes), lanes)
    sides = [f.at(f.at(scratch, n_boxes, "i64"), f.mul(room, i), "float") for i in range(_SIDES)]
    most = f.min(f.load("i64", words["most"]), capacity)
    overlap = f.load("float", words["overlap"])
    least = f.load("float", words["least"]) if limited else None
    right = f.binary("and", f.fcmp("oge", overlap, f.const("float", 0)), f.fcmp("ole", overlap, f.const("float", 1)))
    report(f, f.binary("xor", right, f.const("i1", 1)), words["error"])
    begin, end = f.share(words["pairs"])
    with f.loop(begin, end) as pair:
        scores = f.at(words["scores"], f.mul(pair.index, n_boxes), "float")
        boxes = f.at(words["boxes"], f.mul(f.mul(f.div(pair.index, words["classes"]), n_boxes), 4), "float")
        found = f.at(words["kept"], f.mul(pair.index, capacity), "i64")
        _collect(f, lanes, scores, n_boxes, least, heap, counter)
        n = f.load("i64", counter)
        half = f.div(n, 2)
        with f.loop(0, half) as node:
            at = f.sub(f.sub(half, 1), node.index)
            sift(f, cursor, heap, n, at, f.load("i64", f.at(heap, at, "i64")))
        n = f.select(f.compare("sgt", most, 0), n, f.i64(0))
        with f.loop(0, n, carried=[f.i64(0)]) as pop:
            (count,) = pop.carried
            best = f.load("i64", heap)
            left = f.sub(f.sub(n, 1), pop.index)
            sift(f, cursor, heap, left, 0, f.load("i64", f.at(heap, left, "i64")))
            place = f.binary("and", best, Value("i64", "4294967295"))
            box = _corners(f, f.at(boxes, f.mul(place, 4), "float"), centred)
            beaten = _beaten(f, lanes, box, sides, count, overlap)
            wins = f.binary("xor", beaten, f.const("i1", 1))
            with f.when(wins):
                fresh = f.compare("eq", f.rem(count, lanes), 0)
                for value, side in zip(box, sides, strict=True):
                    with f.when(fresh):
                        f.store(f.const(vector("float", lanes), 0), f.at(side, count, "float"))
                    f.store(value, f.at(side, count, "float"))
                f.store(place, f.at(found, count, "i64"))
            count = f.i64(f.add(count, f.cast("zext", wins, "i64")))
            pop.step = f.select(f.compare("sge", count, most), n, f.i64(1))
            pop.carry([count])
        f.store(pop.carried[0], f.at(words["counts"], pair.index, "i64"))
    f.ret()


def _collect(
    f: Function, lanes: int, scores: Value, n_boxes: Value, least: Value | None, heap: Value, counter: Value
) -> None:
    """Put the numbers of all boxes with enough score where the heap will be, and their number in ``counter``."""
    f.store(f.i64(0), counter)

    def offer(at: Index) -> None:
        score = f.load("float", f.at(scores, at, "float"))

        def take() -> None:
            count = f.load("i64", counter)
            order = order_of(f, score, "float32", True)
            order = f.select(f.fcmp("uno", score, score), Value("i32", "-2147483648"), order)  # NaN is the least
            number = f.binary("xor", number_of(f, order, at), Value("i64", "-1"))  # the best is the smallest
            f.store(number, f.at(heap, count, "i64"))
            f.store(f.i64(f.add(count, 1)), counter)

        if least is None:
            take()
        else:
            with f.when(f.fcmp("ogt", score, least)):
                take()

    whole: Index = 0
    if least is not None:
        whole = f.mul(f.div(n_boxes, lanes), lanes)
        with f.loop(0, whole, lanes) as block:
            some = f.load(vector("float", lanes), f.at(scores, block.index, "float"))
            with (
                f.when(any_lane(f, f.fcmp("ogt", some, f.splat(least, lanes)))),
                f.loop(block.index, f.add(block.index, lanes)) as one,
            ):
                offer(one.index)
    with f.loop(whole, n_boxes) as one:
        offer(one.index)


def _corners(f: Function, box: Value, centred: bool) -> list[Value]:
    """Begin and end along both axes, and the area."""
    a, b, c, d = (f.load("float", f.at(box, i, "float")) for i in range(4))
    sides: list[Value] = []
    for one, other in ((a, c), (b, d)):
        if centred:
            half = f.fmul(other, f.const("float", 0.5))
            sides += [f.fsub(one, half), f.fadd(one, half)]
        else:
            sides += [f.intrinsic("minimum", one, other), f.intrinsic("maximum", one, other)]
    return [*sides, f.fmul(f.fsub(sides[1], sides[0]), f.fsub(sides[3], sides[2]))]


def _beaten(f: Function, lanes: int, box: Sequence[Value], sides: Sequence[Value], count: Value, most: Value) -> Value:
    """Whether the box shares more than ``most`` of their union with one of ``count`` others."""
    wide = [f.splat(value, lanes) for value in box]
    zero = f.const(vector("float", lanes), 0)
    with f.loop(0, count, lanes, [Value("i1", "false")]) as block:
        low, high, left, right, area = (
            f.load(vector("float", lanes), f.at(side, block.index, "float")) for side in sides
        )
        down = f.fsub(f.intrinsic("minimum", wide[1], high), f.intrinsic("maximum", wide[0], low))
        across = f.fsub(f.intrinsic("minimum", wide[3], right), f.intrinsic("maximum", wide[2], left))
        shared = f.fmul(f.intrinsic("maximum", down, zero), f.intrinsic("maximum", across, zero))
        union = f.fsub(f.fadd(wide[4], area), shared)
        much = f.fcmp("ogt", f.fdiv(shared, union), f.splat(most, lanes))
        beaten = any_lane(f, f.binary("and", f.fcmp("ogt", shared, zero), much))
        block.step = f.select(beaten, count, f.i64(lanes))
        block.carry([beaten])
    return block.carried[0]


def emit_selected(f: Function, target: Target) -> None:
    """[image, class, box] of all that was kept, one after another, and how many there are.

    Words: images · classes, classes, capacity; kept, counts (see ``WORDS``); the result, the number.
    """
    del target
    pairs, classes, capacity = (f.word(i) for i in range(3))
    kept, counts, result, number = (f.address(i) for i in range(3, 7))
    with f.loop(0, pairs, carried=[f.i64(0)]) as pair:
        count = f.load("i64", f.at(counts, pair.index, "i64"))
        image, of_class = f.div(pair.index, classes), f.rem(pair.index, classes)
        found = f.at(kept, f.mul(pair.index, capacity), "i64")
        with f.loop(0, count) as box:
            to = f.at(result, f.mul(f.add(pair.carried[0], box.index), 3), "i64")
            place = f.load("i64", f.at(found, box.index, "i64"))
            for i, value in enumerate((f.i64(image), f.i64(of_class), place)):
                f.store(value, f.at(to, i, "i64"))
        pair.carry([f.i64(f.add(pair.carried[0], count))])
    f.store(pair.carried[0], number)
    f.ret()
