"""Kernels of the CPU compiler's that have a twin in CUDA C: it takes the same words.

So a CPU lowering is used as it is, with all that it checks. What a twin does its kernel's ``emit`` function says.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from distort.kernels.compiler.ir import Address, ErrorWord, Native, Operation, Word
from distort.kernels.cuda.codegen.grids import BLOCK, grid_kernel
from distort.kernels.cuda.launch import Argument, Kernel, Launch


class Twin(NamedTuple):
    """A kernel, and how many items of work words make. ``block``, ``blocks``: where items are not threads' own."""

    kernel: Kernel
    items: Callable[[Sequence[Word]], int]
    #: items of a block, where a block has several threads for each
    items_of_block: int = 0


#: family -> module here, function of a key's parameters
_TWINS = {
    "expect_ones": ("small_twins", "expect_ones"),
    "find": ("small_twins", "find"),
    "fold": ("small_twins", "fold"),
    "labels": ("small_twins", "labels"),
    "lookup": ("small_twins", "lookup"),
    "max_roi_pool": ("regions", "max_roi_pool"),
    "reversed": ("small_twins", "turned_round"),
    "roi_align": ("regions", "roi_align"),
    "scores_softmax": ("small_twins", "scores_softmax"),
    "trees": ("trees", "trees"),
}


def has_twins(operation: Operation) -> bool:
    """Whether all kernels of the CPU's that an operation calls have one."""
    return isinstance(operation, Native) and all(call.key.family in _TWINS for call in operation.made)


def native_launches(operation: Native) -> list[Launch]:
    made = []
    for call in operation.made:
        twin = _twin(call.key.family, call.key.parameters)
        n_items = twin.items(call.words)
        if not n_items:
            continue
        arguments: list[Argument] = []
        for word in call.words:
            assert isinstance(word, (int, Address, ErrorWord)), "a twin has no scratch memory"
            arguments.append(word)
        blocks = -(-n_items // twin.items_of_block) if twin.items_of_block else 0
        made.append(Launch(twin.kernel, [*arguments, n_items], n_items, BLOCK, blocks=blocks))
    return made


@functools.lru_cache(256)
def _twin(family: str, parameters: tuple[Any, ...]) -> Twin:
    module, function = _TWINS[family]
    found: Twin = getattr(import_module(f"distort.kernels.cuda.codegen.{module}"), function)(*parameters)
    return found


def _number(word: Word) -> int:
    assert isinstance(word, int), "sizes are numbers"
    return word


def by_items(family: str, parameters: Sequence[str], lines: Sequence[str], *sizes: int) -> Twin:
    """A twin whose threads have items of their own: as many as the product of the words at ``sizes``."""

    def items(words: Sequence[Word]) -> int:
        return math.prod([_number(words[n]) for n in sizes])

    return Twin(grid_kernel(family, parameters, lines, True), items)


__all__ = ["Twin", "by_items", "has_twins", "native_launches"]
