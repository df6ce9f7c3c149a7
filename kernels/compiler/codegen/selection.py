"""The best elements of rows, in order.

An element of a row and its place are one 64-bit number whose order is theirs: the value in the high half, turned into
an integer, and the inverted place in the low half, so that of equal values the first is best. NaN is the largest value.
The best so far are a heap with the least of them at its root: most elements of a long row are only compared with that.
"""

from __future__ import annotations

from collections.abc import Callable

from distort.kernels.compiler.codegen.elements import computed
from distort.kernels.compiler.codegen.gather import fetch
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, lanes_of, vector
from distort.kernels.compiler.expression import STORED


def emit_top(f: Function, target: Target, dtype: str, largest: bool, contiguous: bool) -> None:
    """values[r, :], places[r, :] = the k best of x[r, :], best first.

    Words: rows, their elements, k; x, its step per row and per element; values, places (int64); for each thread k
    numbers of scratch.
    """
    n_rows, n, k = (f.word(i) for i in range(3))
    x, row_step, step = f.address(3), f.word(4), f.word(5)
    values, places, scratch = (f.address(i) for i in range(6, 9))
    element = STORED[dtype]
    lanes = target.lanes("i32")
    cursor = f.alloca("i64")
    heap = f.at(scratch, f.mul(f.thread, k), "i64")
    begin, end = f.share(n_rows)
    with f.loop(begin, end) as row:
        own = f.at(x, f.mul(row.index, row_step), element)

        def load(at: Index, width: int, own: Value = own) -> Value:
            if contiguous or width == 1:
                return f.load(vector(element, width), f.at(own, at if contiguous else f.mul(at, step), element))
            ramp = Value(vector("i64", width), f"<{', '.join(f'i64 {i}' for i in range(width))}>")
            at = f.binary("add", f.splat(f.i64(at), width), ramp)
            return fetch(f, own, f.binary("mul", at, f.splat(step, width)), element)

        with f.loop(0, k) as first:
            number = number_of(f, order_of(f, load(first.index, 1), dtype, largest), first.index)
            f.store(number, f.at(heap, first.index, "i64"))
        half = f.div(k, 2)
        with f.loop(0, half) as node:
            at = f.sub(f.sub(half, 1), node.index)
            sift(f, cursor, heap, k, at, f.load("i64", f.at(heap, at, "i64")))

        def offer(at: Index, load: Callable[[Index, int], Value] = load) -> None:
            number = number_of(f, order_of(f, load(at, 1), dtype, largest), at)
            with f.when(f.icmp("sgt", number, f.load("i64", heap))):
                sift(f, cursor, heap, k, 0, number)

        whole = f.add(k, f.mul(f.div(f.sub(n, k), lanes), lanes))
        with f.loop(k, whole, lanes) as block:
            orders = order_of(f, load(block.index, lanes), dtype, largest)
            least = f.cast("trunc", f.binary("ashr", f.load("i64", heap), Value("i64", "32")), "i32")
            better = bits_of(f, f.icmp("sgt", orders, f.splat(least, lanes)))
            # few are, in most blocks none
            with f.loop(0, f.call("i64", "llvm.ctpop.i64", [better]), carried=[better]) as hits:
                rest = hits.carried[0]
                nearest = f.call("i64", "llvm.cttz.i64", [rest, Value("i1", "true")])
                offer(f.add(block.index, nearest))
                hits.carry([f.binary("and", rest, f.i64(f.sub(rest, 1)))])
        with f.loop(whole, n) as single:
            offer(single.index)
        # the least goes last, again and again
        with f.loop(1, k) as done:
            last = f.sub(k, done.index)
            number = f.load("i64", f.at(heap, last, "i64"))
            f.store(f.load("i64", heap), f.at(heap, last, "i64"))
            sift(f, cursor, heap, last, 0, number)
        with f.loop(0, k) as found:
            low = f.cast("trunc", f.load("i64", f.at(heap, found.index, "i64")), "i32")
            place = f.cast("zext", f.binary("xor", low, Value("i32", "-1")), "i64")
            to = f.add(f.mul(row.index, k), found.index)
            f.store(place, f.at(places, to, "i64"))
            f.store(load(place, 1), f.at(values, to, element))
    f.ret()


def bits_of(f: Function, mask: Value) -> Value:
    """A mask as an i64, the first lane lowest."""
    if mask.type == "i1":
        return f.cast("zext", mask, "i64")
    return f.cast("zext", f.bitcast(mask, f"i{lanes_of(mask.type)}"), "i64")


def order_of(f: Function, value: Value, dtype: str, largest: bool) -> Value:
    """Values as 32-bit integers in the order in which they are wanted, the best one largest."""
    if dtype == "float16":
        value, dtype = computed(f, value, dtype), "float32"
    if dtype == "float32":
        bits = f.cast("bitcast", f.fadd(value, f.const(value.type, 0)), "i32")  # no negative zero
        lower = f.binary("lshr", f.binary("ashr", bits, f.const(bits.type, 31)), f.const(bits.type, 1))
        order = f.select(f.fcmp("uno", value, value), f.const(bits.type, 0x7FFFFFFF), f.binary("xor", bits, lower))
    else:
        order = f.cast("zext" if dtype.startswith("u") else "sext", value, "i32")
        if dtype == "uint32":
            order = f.binary("xor", order, f.const(order.type, -0x80000000))
    return order if largest else f.binary("xor", order, f.const(order.type, -1))


def number_of(f: Function, order: Value, place: Index) -> Value:
    assert lanes_of(order.type) == 1
    low = f.binary("xor", f.i64(place), Value("i64", "4294967295"))
    return f.binary("or", f.binary("shl", f.cast("sext", order, "i64"), Value("i64", "32")), low)


def sift(f: Function, cursor: Value, heap: Value, size: Index, start: Index, number: Value) -> None:
    """Put a number at a node of the heap, or below where a smaller one is. ``cursor``: room for an i64."""
    head, look, lower, done = (f.fresh_label(stem) for stem in ("sift", "look", "lower", "placed"))
    f.store(f.i64(start), cursor)
    f.do(f"br label %{head}")
    f.label(head)
    node = f.load("i64", cursor)
    left = f.add(f.mul(node, 2), 1)
    f.do(f"br {f.compare('slt', left, size)}, label %{look}, label %{done}")
    f.label(look)
    right = f.min(f.add(left, 1), f.sub(size, 1))
    one, other = (f.load("i64", f.at(heap, child, "i64")) for child in (left, right))
    nearer = f.icmp("slt", other, one)
    least, child = f.select(nearer, other, one), f.select(nearer, f.i64(right), f.i64(left))
    f.do(f"br {f.icmp('slt', least, number)}, label %{lower}, label %{done}")
    f.label(lower)
    f.store(least, f.at(heap, node, "i64"))
    f.store(child, cursor)
    f.do(f"br label %{head}")
    f.label(done)
    f.store(number, f.at(heap, node, "i64"))
