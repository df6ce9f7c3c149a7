"""Clocks of other hosts, on this one's time: what a profile of several hosts needs.

As NTP does: ask a clock several times, and believe the exchange that took least, of which the answer was made half-way.
The error is at most half of that. Processes of one running kernel have the same clock, and are not asked again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from distort.cluster.orders import StageReport

#: exchanges of one measurement
_EXCHANGES = 8
#: how long a measurement holds: clocks of hosts drift apart by some 10 µs a second
_HOLDS_NS = 10_000_000_000

#: a clock's answer: time.time_ns(), and which kernel's it is
Reading = tuple[int, str]
#: what is told of an error that nobody knows
UNKNOWN_NS = -1


class Host(Protocol):
    epoch: int

    def clock(self) -> Reading | None:
        """What the host's clock shows now, and whose it is; None where it doesn't answer."""


@dataclass(frozen=True, slots=True)
class Offset:
    """Add ``ns`` to a time of the host to have it on this host's clock; wrong by ``error_ns`` at most."""

    ns: int
    error_ns: int


SAME = Offset(0, 0)
UNKNOWN = Offset(0, UNKNOWN_NS)


def read_clock() -> Reading:
    """This host's clock, and the identity of its kernel's present run: equal for processes that share a clock."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return time.time_ns(), boot


def measure(ask: Callable[[], Reading | None], here: Callable[[], Reading] = read_clock) -> Offset:
    """The offset of a clock that :func:`ask` reads."""
    best: Offset | None = None
    for _ in range(_EXCHANGES):
        sent_ns, boot = here()
        told = ask()
        received_ns, _ = here()
        if told is None:
            continue
        told_ns, other_boot = told
        if boot and boot == other_boot:
            return SAME
        half_ns = (received_ns - sent_ns) // 2
        if best is None or half_ns < best.error_ns:
            best = Offset(sent_ns + half_ns - told_ns, half_ns)
    return best or UNKNOWN


class Clocks:
    """Offsets of a session's hosts, measured when a profile needs them and again when they are old."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[int, int], tuple[int, Offset]] = {}  # unit, epoch -> when, offset

    def align(self, report: StageReport, host: Host) -> None:
        """Put the times of a report of ``host`` onto this host's clock."""
        offset = self._offset(report.unit, host)
        report.clock_error_ns = offset.error_ns
        if offset.ns:
            report.start_ns += offset.ns
            report.end_ns += offset.ns
            report.events = [
                replace(event, start_ns=event.start_ns + offset.ns, end_ns=event.end_ns + offset.ns)
                for event in report.events
            ]

    def _offset(self, unit: int, host: Host) -> Offset:
        with self._lock:
            known = self._known.get((unit, host.epoch))
            now_ns = time.monotonic_ns()
            if known is None or (known[1] is not SAME and now_ns - known[0] > _HOLDS_NS):
                known = self._known[unit, host.epoch] = (now_ns, measure(host.clock))
            return known[1]
