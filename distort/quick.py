"""The short way for runs that have been gone before: the same fetches, feeds of the same names, dtypes and shapes.

What a session checks of a run depends on nothing else, so it is not checked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from distort.kernels.compiler.quick import QuickRun

#: kinds of runs that are remembered
_MOST = 64
_array = np.ndarray


class QuickRuns:
    """``output_names``: what a run without names fetches; ``made``: the order in which programs make outputs."""

    def __init__(self, output_names: Sequence[str], made: Sequence[str]) -> None:
        self._output_names = tuple(output_names)
        self._made = tuple(made)
        self._known: dict[tuple[Any, ...], tuple[QuickRun, list[int] | None]] = {}

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any] | None:
        """The results, or None where the long way is to be gone."""
        if names is not None and type(names) is not list and type(names) is not tuple:
            return None
        try:
            key: list[Any] = [tuple(names) if names else self._output_names]
            for name, value in feeds.items():
                if type(value) is not _array:
                    return None
                key += (name, value.dtype, value.shape)
            known = self._known.get(tuple(key))
        except (TypeError, AttributeError):
            return None  # the long way says what is wrong
        if known is None:
            return None
        run, order = known
        results = run(feeds)
        return results if order is None or results is None else [results[i] for i in order]

    def add(self, names: Sequence[str], feeds: Mapping[str, Any], run: QuickRun) -> None:
        """Remember what was run with these."""
        if any(type(value) is not _array for value in feeds.values()) or len(set(names)) != len(names):
            return
        key: list[Any] = [tuple(names)]
        for name, value in feeds.items():
            key += (name, value.dtype, value.shape)
        if len(self._known) >= _MOST:
            self._known.clear()
        order = [self._made.index(name) for name in names]
        self._known[tuple(key)] = run, None if order == list(range(len(self._made))) else order


__all__ = ["QuickRuns"]
