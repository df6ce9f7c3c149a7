"""Dynamic programming over the intervals of one topological order: which of them make the slowest stage fastest.

The time of an interval is its nodes' time and the transfer of the values that cross into it; what it holds are the
weights that it reads and its activations. The minimum over left ends is one numpy row for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distort.scheduler.dag import Order
from distort.scheduler.device import Link
from distort.scheduler.intervals import Floats, Line

Indices = np.ndarray[Any, np.dtype[np.int64]]

#: How much of the activations counts against memory, then (None) nothing does. A row's activations are an upper bound,
#: so a partition that seems too large may fit; whoever evaluates it exactly finds out, and which stage is too large.
BOUNDS: tuple[float | None, ...] = (1.0, 0.6, 0.3, 0.0, None)


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a stage may go: one device or several that are alike, how values get there, what each device holds."""

    node_us: Floats  # [nodes]
    replicas: int
    link: Link  # of what the stage receives, as far as that is known before the stages are
    memory_nbytes: int | None


class Sweep:
    """Stages as intervals of an order, stage k on seat k."""

    def __init__(self, line: Line, order: Order, seats: Sequence[Seat]) -> None:
        self._order = order
        self._seats = tuple(seats)
        node_us = np.stack([seat.node_us for seat in seats])[:, list(order)]
        intervals = line.intervals(node_us[0], len(seats))
        self._cuts, self._rows = intervals.cuts, intervals.rows
        elapsed: Floats = np.concatenate([np.zeros((len(seats), 1)), np.cumsum(node_us, axis=1)], axis=1)
        self._elapsed = elapsed[:, self._cuts]  # [stages, cuts]: time of everything before a cut
        self._limits: Floats = np.array([np.inf if s.memory_nbytes is None else s.memory_nbytes for s in seats])
        self._latency_us: Floats = np.array([[seat.link.latency_us] for seat in seats])
        self._us_per_byte: Floats = np.array([[1e-3 / seat.link.gbytes_per_s] for seat in seats])
        self._shares: Floats = np.array([[float(seat.replicas)] for seat in seats])
        self._tables: dict[float | None, Floats] = {}

    def slowest(self, n_stages: int) -> tuple[int, float]:
        """How many of the bounds of memory had to be given up, and the slowest stage in µs, of the best partition."""
        for given_up, bound in enumerate(BOUNDS):
            slowest_us = self._slowest_us(n_stages, bound)
            if np.isfinite(slowest_us):
                return given_up, slowest_us
        raise ValueError(f"{len(self._order)} nodes can't make {n_stages} stages")

    def bounds(self, n_stages: int) -> Iterator[float | None]:
        """The bounds of memory that some partition keeps, the strictest first."""
        return (bound for bound in BOUNDS if np.isfinite(self._slowest_us(n_stages, bound)))

    def stages_of(self, n_stages: int, bound: float | None) -> tuple[int, ...]:
        """By node: of the partitions that are as fast as the best, the one that moves the fewest bytes."""
        _, came_from = self._solve(bound, n_stages, self._slowest_us(n_stages, bound) * (1 + 1e-9))
        cut = len(self._cuts) - 1
        stage_of = [0] * len(self._order)
        for stage in range(n_stages, 0, -1):
            begin = int(came_from[stage, cut])
            for node in self._order[self._cuts[begin] : self._cuts[cut]]:
                stage_of[node] = stage - 1
            cut = begin
        return tuple(stage_of)

    def _slowest_us(self, n_stages: int, bound: float | None) -> float:
        if bound is not None and not np.isfinite(self._limits).any():
            bound = None
        if bound not in self._tables:
            self._tables[bound] = self._solve(bound, len(self._seats))[0]
        return float(self._tables[bound][n_stages, -1])

    def _solve(self, bound: float | None, n_stages: int, slowest_us: float | None = None) -> tuple[Floats, Indices]:
        """best[k, c] of k stages up to cut c: their slowest; with ``slowest_us`` given, the transfers into them."""
        n_cuts = len(self._cuts)
        best = np.full((n_stages + 1, n_cuts), np.inf)
        best[0, 0] = 0.0
        came_from = np.zeros((n_stages + 1, n_cuts), dtype=np.int64)
        elapsed, limits, shares = self._elapsed[:n_stages], self._limits[:n_stages, None], self._shares[:n_stages]
        latency_us, us_per_byte = self._latency_us[:n_stages], self._us_per_byte[:n_stages]
        for left, row in enumerate(self._rows):
            reached = best[:n_stages, left : left + 1]
            if not np.isfinite(reached).any():
                continue
            receive_us = latency_us * row.crossed + us_per_byte * row.received_nbytes
            time_us = (elapsed[:, left + 1 :] - elapsed[:, left : left + 1] + receive_us) / shares
            if bound is not None:
                held = row.weights_nbytes + bound * row.activations_nbytes
                time_us = np.where(held <= limits, time_us, np.inf)
            if slowest_us is None:
                offered = np.maximum(reached, time_us)
            else:
                offered = np.where(time_us <= slowest_us, reached + receive_us, np.inf)
            better = offered < best[1:, left + 1 :]
            best[1:, left + 1 :] = np.where(better, offered, best[1:, left + 1 :])
            came_from[1:, left + 1 :] = np.where(better, left, came_from[1:, left + 1 :])
        return best, came_from

    # -- stages on several devices

    def spread(self, alike: Sequence[Sequence[bool]], bound: float | None) -> tuple[tuple[int, ...], list[int]] | None:
        """Stages on runs of the devices, and how many devices each has, for the most runs a second.

        The seats are single devices here. ``alike[first][last]`` says whether a run of them may share a stage. None
        where nothing keeps ``bound``.
        """
        n_devices, n_cuts = len(self._seats), len(self._cuts)
        slowest, _, _ = self._solve_spread(alike, bound, None)
        least_us = slowest[:, -1].min()
        if not np.isfinite(least_us):
            return None
        limit_us = float(least_us) * (1 + 1e-3)
        _, left_of, devices_of = self._solve_spread(alike, bound, limit_us)
        used = next(m for m in range(1, n_devices + 1) if slowest[m, -1] <= limit_us)
        pieces: list[tuple[int, int, int]] = []
        cut = n_cuts - 1
        while cut > 0:
            begin, count = int(left_of[used, cut]), int(devices_of[used, cut])
            pieces.append((begin, cut, count))
            used, cut = used - count, begin
        stage_of = [0] * len(self._order)
        for stage, (begin, end, _) in enumerate(reversed(pieces)):
            for node in self._order[self._cuts[begin] : self._cuts[end]]:
                stage_of[node] = stage
        return tuple(stage_of), [count for _, _, count in reversed(pieces)]

    def _solve_spread(
        self, alike: Sequence[Sequence[bool]], bound: float | None, slowest_us: float | None
    ) -> tuple[Floats, Indices, Indices]:
        """best[m, c] of m devices up to cut c, as in ``_solve``; where its last stage begins, and its devices."""
        n_devices, n_cuts = len(self._seats), len(self._cuts)
        best = np.full((n_devices + 1, n_cuts), np.inf)
        best[0, 0] = 0.0
        left_of = np.zeros((n_devices + 1, n_cuts), dtype=np.int64)
        devices_of = np.zeros((n_devices + 1, n_cuts), dtype=np.int64)
        may = {r: np.array([[alike[m][m + r - 1]] for m in range(n_devices - r + 1)]) for r in _counts(n_devices)}
        may = {r: allowed for r, allowed in may.items() if allowed.any()}
        for left, row in enumerate(self._rows):
            if not np.isfinite(best[:, left]).any():
                continue
            receive_us = self._latency_us * row.crossed + self._us_per_byte * row.received_nbytes
            time_us = self._elapsed[:, left + 1 :] - self._elapsed[:, left : left + 1] + receive_us
            if bound is not None:
                held = row.weights_nbytes + bound * row.activations_nbytes
                time_us = np.where(held <= self._limits[:, None], time_us, np.inf)
            for r, allowed in may.items():
                # the stage's first device is m - r: its link is the one into the stage
                one_us = time_us[: n_devices - r + 1] / r
                reached = best[: n_devices - r + 1, left : left + 1]
                if slowest_us is None:
                    offered = np.where(allowed, np.maximum(reached, one_us), np.inf)
                else:
                    moved_us = reached + receive_us[: n_devices - r + 1]
                    offered = np.where(allowed & (one_us <= slowest_us), moved_us, np.inf)
                better = offered < best[r:, left + 1 :]
                best[r:, left + 1 :] = np.where(better, offered, best[r:, left + 1 :])
                left_of[r:, left + 1 :] = np.where(better, left, left_of[r:, left + 1 :])
                devices_of[r:, left + 1 :] = np.where(better, r, devices_of[r:, left + 1 :])
        return best, left_of, devices_of


def _counts(n_devices: int) -> list[int]:
    """How many devices one stage may get: every number while they are few."""
    counts = {r for r in range(1, n_devices + 1) if r <= 12 or n_devices % r == 0 or r.bit_count() == 1}
    return sorted(counts)
