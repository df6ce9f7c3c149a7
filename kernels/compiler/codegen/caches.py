"""Caches of keys and values that are partly filled: what is new goes where each entry's tokens end."""

from __future__ import annotations

from distort.kernels.compiler.codegen.copying import copy_row
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, vector

WORDS = (
    *("batch", "groups"),
    *("capacity", "past", "steps"),  # positions of the result, of the past and of what is new
    "size",  # elements of a position
    *("new_batch", "new_group", "new_step"),  # strides of what is new
    "from",  # address: the past, contiguous
    "new",
    "tokens",  # address, int64 [batch]: of each entry after this step, at least 1 and no more than there is room for
    "to",  # address: the result, contiguous
)
_FIRST_ADDRESS = WORDS.index("from")


def emit_cache(f: Function, target: Target, element: str) -> None:
    """result[b, g] = the past, zeros behind it, and in place of the last tokens, at most ``steps``, the new ones."""
    words = {name: (f.word if n < _FIRST_ADDRESS else f.address)(n) for n, name in enumerate(WORDS)}
    size, past = words["size"], words["past"]
    lanes = target.lanes(element)
    zero = f.const(vector(element, lanes), 0)
    begin, end = f.share(f.mul(words["batch"], words["groups"]))
    with f.loop(begin, end) as unit:
        entry, group = f.div(unit.index, words["groups"]), f.rem(unit.index, words["groups"])
        tokens = f.load("i64", f.at(words["tokens"], entry, "i64"))
        fresh = f.min(words["steps"], tokens)
        before = f.sub(tokens, fresh)
        source = f.at(words["from"], f.mul(f.mul(unit.index, past), size), element)
        to = f.at(words["to"], f.mul(f.mul(unit.index, words["capacity"]), size), element)
        copy_row(f, target, source, to, f.mul(f.min(before, past), size), element)
        own = f.add(f.mul(entry, words["new_batch"]), f.mul(group, words["new_group"]))
        with f.loop(0, fresh) as step:
            row = f.at(words["new"], f.add(own, f.mul(step.index, words["new_step"])), element)
            copy_row(f, target, row, f.at(to, f.mul(f.add(before, step.index), size), element), size, element)
        behind = f.mul(tokens, size)
        rest = f.mul(f.max(f.sub(past, tokens), 0), size)
        copy_row(f, target, f.at(source, behind, element), f.at(to, behind, element), rest, element)
        first, last = f.mul(f.max(tokens, past), size), f.mul(words["capacity"], size)
        whole = f.add(first, f.mul(f.div(f.max(f.sub(last, first), 0), lanes), lanes))
        with f.loop(first, whole, lanes) as some:
            f.store(zero, f.at(to, some.index, element))
        with f.loop(whole, last) as single:
            f.store(f.const(element, 0), f.at(to, single.index, element))
    f.ret()
