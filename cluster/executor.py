"""Runs over the stages of a plan: commands of the state machine become calls and orders, answers become events.

The state machine (``distort.scheduler.state``) decides; this module only carries out. One lock guards it. Whoever
has an event drains the queue: a caller its own submission, a dispatcher thread what Ray reports, a caller that waits
(``waiting.py``) what comes over sockets. Nothing here blocks on an actor while it holds the lock.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from distort.cluster.activity import EdgeActivity, Snapshot, Tally, unit_activity
from distort.cluster.actor import nbytes_of
from distort.cluster.clocks import Clocks
from distort.cluster.errors import ClusterError, Forked, SenderLost, SessionClosed, StageLost, first_line
from distort.cluster.failures import error_of
from distort.cluster.fetching import Fetching, result_of
from distort.cluster.orders import ATTEMPTS, ActorStats, Held, StagePayload, StageReport
from distort.cluster.resident import Resident, ResidentMeta
from distort.cluster.routes import Leg, RunKind, make_route
from distort.cluster.run import Crossings, Run
from distort.cluster.transport.base import Answer, Fetched, Handle, Loss, News, StageHost, Transport
from distort.cluster.waiting import Waiting
from distort.cluster.ways import Ways
from distort.scheduler import state as machine
from distort.scheduler.needs import NeedsOfPlan
from distort.scheduler.plan import CALLER, Plan
from distort.scheduler.units import Units

#: how often a waiting run looks whether it was told to stop
_POLL_S = 0.02
#: routes remembered; sessions have few kinds of runs
_REMEMBERED = 256
#: how long actors may take to say what they have done
_STATS_TIMEOUT_S = 2.0
#: of a run: fetches, those that stay, whether it is profiled, whether every node is run, feeds on units, feeds
_Asked = tuple[tuple[str, ...], frozenset[str], bool, bool, tuple[tuple[str, int], ...], tuple[str, ...]]


class Executor:
    """Runs of one session. Thread-safe; ``close`` ends every actor."""

    def __init__(
        self,
        plan: Plan,
        payloads: Sequence[StagePayload],
        weights: Sequence[Mapping[str, Any]],
        transport: Transport,
        *,
        max_in_flight: int = 8,
        recovery: str = "replay",
    ) -> None:
        self.plan = plan
        self.units = Units(plan.stages)
        self._pid = os.getpid()
        self._transport = transport
        self._inputs = [tuple(stage.inputs) for stage in plan.stages]
        self._outputs = [tuple(stage.outputs) for stage in plan.stages]
        self._ways = Ways(plan)
        self._needs = NeedsOfPlan(plan)
        #: values that no stage reads: the model's results
        read = {name for inputs in self._inputs for name in inputs}
        self._results = frozenset(name for name in self._ways.producer if name not in read)
        self._lock = threading.Lock()
        self._events: deque[Any] = deque()
        self._runs: dict[int, Run] = {}
        self._numbers = itertools.count()
        self._oldest = 0
        self._orders = itertools.count(1)
        self._kinds: dict[_Asked, RunKind] = {}
        self._routes: dict[tuple[Any, ...], dict[int, Leg]] = {}  # by kind and units
        self._tally = Tally()
        self._clocks = Clocks()
        self._closed = False
        self._broken: dict[int, BaseException] = {}  # units that could not be restarted
        self._state = machine.RunState(
            plan, max_in_flight=max_in_flight, eager=transport.chains, recovery=recovery, values=False
        )
        self._inbox: queue.SimpleQueue[News | Callable[[Executor], None] | None] = queue.SimpleQueue()
        self._hosts: list[StageHost] = transport.open(payloads, weights, self._inbox.put)
        self._waiting = Waiting(transport, self._lock)
        self._fetching = Fetching(self._waiting, self._lock)
        self._finalizer = weakref.finalize(self, _shut_down, transport, self._inbox, self._pid)
        threading.Thread(
            target=_dispatch, args=(weakref.ref(self), self._inbox), name="distort-dispatch", daemon=True
        ).start()

    # -- runs

    def run(
        self,
        fetches: Sequence[str],
        feeds: Mapping[str, Any],
        *,
        keep: frozenset[str] = frozenset(),
        should_stop: Callable[[], bool] | None = None,
        timeout_s: float | None = None,
        profile: bool = False,
        everything: bool = False,
    ) -> tuple[list[Any], list[StageReport]]:
        """Values in the order of ``fetches`` (those in ``keep`` as Resident), and the stages' reports.

        ``everything`` runs every node, and not only those that the fetches depend on.
        """
        run = self.start(fetches, feeds, keep=keep, profile=profile, everything=everything)
        return self.finish(run, should_stop=should_stop, timeout_s=timeout_s)

    def start(
        self,
        fetches: Sequence[str],
        feeds: Mapping[str, Any],
        *,
        keep: frozenset[str] = frozenset(),
        profile: bool = False,
        everything: bool = False,
    ) -> Run:
        """Begin a run, or put it into the queue. Somebody has to :meth:`finish` it."""
        self._require_process()
        values = dict(feeds)
        resident = self._residents(values) if Resident in map(type, values.values()) else ()
        asked = (tuple(fetches), keep, profile, everything, resident, tuple(values))
        kind = self._kinds.get(asked) or self._new_kind(asked)
        run = Run(kind, values, Crossings() if profile else None)
        if not self._transport.polls:  # putting large values takes time, which the lock should not be held for
            for name, value in values.items():
                if not isinstance(value, Resident):
                    run.handles[name] = self._transport.put(value)
        with self._lock:
            if self._closed:
                raise SessionClosed("The session is closed.")
            run.number = next(self._numbers)
            run.began_ns = self._tally.begin()
            self._runs[run.number] = run
            self._events.append(machine.Submit(run.number, kind.wanted, kind.resident))
            self._drain()
        return run

    def _new_kind(self, asked: _Asked) -> RunKind:
        fetches, keep, profile, everything, resident, fed = asked
        wanted = self._results.union(fetches) if everything else frozenset(fetches)
        path_only = not wanted >= self._results
        if len(self._kinds) >= _REMEMBERED:
            self._kinds.clear()
        kind = RunKind(wanted, fetches, keep, frozenset(fed), dict(resident), profile, path_only)
        return self._kinds.setdefault(asked, kind)

    def _residents(self, feeds: dict[str, Any]) -> tuple[tuple[str, int], ...]:
        """Feeds that lie on units. Those that lie on another session's come by way of this process."""
        self._waiting.look(self._hear)  # whether they are still there
        found = []
        for name, value in feeds.items():
            if isinstance(value, Resident):
                value.check()
                if value.owner is self:
                    found.append((name, value.unit))
                else:
                    feeds[name] = value.fetch()
        return tuple(found)

    def finish(
        self, run: Run, *, should_stop: Callable[[], bool] | None = None, timeout_s: float | None = None
    ) -> tuple[list[Any], list[StageReport]]:
        """Wait for a run's end. What an interrupted wait leaves is cancelled."""
        try:
            self._wait(run, should_stop, timeout_s)
        except BaseException:  # Ctrl-C: nobody waits for the run any more
            self.cancel(run)
            raise
        if run.error is not None:
            raise run.error
        results = [self._result(run, name) for name in run.kind.fetches]
        if run.crossings is not None:
            self._complete_reports(run, run.crossings)
        return results, run.reports

    def _complete_reports(self, run: Run, crossings: Crossings) -> None:
        """What a profile wants to know of a run that is done: times on this host's clock, results by their makers."""
        for report in run.reports:
            report.run, report.unit = run.number, run.units[report.stage]
            self._clocks.align(report, self._hosts[report.unit])
            report.returned = [told for producer, told in crossings.returned if producer == report.stage]

    def cancel(self, run: Run) -> None:
        """End a run that nobody waits for any more."""
        self._post(machine.Cancel(run.number))

    def _wait(self, run: Run, should_stop: Callable[[], bool] | None, timeout_s: float | None) -> None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        stopping = False
        while not run.done:
            pause = _POLL_S if should_stop is not None and not stopping else None
            if deadline is not None:
                left = max(0.0, deadline - time.monotonic())
                pause = left if pause is None else min(pause, left)
            self._waiting.wait(run, pause, self._hear)
            if run.done:
                return
            if not stopping and should_stop is not None and should_stop():
                stopping = True
                self._post(machine.Cancel(run.number))
            if deadline is not None and time.monotonic() >= deadline:
                self._post(machine.DeadlinePassed(run.number))
                deadline = None

    def _hear(self, news: Sequence[News]) -> None:
        if news:
            with self._lock:
                for item in news:
                    self._take(item)
                self._drain()

    def _result(self, run: Run, name: str) -> Any:
        if name in run.kept:
            return run.kept[name]
        if name in run.results:
            return run.results[name]
        if name in run.handles and name in self._ways.producer:
            result = self._transport.get(run.handles[name])
            self._ways.count_result(run, name, nbytes_of(result), "object_store")
            return result
        return run.feeds[name]

    # -- events and commands

    def _post(self, event: Any) -> None:
        self._events.append(event)
        self.drain()

    def drain(self) -> None:
        """Step the state machine through the events that wait, and carry out what it says."""
        with self._lock:
            self._drain()

    def _drain(self) -> None:
        """Called with the lock."""
        events, step = self._events, self._state.step
        while events:
            for command in step(events.popleft()):
                self._carry_out(command)

    def _carry_out(self, command: Any) -> None:
        if isinstance(command, machine.Execute):
            self._execute(command)
        elif isinstance(command, machine.Finish):
            self._end(command.run, None)
        elif isinstance(command, machine.Fail):
            self._end(command.run, self._why(command))
        elif isinstance(command, machine.CancelStage):
            self._hosts[command.unit].cancel(command.run * ATTEMPTS + command.attempt)
        elif isinstance(command, machine.Restart):
            threading.Thread(target=self._restart, args=(command.unit,), name="distort-restart", daemon=True).start()

    def _execute(self, command: machine.Execute) -> None:
        run = self._runs.get(command.run)
        if run is None:  # close() ended it
            return
        if run.attempt != command.attempt:
            self._begin_attempt(run, command.attempt)
        stage, host = command.stage, self._hosts[command.unit]
        leg = run.legs[stage]
        if leg.forwarded:
            return
        try:
            if leg.direct:
                names = leg.order.inputs
                values = [Held(v.meta.key) if type(v) is Resident else v for v in map(run.feeds.__getitem__, names)]
                host.order(leg.number, values, run.on_wire, self._oldest)
                self._ways.count_feeds(run, stage, zip(names, values, strict=True))  # while the host is at work
                return
            values = [
                run.far[name] if name in leg.far else self._handle_for(run, name, command.unit)
                for name in leg.order.inputs
            ]
            epochs = tuple(other.epoch for other in self._hosts)
            handles = host.call(leg.order, run.on_wire, self._oldest, values, epochs)
        except (ClusterError, OSError) as error:
            run.errors[stage] = error
            self._events.append(machine.StageFailed(command.run, stage, str(error), command.attempt))
            return
        n_values = len(leg.order.returns)
        run.handles.update(zip(leg.order.returns, handles[:n_values], strict=True))
        run.far.update(zip((name for name, _ in leg.order.announces), handles[n_values:], strict=True))

    def _begin_attempt(self, run: Run, attempt: int) -> None:
        run.attempt = attempt
        run.units = self._state.units_of(run.number)
        key = (run.kind, *run.units.values())
        legs = self._routes.get(key)
        if legs is None:
            if len(self._routes) >= _REMEMBERED:
                self._routes.clear()
            needs, way = self._needs.of(run.kind.wanted), self._transport
            ends = (self._inputs, self._outputs)
            legs = make_route(run.kind, run.units, needs, *ends, way.linked, self._orders, way.far)
            self._routes[key] = legs
            for stage, leg in legs.items():
                if leg.direct:
                    self._hosts[run.units[stage]].prepare(leg.number, leg.order)
        run.legs = legs
        if attempt:
            for name in self._ways.producer:
                run.handles.pop(name, None)
            run.reports.clear()
            for sofar in (run.results, run.kept, run.errors, run.far):
                sofar.clear()
            if run.crossings is not None:
                run.crossings = Crossings()

    def _handle_for(self, run: Run, name: str, unit: int) -> Handle:
        """A value as it goes with a call."""
        value = run.feeds.get(name)
        if isinstance(value, Resident):
            value.check()
            if value.unit == unit:
                return Held(value.meta.key)
            return self._hosts[value.unit].export(value.meta.key)
        if name not in run.handles:
            run.handles[name] = self._transport.put(value)
        return run.handles[name]

    def _take(self, news: News) -> None:
        """Turn what a host says into an event. Called with the lock."""
        if not isinstance(news, Answer):
            self._take_other(news)
            return
        number, attempt = divmod(news.run, ATTEMPTS)
        stage = self.units.stage_of[news.unit]
        run = self._runs.get(number)
        current = run is not None and run.attempt == attempt
        if news.error is None:
            if run is not None and current:
                self._note(run, stage, news)
                self._events.append(machine.StageDone(number, stage, attempt, run.legs[stage].implied))
            return
        cause = self._transport.cause(news.error)
        lost = self._transport.lost_unit(cause, news.unit) if news.epochs else None
        if run is not None and current:
            run.errors[stage] = cause
        if isinstance(cause, SenderLost):
            self._cut(cause, news)
            if current:
                self._events.append(machine.ValueLost(number, stage, str(cause), attempt))
        elif lost is not None:
            if self._hosts[lost].epoch == news.epochs[lost]:  # not the host that took its place
                self._events.append(machine.StageLost(lost, first_line(cause)))
        elif current:
            self._events.append(machine.StageFailed(number, stage, str(cause), attempt))

    def _cut(self, cause: SenderLost, news: Answer) -> None:
        """Between two units values go another way from now on, unless either is another's by now."""
        ends = (cause.unit, news.unit)
        if all(self._hosts[unit].epoch == news.epochs[unit] for unit in ends):
            self._transport.cut(*ends, str(cause))
            self._routes.clear()

    def _take_other(self, news: Loss | Fetched) -> None:
        if isinstance(news, Fetched):
            self._fetching.answered(news)
            return
        if self._hosts[news.unit].epoch == news.epoch:
            self._events.append(machine.StageLost(news.unit, news.reason))
        self._fetching.lost(news.unit, news.epoch, news.reason)

    def _note(self, run: Run, stage: int, news: Answer) -> None:
        for name, (value, nbytes) in news.values.items():
            run.results[name] = value
            self._ways.count_result(run, name, nbytes)
        report = news.report
        if report is None:
            return
        run.reports.append(report)
        self._ways.add_edges(run, stage, report)
        for name, meta in report.kept.items():
            run.kept[name] = None if meta.empty else self._resident(news.unit, meta)

    def _resident(self, unit: int, meta: ResidentMeta) -> Resident:
        inbox = self._inbox
        return Resident(
            self,
            self.units.stage_of[unit],
            unit,
            self._hosts[unit].epoch,
            meta,
            fetch=self._fetch_resident,
            is_current=self._is_current,
            release=lambda at, since, key: inbox.put(partial(_release, unit=at, epoch=since, key=key)),
        )

    def _require_process(self) -> None:
        if os.getpid() != self._pid:
            raise Forked(self._pid)

    def _fetch_resident(self, value: Resident) -> Any:
        self._require_process()
        try:
            result, transport = self._fetch_value(value)
        except SessionClosed:
            raise
        except Exception as error:
            # where another actor has taken its place meanwhile, whatever was said of the old one means that it is lost
            if self._is_current(value.unit, value.epoch):
                if self._transport.lost_unit(error, value.unit) is None:
                    raise
                self._post(machine.StageLost(value.unit, first_line(error)))
            raise StageLost(
                f"The actor of {self.units.name(value.unit)} was lost, and a value of shape {list(value.shape)} with "
                "it. Make it again."
            ) from error
        self._ways.traffic.count("(resident)", value.stage, CALLER, transport, nbytes_of(result))
        return result

    def _fetch_value(self, value: Resident) -> tuple[Any, str]:
        """By the socket where the actor has nothing else to do, else by a call, which is answered meanwhile."""
        host = self._hosts[value.unit]
        if not self._closed and not self._state.executions(value.unit):
            answer = self._fetching.fetch(host, value.unit, value.meta.key, self._hear)
            if answer is not None:
                return result_of(answer), self._ways.inside(value.stage, CALLER)
        return self._transport.get(host.export(value.meta.key)), "object_store"

    def _is_current(self, unit: int, epoch: int) -> bool:
        return not self._closed and self._hosts[unit].epoch == epoch and unit not in self._broken

    def _release_key(self, unit: int, epoch: int, key: int) -> None:
        if not self._closed and self._hosts[unit].epoch == epoch:
            self._hosts[unit].release([key])

    def _why(self, fail: machine.Fail) -> BaseException:
        units = () if fail.stage is None else self.units.of_stage[fail.stage]
        return error_of(fail, self._runs.get(fail.run), is_gone=all(unit in self._broken for unit in units))

    def _end(self, number: int, error: BaseException | None) -> None:
        run = self._runs.pop(number, None)
        if run is None:
            return
        self._oldest = next(iter(self._runs), number + 1) * ATTEMPTS
        self._tally.end(run.began_ns, error is not None)
        run.error = error
        run.done = True
        self._waiting.ended(run)

    def _restart(self, unit: int) -> None:
        try:
            host = self._transport.reopen(unit)
        except Exception as error:  # noqa: BLE001  # the actor boundary: whatever it is, the unit stays lost
            with self._lock:
                self._broken[unit] = error
            self._post(machine.StageBroken(unit, f"it could not be restarted: {first_line(error)}"))
            return
        with self._lock:
            closed = self._closed
            self._hosts[unit] = host
            self._routes.clear()  # it may be linked to others than before
        if closed:
            host.close()
        else:
            self._post(machine.StageRestored(unit))
            self._waiting.linked()

    # -- the rest

    @property
    def hosts(self) -> list[StageHost]:
        return list(self._hosts)

    @property
    def in_flight(self) -> int:
        """Runs that have begun or wait."""
        return len(self._runs)

    def keep_value(self, value: Any, stage: int) -> Resident:
        """Put a value into an actor's memory."""
        self._require_process()
        host = self._hosts[stage]
        meta = host.keep_value(self._transport.put(value))
        self._ways.traffic.count("(resident)", CALLER, stage, "object_store", nbytes_of(value))
        return self._resident(stage, meta)

    def transfer_stats(self) -> list[dict[str, Any]]:
        """Bytes and messages since the start, by edge: value, producer and consumer stage (-1: this process)."""
        self.stats()
        return self._ways.traffic.rows()

    def stats(self) -> list[ActorStats | None]:
        """What each unit's actor has done; None for one that doesn't answer."""
        found: list[ActorStats | None] = []
        for unit, host in enumerate(self._hosts):
            stats = None if self._closed else host.stats(_STATS_TIMEOUT_S)
            found.append(stats)
            if stats is not None:
                self._ways.tell(unit, self.units.stage_of[unit], host.epoch, stats)
        return found

    def activity(self) -> Snapshot:
        """What runs, actors and edges have come to since the start."""
        told = self.stats()
        units = [unit_activity(self.units, unit, self._hosts[unit].epoch, stats) for unit, stats in enumerate(told)]
        edges = [EdgeActivity(**row) for row in self._ways.traffic.rows()]
        with self._lock:
            return self._tally.snapshot(units, edges)

    def close(self) -> None:
        """End every actor; runs in flight fail. Safe to call twice. In a forked process nothing happens."""
        if os.getpid() != self._pid:
            self._finalizer.detach()
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for number in list(self._runs):
                self._end(number, SessionClosed("The session was closed during the run."))
            self._fetching.close()
        self._waiting.close(self._finalizer)


def _release(executor: Executor, unit: int, epoch: int, key: int) -> None:
    executor._release_key(unit, epoch, key)


def _dispatch(
    reference: weakref.ref[Executor], inbox: queue.SimpleQueue[News | Callable[[Executor], None] | None]
) -> None:
    """Drain what Ray reports. Holds the executor only while it works, so that an unused one can go."""
    while True:
        item = inbox.get()
        executor = reference()
        if item is None or executor is None:
            return
        if isinstance(item, (Answer, Loss, Fetched)):
            executor._hear([item])
        else:
            item(executor)
        del executor, item


def _shut_down(
    transport: Transport,
    inbox: queue.SimpleQueue[News | Callable[[Executor], None] | None],
    pid: int,
) -> None:
    if os.getpid() == pid:  # a forked process has the object, and not the actors
        inbox.put(None)
        transport.close()
