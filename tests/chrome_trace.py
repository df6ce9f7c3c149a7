"""What viewers want of a trace's events (Chrome's trace event format)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

PHASES = {"X", "s", "f", "M"}


def check(events: Sequence[dict[str, Any]]) -> None:
    """Slices of a thread lie within each other or apart; each arrow has two ends, in slices; rows have names."""
    assert {event["ph"] for event in events} <= PHASES
    slices = [event for event in events if event["ph"] == "X"]
    by_thread: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for event in slices:
        assert isinstance(event["ts"], int) and isinstance(event["dur"], int)
        assert event["ts"] >= 0 and event["dur"] >= 0, event
        span = (event["ts"], event["ts"] + event["dur"])
        by_thread.setdefault((event["pid"], event["tid"]), []).append(span)
    for spans in by_thread.values():
        open_ends: list[int] = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_ends and open_ends[-1] <= start and end > open_ends[-1]:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1], f"a slice from {start} to {end} ends after the one around it"
            open_ends.append(end)
    arrows: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] in "sf":
            arrows.setdefault(event["id"], []).append(event)
    for ends in arrows.values():
        start, end = sorted(ends, key=lambda event: event["ph"] == "f")
        assert (start["ph"], end["ph"], end["bp"]) == ("s", "f", "e")
        assert start["name"] == end["name"] and start["ts"] <= end["ts"]
        for of in ends:
            around = by_thread[of["pid"], of["tid"]]
            assert any(begin <= of["ts"] and (of["ts"] < stop or begin == stop) for begin, stop in around), of
    named = {event["pid"] for event in events if event["ph"] == "M" and event["name"] == "process_name"}
    assert not named or named == {event["pid"] for event in slices}
