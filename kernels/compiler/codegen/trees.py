"""Ensembles of trees: rows go down eight trees at once, which hides what each step waits for.

A node is 16 bytes: what the feature is compared with (float32), where the feature is in a row (bytes), where the child
of a comparison that fails is (bytes from the first node; the other comes right behind), and one more word: for a leaf
its weight, or where its weights are. A leaf leads to itself, as nothing compares with NaN. Of ensembles in double
precision it is 32 bytes: what is compared with and the last word have 8.

Sums are made tree by tree, as the NumPy kernel makes them.
"""

from __future__ import annotations

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector

NODE_NBYTES, WIDE_NODE_NBYTES = 16, 32
#: trees that a row goes down together, and levels between looks whether all have ended
TREES, LEVELS = 8, 4
#: mode -> comparison that holds for no NaN, or for any (``une``)
CONDITIONS = {
    "BRANCH_LEQ": "ole",
    "BRANCH_LT": "olt",
    "BRANCH_GTE": "oge",
    "BRANCH_GT": "ogt",
    "BRANCH_EQ": "oeq",
    "BRANCH_NEQ": "une",
}
#: of nodes that compare each in its own way
MIXED = "mixed"
#: bits of their last words: whether the comparison holds for what is less, equal, greater, or NaN
LESS, EQUAL, GREATER, NAN = 1, 2, 4, 8
#: how leaves vote: a weight for the only target; a weight for each target; one (target, weight), or some
ONE, ALL, PAIR, SOME = "one", "all", "pair", "some"
#: how votes for a target become its score
ADD, MINIMUM, MAXIMUM = "add", "minimum", "maximum"
#: what changes no score
NEUTRAL = {ADD: 0.0, MINIMUM: float("inf"), MAXIMUM: float("-inf")}


def emit_trees(
    f: Function,
    target: Target,
    condition: str,
    tracks_missing: bool,
    votes: str,
    by_rows: bool,
    combined: str,
    flags: bool,
    wide: bool,
    x_element: str,
) -> None:
    """Words: rows, rows of a unit, bytes from row to row, x, nodes, groups of trees, roots (int64, bytes, ``TREES`` of
    a group), levels (int64, of a group), targets, scores [rows, targets], weights, spans, with ``flags``
    bytes [rows, targets]: whether there was a vote.

    ``by_rows``: ``TREES`` rows go down one tree, which is a group by itself, instead of one row down as many trees.
    ``ALL``: weights [leaves, targets]. ``PAIR``: weights [leaves] are pairs of int32 and float32. ``SOME``: spans: for
    a leaf int32 (first, end) of such pairs. ``tracks_missing``: a node's last word says whether NaN goes with
    comparisons that hold. ``wide``: numbers are doubles, and pairs are of int64 and these; ``x_element``: those of x.
    """
    del target
    real, node_bits = ("double", 5) if wide else ("float", 4)
    places = (8, 12) if wide else (4, 8)  # of the feature and the child
    last_place = 16 if wide else 12
    pair_nbytes = 16 if wide else 8
    n_rows, unit_rows, row_nbytes = (f.word(n) for n in range(3))
    x, nodes = f.address(3), f.address(4)
    n_groups, roots, levels, n_targets = f.word(5), f.address(6), f.address(7), f.word(8)
    scores, weights, spans = (f.address(n) for n in range(9, 12))
    flagged = f.address(12) if flags else None

    def joined(total: Value, weight: Value) -> Value:
        return f.fadd(total, weight) if combined == ADD else f.intrinsic(combined, total, weight)

    def own_way(node: Value, value: Value, split: Value) -> Value:
        """What a node's last word says of a comparison; a leaf's split is NaN, that of a branch never."""
        outcome = f.const("i32", NAN)
        for order, bit in (("olt", LESS), ("oeq", EQUAL), ("ogt", GREATER)):
            outcome = f.select(f.fcmp(order, value, split), f.const("i32", bit), outcome)
        among = f.binary("and", f.load("i32", f.at(node, last_place, "i8")), outcome)
        return f.binary("and", f.icmp("ne", among, f.const("i32", 0)), f.fcmp("ord", split, split))

    def descend(rows: list[Value], at: list[Value]) -> list[Value]:
        found = []
        for row, offset in zip(rows, at, strict=True):
            node = f.at(nodes, offset, "i8")
            split = f.load(real, node)
            feature, child = (f.op("i64", f"sext {f.load('i32', f.at(node, n, 'i8'))} to i64") for n in places)
            value = f.load(x_element, f.at(row, feature, "i8"))
            value = value if x_element == real else f.cast("fpext", value, real)
            holds = own_way(node, value, split) if condition == MIXED else f.fcmp(condition, value, split)
            if tracks_missing:
                flag = f.icmp("ne", f.load("i32", f.at(node, last_place, "i8")), f.const("i32", 0))
                missing = f.binary("and", f.fcmp("uno", value, value), f.fcmp("ord", split, split))
                holds = f.binary("or", holds, f.binary("and", missing, flag))
            behind = f.binary("shl", f.cast("zext", holds, "i64"), f.i64(node_bits))
            found.append(f.i64(f.add(child, behind)))
        return found

    def vote_pair(first: Value, index: Index) -> None:
        pair = f.at(weights, f.mul(index, pair_nbytes), "i8")
        target = f.load("i64", pair) if wide else f.op("i64", f"sext {f.load('i32', pair)} to i64")
        number = f.add(first, target)
        cell = f.at(scores, number, real)
        f.store(joined(f.load(real, cell), f.load(real, f.at(pair, pair_nbytes // 2, "i8"))), cell)
        if flagged is not None:
            f.store(f.const("i8", 1), f.at(flagged, number, "i8"))

    def vote(row: Index, at: list[Value]) -> None:
        start = f.i64(f.mul(row, n_targets))
        place = f.at(scores, start, real)
        last = [f.at(f.at(nodes, offset, "i8"), last_place, "i8") for offset in at]
        if votes == ONE:
            total = f.load(real, place)
            for word in last:
                total = joined(total, f.load(real, word))
            f.store(total, place)
            return
        for word in last:
            leaf = f.op("i64", f"sext {f.load('i32', word)} to i64")
            if votes == ALL:
                own = f.at(weights, f.mul(leaf, n_targets), real)
                with f.loop(0, n_targets) as one:
                    cell = f.at(place, one.index, real)
                    f.store(joined(f.load(real, cell), f.load(real, f.at(own, one.index, real))), cell)
                continue
            if votes == PAIR:
                with f.when(f.compare("sge", leaf, 0)):
                    vote_pair(start, leaf)
                continue
            span = f.at(spans, f.mul(leaf, 2), "i32")
            first, end = (f.op("i64", f"sext {f.load('i32', f.at(span, n, 'i32'))} to i64") for n in (0, 1))
            with f.loop(first, end) as one:
                vote_pair(start, one.index)

    def down(rows: list[Value], starts: list[Value], depth: Value) -> list[Value]:
        with f.loop(0, depth, LEVELS, starts) as level:
            at = before = level.carried
            for _ in range(LEVELS):
                before, at = at, descend(rows, at)
            level.carry(at)
            level.step = _step(f, before, at)
        return level.carried

    n_units = f.div(f.add(n_rows, f.sub(unit_rows, 1)), unit_rows)
    begin, end = f.share(n_units)
    with f.loop(begin, end) as unit:
        first = f.mul(unit.index, unit_rows)
        last = f.min(f.add(first, unit_rows), n_rows)
        with f.loop(f.mul(first, n_targets), f.mul(last, n_targets)) as one:
            f.store(f.const(real, NEUTRAL[combined]), f.at(scores, one.index, real))
            if flagged is not None:
                f.store(f.const("i8", 0), f.at(flagged, one.index, "i8"))
        with f.loop(0, n_groups) as group:
            depth = f.load("i64", f.at(levels, group.index, "i64"))
            if by_rows:
                start = f.load("i64", f.at(roots, group.index, "i64"))
                with f.loop(first, last, TREES) as loop:
                    numbers = [f.min(f.add(loop.index, n), f.sub(last, 1)) for n in range(TREES)]
                    rows = [f.at(x, f.mul(number, row_nbytes), "i8") for number in numbers]
                    for n, leaf in enumerate(down(rows, [start] * TREES, depth)):
                        number = f.add(loop.index, n)
                        with f.when(f.compare("slt", number, last)):
                            vote(number, [leaf])
            else:
                own = f.at(roots, f.mul(group.index, TREES), "i64")
                starts = [f.load("i64", f.at(own, n, "i64")) for n in range(TREES)]
                with f.loop(first, last) as loop:
                    row = f.at(x, f.mul(loop.index, row_nbytes), "i8")
                    leaves = down([row] * TREES, starts, depth)
                    vote(loop.index, leaves)
    f.ret()


def _step(f: Function, before: list[Value], at: list[Value]) -> Index:
    """Levels to go on by: all that are left where the last one moved nothing."""
    changed: Value = f.i64(0)
    for one, other in zip(before, at, strict=True):
        changed = f.binary("or", changed, f.binary("xor", one, other))
    return f.select(f.compare("ne", changed, 0), f.i64(LEVELS), f.i64(1 << 40))


def emit_labels(f: Function, target: Target, real: str) -> None:
    """The label of the largest score, the first of equal ones. Words: rows, classes, scores, labels, result (int64)."""
    del target
    n_rows, n_classes = f.word(0), f.word(1)
    scores, labels, result = (f.address(n) for n in (2, 3, 4))
    begin, end = f.share(n_rows)
    with f.loop(begin, end) as row:
        own = f.at(scores, f.mul(row.index, n_classes), real)
        with f.loop(1, n_classes, 1, [f.load(real, own), f.i64(0)]) as one:
            value = f.load(real, f.at(own, one.index, real))
            largest, index = one.carried
            # as numpy's argmax: a NaN counts as the largest, the first of them
            larger = f.binary(
                "and",
                f.binary("or", f.fcmp("ogt", value, largest), f.fcmp("uno", value, value)),
                f.fcmp("ord", largest, largest),
            )
            one.carry([f.select(larger, value, largest), f.select(larger, one.index, index)])
        label = f.load("i64", f.at(labels, one.carried[1], "i64"))
        f.store(label, f.at(result, row.index, "i64"))
    f.ret()


def emit_softmax(f: Function, target: Target) -> None:
    """e^(score - the largest of the row), divided by their sum. Words: rows, classes, scores, result.

    Rows are short, so that powers are taken of all of a thread's rows at once.
    """
    from distort.kernels.compiler.codegen.mathematics import exp

    n_classes = f.word(1)
    scores, result = f.address(2), f.address(3)
    begin, end = f.share(f.word(0))
    with f.loop(begin, end) as row:
        place = f.mul(row.index, n_classes)
        own, made = f.at(scores, place, "float"), f.at(result, place, "float")
        with f.loop(1, n_classes, 1, [f.load("float", own)]) as one:
            value = f.load("float", f.at(own, one.index, "float"))
            one.carry([f.intrinsic("maximum", one.carried[0], value)])
        largest = one.carried[0]
        with f.loop(0, n_classes) as one:
            below = f.fsub(f.load("float", f.at(own, one.index, "float")), largest)
            f.store(below, f.at(made, one.index, "float"))
    lanes = target.vector_nbytes // 4
    first, last = f.mul(begin, n_classes), f.mul(end, n_classes)
    whole = f.add(first, f.mul(f.div(f.sub(last, first), lanes), lanes))
    for start, stop, width in ((first, whole, lanes), (whole, last, 1)):
        with f.loop(start, stop, width) as some:
            cell = f.at(result, some.index, "float")
            f.store(exp(f, f.load(vector("float", width), cell)), cell)
    with f.loop(begin, end) as row:
        made = f.at(result, f.mul(row.index, n_classes), "float")
        with f.loop(0, n_classes, 1, [f.const("float", 0)]) as one:
            one.carry([f.fadd(one.carried[0], f.load("float", f.at(made, one.index, "float")))])
        total = one.carried[0]
        with f.loop(0, n_classes) as one:
            cell = f.at(made, one.index, "float")
            f.store(f.fdiv(f.load("float", cell), total), cell)
    f.ret()
