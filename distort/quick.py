"""The short way for runs that have been gone before: the same fetches, feeds of the same names, dtypes and shapes.

What a session checks of a run depends on nothing else, so it is not checked again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort import fetches

if TYPE_CHECKING:
    from distort.kernels.compiler.quick import QuickRun

#: kinds of runs that are remembered
_MOST = 64
_array = np.ndarray
_OBJECT = np.dtype(object)
_TEXT = frozenset([str])
Array = np.ndarray[Any, Any]
#: whether values of these names have the shapes that the model declares
Fits = Callable[[Sequence[str], Sequence[Any]], bool]


class _Kind:
    """Runs of a kind. ``order``: of results, where it isn't the program's; ``texts``: feeds that are text.

    ``shapes``: of results that may differ in shape, when they last were as declared.
    """

    __slots__ = ("fits", "is_default", "is_plain", "names", "order", "run", "shapes", "texts")

    def __init__(
        self,
        run: QuickRun,
        names: tuple[str, ...],
        is_default: bool,
        order: list[int] | None,
        texts: list[str],
        fits: Fits | None,
    ) -> None:
        self.run, self.names, self.order, self.texts, self.fits = run, names, order, texts, fits
        self.shapes: list[Any] = [None] * len(run.loose)
        self.is_default = is_default
        self.is_plain = order is None and not run.loose


class QuickRuns:
    """``output_names``: what a run without names fetches; ``made``: the order in which programs make outputs."""

    def __init__(self, output_names: Sequence[str], made: Sequence[str]) -> None:
        self._output_names = tuple(output_names)
        self._made = tuple(made)
        self._known: dict[tuple[Any, ...], _Kind] = {}
        #: the kind that was run last, where its feeds are checked in native code: the next run is often of the same
        self._last: _Kind | None = None

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any] | None:
        """The results, or None where the long way is to be gone."""
        if names is not None and type(names) is not list and type(names) is not tuple:
            return None
        last = self._last
        try:
            if (
                last is not None
                and len(feeds) == last.run.n_feeds
                and (last.names == tuple(names) if names else last.is_default)
                and (results := last.run.direct(feeds)) is not None
            ):
                return results if last.is_plain else _told(last, results)
            key: list[Any] = [tuple(names) if names else self._output_names]
            for name, value in feeds.items():
                if type(value) is not _array:
                    return None
                key += (name, value.dtype, value.shape)
            kind = self._known.get(tuple(key))
            if kind is None:
                objects = _as_objects(feeds)
                return None if objects is None else self.run(names, objects)
        except (TypeError, AttributeError):
            return None  # the long way says what is wrong
        results = kind.run.direct(feeds) if kind.run.is_direct and kind is not last else None
        if results is None:  # arrays that are not contiguous, or whose types are equal but not the same object
            if kind.texts and not all(_is_text(feeds[name]) for name in kind.texts):
                return None
            results = kind.run(feeds)
        if results is None:
            self._known.pop(tuple(key), None)  # its plan may be gone
            self._last = None
            return None
        if kind.run.is_direct:
            self._last = kind
        return results if kind.is_plain else _told(kind, results)

    def add(self, names: Sequence[str], feeds: Mapping[str, Any], run: QuickRun, fits: Fits | None = None) -> None:
        """Remember what was run with these. ``fits`` is asked of results whose shapes may differ from run to run."""
        if any(type(value) is not _array for value in feeds.values()) or len(set(names)) != len(names):
            return
        key: list[Any] = [tuple(names)]
        for name, value in feeds.items():
            key += (name, value.dtype, value.shape)
        if len(self._known) >= _MOST:
            self._known.clear()
        order = [self._made.index(name) for name in names]
        texts = [name for name, value in feeds.items() if value.dtype == _OBJECT]
        in_order = order == list(range(len(self._made)))
        is_default = tuple(names) == self._output_names
        kind = _Kind(run, tuple(names), is_default, None if in_order else order, texts, fits if run.loose else None)
        self._known[tuple(key)] = kind
        self._last = kind if run.is_direct else None


def _told(kind: _Kind, results: list[Any]) -> list[Any] | None:
    """Results as the user gets them."""
    shapes = []
    for number in kind.run.loose:
        value = results[number] = fetches.to_user(results, number)
        shapes.append(value.shape if type(value) is _array else None)
    if kind.order is not None:
        results = [results[number] for number in kind.order]
    if kind.fits is not None and shapes != kind.shapes:
        if not kind.fits(kind.names, results):
            return None
        kind.shapes = shapes
    return results


def _is_text(array: Array) -> bool:
    return _TEXT.issuperset(map(type, array.ravel().tolist()))


def _as_objects(feeds: Mapping[str, Any]) -> dict[str, Array] | None:
    """Feeds of text of a fixed width as objects; None where there are none."""
    if not any(value.dtype.kind == "U" for value in feeds.values()):
        return None
    return {name: value.astype(object) if value.dtype.kind == "U" else value for name, value in feeds.items()}


__all__ = ["QuickRuns"]
