"""One session's runs on actors: split into micro-batches where that gains, verified where that is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.engine import local_values
from distort.kernels.errors import RunCancelled
from distort.kernels.program import TERMINATED, evaluate
from distort.microbatch import MicroBatches, Parts, merge, split
from distort.verify import Reference

if TYPE_CHECKING:
    from distort.cluster.executor import Executor
    from distort.cluster.run import Run
    from distort.engine import RunControl
    from distort.graph.ir import Graph
    from distort.scheduler.plan import Plan

#: feeds of fewer bytes are not worth a thought about their batch
_LEAST_BATCH_NBYTES = 1 << 14
#: sets of fetches that are remembered
_MOST_FETCHES = 64


@dataclass(slots=True)
class Begun:
    """A run under way: its parts on actors, and what its end needs."""

    fetches: tuple[str, ...]  # those that stages make
    feeds: Mapping[str, Any]
    control: RunControl
    deadline: float | None  # on the clock of time.monotonic()
    parts: list[Run]
    split: Parts | None


class ActorRuns:
    """``keys`` are the session's, without the prefix ``distort.``."""

    def __init__(self, graph: Graph, plan: Plan, keys: Mapping[str, str], executor: Executor) -> None:
        self.executor = executor
        self._graph = graph
        self._plan = plan
        self._produced = frozenset(name for node in graph.nodes for name in node.outputs if name)
        self._timeout_s = float(keys["timeout_s"]) if "timeout_s" in keys else None
        setting = keys.get("micro_batch", "auto")
        self._batches = MicroBatches(graph, plan, setting, evaluate) if setting != "0" else None
        self._reference = Reference(graph, plan) if keys.get("verify") == "1" else None
        #: why the last run that had a batch was split, or not
        self.told_of_split = ""
        self._made_by_stages: dict[tuple[str, ...], bool] = {}  # fetches -> whether they are, each asked for once

    def start(
        self, fetches: Sequence[str], feeds: Mapping[str, Any], keep: frozenset[str], control: RunControl
    ) -> Begun:
        """Begin a run; :meth:`finish` ends it. ``feeds`` lack nothing."""
        if control.cancellation is not None and control.cancellation.requested:
            raise RunCancelled(TERMINATED)
        remote = tuple(name for name in dict.fromkeys(fetches) if name in self._produced)
        timeout_s = control.timeout_s if control.timeout_s is not None else self._timeout_s
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        asked = remote
        if self._reference is not None:
            asked = tuple(dict.fromkeys((*remote, *self._reference.names)))
        split_into = None if keep or self._reference is not None else self._split(remote, feeds)
        each = [feeds] if split_into is None else split(split_into.proof, feeds, len(split_into.sizes))
        begun = Begun(remote, feeds, control, deadline, [], split_into)
        try:
            for part in each:
                begun.parts.append(
                    self.executor.start(
                        asked,
                        part,
                        keep=keep.intersection(remote),
                        profile=control.on_report is not None,
                        everything=not control.only_path_to_fetches,
                    )
                )
        except BaseException:
            self._cancel(begun.parts)
            raise
        return begun

    def plain(self, fetches: Sequence[str], feeds: Mapping[str, Any]) -> Run | None:
        """Begin a run of which nothing is said, that isn't split and that nobody verifies; None where it isn't so.

        It is the executor's to finish. Most runs are such, and small ones take no longer than what is left out here.
        """
        if self._reference is not None or self._timeout_s is not None:
            return None
        names = tuple(fetches)
        known = self._made_by_stages.get(names)
        if known is None:
            if len(self._made_by_stages) >= _MOST_FETCHES:
                self._made_by_stages.clear()
            known = self._made_by_stages[names] = len({*names}) == len(names) > 0 and self._produced.issuperset(names)
        if not known or self._split(names, feeds) is not None:
            return None
        return self.executor.start(names, feeds, everything=True)

    def _split(self, fetches: Sequence[str], feeds: Mapping[str, Any]) -> Parts | None:
        if self._batches is None or not fetches:
            return None
        nbytes = sum(value.nbytes for value in feeds.values() if isinstance(value, np.ndarray))
        if self._batches.setting == "auto" and nbytes < _LEAST_BATCH_NBYTES:
            return None
        decision = self._batches.decide(feeds, fetches)
        self.told_of_split = decision.reason
        return decision.parts

    def finish(self, begun: Begun) -> dict[str, Any]:
        """The fetches by name, those that stay as ``Resident``. Raises what went wrong; nothing goes on then."""
        control, cancellation = begun.control, begun.control.cancellation
        should_stop: Callable[[], bool] | None = None
        if cancellation is not None:
            should_stop = lambda: cancellation.requested  # noqa: E731  # a named function says no more
        results = []
        try:
            for part in begun.parts:
                left = None if begun.deadline is None else max(0.0, begun.deadline - time.monotonic())
                values, reports = self.executor.finish(part, should_stop=should_stop, timeout_s=left)
                results.append(values)
                if control.on_report is not None:
                    for report in reports:
                        control.on_report(report)
        except BaseException:
            self._cancel(begun.parts[len(results) + 1 :])
            raise
        if begun.split is not None:
            return dict(zip(begun.fetches, merge(begun.split.proof, begun.fetches, results), strict=True))
        by_name = dict(zip(begun.parts[0].kind.fetches, results[0], strict=True))
        if self._reference is not None:
            self._verify(self._reference, by_name, begun)
        return {name: by_name[name] for name in begun.fetches}

    def _cancel(self, parts: Sequence[Run]) -> None:
        for part in parts:
            self.executor.cancel(part)

    def _verify(self, reference: Reference, values: Mapping[str, Any], begun: Begun) -> None:
        units = self.executor.units
        ran_on = {stage: (units.name(unit), units.device_of[unit].id) for stage, unit in begun.parts[0].units.items()}
        divergence = reference.check(local_values(values), local_values(begun.feeds), ran_on)
        if divergence is not None:
            raise divergence.error()
