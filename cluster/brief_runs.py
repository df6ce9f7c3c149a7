"""Runs of a stage that are over before anybody could stop them, and are run again: gone a short way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.cluster.shm.wire import INLINE_NBYTES

if TYPE_CHECKING:
    from distort.kernels.compiler.program import CompiledProgram
    from distort.kernels.compiler.quick import QuickRun
    from distort.kernels.program import Room


#: a run that takes no longer need not be stopped
_BRIEF_NS = 500_000.0
#: kinds of feeds that are remembered; and in which of so many runs of a kind the program is asked
_MOST, _SECOND, _AGAIN = 64, 2, 16


class BriefRuns:
    """Of a compiled program. It is asked for a short way when feeds of a kind come for the second time."""

    def __init__(self, program: CompiledProgram) -> None:
        self._program = program
        self._run: QuickRun | None = None
        self._seen: dict[tuple[Any, ...], int] = {}  # how often feeds of a kind have gone the long way

    def of(self, feeds: Mapping[str, Any], room: Room) -> dict[str, Any] | None:
        """The outputs by name, large ones where ``room`` says; None where the long way is to be gone."""
        run = self._run
        if run is None or len(feeds) != run.n_feeds:
            return None
        results = run.direct(feeds) if run.made_nbytes <= INLINE_NBYTES else run.into(feeds, room)
        return None if results is None else dict(zip(self._program.outputs, results, strict=True))

    def look_at(self, feeds: Mapping[str, Any]) -> None:
        """Feeds with which a run has just gone the long way."""
        if not all([type(value) is np.ndarray for value in feeds.values()]):
            return
        kind = tuple([(name, value.dtype, value.shape) for name, value in feeds.items()])
        if len(self._seen) >= _MOST and kind not in self._seen:
            self._seen.clear()
        seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        # not the second time alone: feeds of another kind may have come since, and their way is the one that is known
        if seen % _AGAIN != _SECOND:
            return
        run = self._program.quick(feeds)
        if run is not None and run.is_direct and run.is_native and run.work_ns < _BRIEF_NS:
            self._run = run


__all__ = ["BriefRuns"]
