"""The way into a run: arrays are held against what a plan was made for, and their addresses written where steps want
them, in native code that reads the arrays' own memory. It is called with the interpreter's lock.

A job has four words: the steps' address, how many there are, the team's control block, the error word's address. A
table has the job of the steps to do at once (none: 0 of them), the number of objects, and for each of them, in order:
how many words it has here; its type, or 0 where nothing is checked; its dtype; flags that it must have; the type that
its elements must have, or 0; the number of dimensions, these; then pairs: the address of a word that its address is
written to, with so many bytes added.
"""

from __future__ import annotations

from distort.kernels.compiler.codegen.text import Function, Value

JOB_WORDS = 4
#: what a function returns: all is done; a kernel refused what it was given; an object is not as expected
DONE, REFUSED, OTHER = 0, 1, 2
# of an object's words
LENGTH, TYPE, DTYPE, FLAGS, ELEMENT, RANK = range(6)
#: bytes of what an object begins with; its type comes last there
HEAD_NBYTES = object.__basicsize__
#: of an array, after that: bytes to its fields
DATA, N_DIMS, DIMS, DESCR, ARRAY_FLAGS = 0, 8, 16, 40, 48
#: of a list, after that, and its length: the address of its items' addresses
ITEMS = 8


def functions() -> list[Function]:
    return [_go(), _enter()]


def _go() -> Function:
    """i64(job): its steps, by the caller alone."""
    f = Function("distort_go", ("ptr",), "i64")
    f.ret(_done(f, f.parameters[0]))
    return f


def _done(f: Function, job: Value) -> Value:
    steps, control, error = (f.load("ptr", f.at(job, n, "i64")) for n in (0, 2, 3))
    n_steps = f.load("i64", f.at(job, 1, "i64"))
    zero = f.i64(0)
    f.do(f"call void @distort_drive({steps}, {n_steps}, {zero}, i64 1, {control}, ptr null, ptr null)")
    refused = f.load("i64", error)
    f.store(zero, error)
    return f.cast("zext", f.compare("ne", refused, 0), "i64")


def _enter() -> Function:
    """i64(table, list of objects)."""
    f = Function("distort_enter", ("ptr", "ptr"), "i64")
    table, objects = f.parameters
    items = f.load("ptr", f.at(objects, HEAD_NBYTES + ITEMS, "i8"))
    n_objects = f.load("i64", f.at(table, JOB_WORDS, "i64"))
    with f.loop(0, n_objects, carried=[f.at(table, JOB_WORDS + 1, "i64")]) as loop:
        (entry,) = loop.carried
        item = f.load("ptr", f.at(items, loop.index, "i64"))
        length, type_ = (f.load("i64", f.at(entry, n, "i64")) for n in (LENGTH, TYPE))
        rank = f.load("i64", f.at(entry, RANK, "i64"))
        with f.when(f.compare("ne", type_, 0)):
            _check(f, entry, item, rank)
        begin = f.add(rank, RANK + 1)
        with f.when(f.compare("sgt", length, begin)):
            data = f.load("i64", f.at(item, HEAD_NBYTES + DATA, "i8"))
            with f.loop(begin, length, 2) as place:
                cell = f.load("ptr", f.at(entry, place.index, "i64"))
                offset = f.load("i64", f.at(entry, f.add(place.index, 1), "i64"))
                f.store(f.i64(f.add(data, offset)), cell)
        loop.carry([f.at(entry, length, "i64")])
    f.ret(_done(f, table))
    return f


def _expect(f: Function, holds: Value) -> None:
    """Return ``OTHER`` where a condition doesn't hold."""
    on, off = f.fresh_label("holds"), f.fresh_label("other")
    f.do(f"br {holds}, label %{on}, label %{off}")
    f.label(off)
    f.ret(f.i64(OTHER))
    f.label(on)


def _check(f: Function, entry: Value, item: Value, rank: Value) -> None:
    def wanted(word: int) -> Value:
        return f.load("i64", f.at(entry, word, "i64"))

    def found(nbytes: int, type_: str = "i64") -> Value:
        value = f.load(type_, f.at(item, HEAD_NBYTES + nbytes, "i8"))
        return value if type_ == "i64" else f.cast("zext", value, "i64")

    _expect(f, f.compare("eq", found(-8), wanted(TYPE)))
    _expect(f, f.compare("eq", found(DESCR), wanted(DTYPE)))
    _expect(f, f.compare("eq", found(N_DIMS, "i32"), rank))
    flags = wanted(FLAGS)
    _expect(f, f.icmp("eq", f.binary("and", found(ARRAY_FLAGS, "i32"), flags), flags))
    dims = f.load("ptr", f.at(item, HEAD_NBYTES + DIMS, "i8"))
    with f.loop(0, rank, carried=[f.i64(1)]) as loop:
        size = f.load("i64", f.at(entry, f.add(loop.index, RANK + 1), "i64"))
        _expect(f, f.icmp("eq", f.load("i64", f.at(dims, loop.index, "i64")), size))
        loop.carry([f.i64(f.mul(loop.carried[0], size))])
    element = wanted(ELEMENT)
    n_elements = f.select(f.compare("ne", element, 0), loop.carried[0], f.i64(0))
    data = f.load("ptr", f.at(item, HEAD_NBYTES + DATA, "i8"))
    with f.loop(0, n_elements) as each:
        one = f.load("ptr", f.at(data, each.index, "i64"))
        _expect(f, f.op("i1", f"icmp ne ptr {one.text}, null"))
        _expect(f, f.icmp("eq", f.load("i64", f.at(one, HEAD_NBYTES - 8, "i8")), element))


__all__ = ["DONE", "JOB_WORDS", "OTHER", "REFUSED", "functions"]
