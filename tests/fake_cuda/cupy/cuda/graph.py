"""cupy.cuda.Graph: what was launched while a stream captured, launched again."""

from __future__ import annotations

from typing import Any

from .. import _state


class Graph:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(
            "currently this class cannot be initiated by the user and must be created via stream capture"
        )

    @classmethod
    def _of(cls, work: list[_state.Work]) -> Graph:
        graph = cls.__new__(cls)
        graph._work = work  # type: ignore[attr-defined]
        graph.graph = graph.graphExec = _state.new_handle()  # type: ignore[attr-defined]
        return graph

    @property
    def n_nodes(self) -> int:
        """For tests; the real one has no such thing."""
        return len(self._work)  # type: ignore[attr-defined]

    def launch(self, stream: Any = None) -> None:
        handle = _state.current_stream() if stream is None else stream.ptr
        _state.counts["graph launch"] += 1
        for work in self._work:  # type: ignore[attr-defined]
            _state.launch(handle, work)

    def upload(self, stream: Any = None) -> None:
        _state.stream_of(_state.current_stream() if stream is None else stream.ptr)

    def debug_dot_str(self, flags: int = 0) -> str:
        return "digraph dot {" + ";".join(str(i) for i in range(self.n_nodes)) + "}"
