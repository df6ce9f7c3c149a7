"""Runs over the stages of a plan: commands of the state machine become calls, results become events.

The state machine (``distort.scheduler.state``) decides; this module only carries out. One lock guards it. Whoever
has an event drains the queue: a caller its own submission, a dispatcher thread what actors report. Nothing here
blocks on an actor while it holds the lock.
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
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distort.cluster.actor import ExecuteOrder, ResidentKey, StagePayload, StageReport, nbytes_of
from distort.cluster.errors import ClusterError, DeadlineExceeded, Forked, SessionClosed, StageLost
from distort.cluster.resident import Resident, ResidentMeta
from distort.cluster.transport.base import Handle, StageHost, Transport
from distort.kernels.errors import RunCancelled
from distort.scheduler import state as machine
from distort.scheduler.needs import NeedsOfPlan
from distort.scheduler.plan import Plan

#: how often a waiting run looks whether it was told to stop
_POLL_S = 0.02
_TERMINATED = "Exiting due to terminate flag being set to true."


@dataclass(slots=True, eq=False)
class _Run:
    fetches: tuple[str, ...]
    keep: frozenset[str]
    profile: bool
    #: value -> handle, or the Resident that was fed
    values: dict[str, Any]
    ended: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    #: fetches that stayed on the actors that made them; None: an optional value that is empty
    kept: dict[str, Resident | None] = field(default_factory=dict)
    #: stage -> why it failed, as the exception that it raised
    errors: dict[int, BaseException] = field(default_factory=dict)
    #: stage -> how often it was executed; answers of earlier times say nothing
    attempts: dict[int, int] = field(default_factory=dict)
    reports: list[StageReport] = field(default_factory=list)
    #: values that the fetches depend on and stages pass on; None: every node runs
    path: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class _Call:
    """One execution of a stage: which, and who the hosts were then."""

    run: int
    stage: int
    attempt: int
    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    call: _Call
    report: StageReport | None
    error: BaseException | None


@dataclass(slots=True)
class EdgeTraffic:
    nbytes: int = 0
    messages: int = 0


class Executor:
    """Runs of one session. Thread-safe; ``close`` ends every actor."""

    def __init__(
        self,
        plan: Plan,
        payloads: Sequence[StagePayload],
        weights: dict[str, Any],
        transport: Transport,
        *,
        max_in_flight: int = 8,
        recovery: str = "raise",
    ) -> None:
        self.plan = plan
        self._pid = os.getpid()
        self._transport = transport
        self._inputs = [tuple(stage.inputs) for stage in plan.stages]
        self._outputs = [tuple(payload.outputs) for payload in payloads]
        self._producer = {name: i for i, outputs in enumerate(self._outputs) for name in outputs}
        self._needs = NeedsOfPlan(plan)
        #: values that no stage reads: the model's results
        read = {name for inputs in self._inputs for name in inputs}
        self._results = frozenset(name for name in self._producer if name not in read)
        self._crossing = {
            name for i, inputs in enumerate(self._inputs) for name in inputs if self._producer.get(name, i) != i
        }
        self._lock = threading.Lock()
        self._events: deque[Any] = deque()
        self._runs: dict[int, _Run] = {}
        self._numbers = itertools.count()
        self._traffic: dict[tuple[str, int, int], EdgeTraffic] = {}
        self._closed = False
        self._broken: dict[int, BaseException] = {}  # stages that could not be restarted
        self._state = machine.RunState(plan, max_in_flight=max_in_flight, eager=transport.chains, recovery=recovery)
        self._hosts: list[StageHost] = transport.open(payloads, weights)
        self._inbox: queue.SimpleQueue[_Answer | Callable[[Executor], None] | None] = queue.SimpleQueue()
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
        wanted = frozenset(self._results if everything else fetches)
        self._require_process()
        if should_stop is not None and should_stop():
            raise RunCancelled(_TERMINATED)
        number, run = self._submit(fetches, feeds, keep, profile, wanted)
        try:
            self._wait(number, run, should_stop, timeout_s)
        except BaseException:  # Ctrl-C: nobody waits for the run any more
            self._post(machine.Cancel(number))
            raise
        if run.error is not None:
            raise run.error
        return [self._result(run, name) for name in run.fetches], run.reports

    def _submit(
        self,
        fetches: Sequence[str],
        feeds: Mapping[str, Any],
        keep: frozenset[str],
        profile: bool,
        wanted: frozenset[str],
    ) -> tuple[int, _Run]:
        resident: dict[str, int] = {}
        values: dict[str, Any] = {}
        for name, value in feeds.items():
            if isinstance(value, Resident):
                value.check()
                if value.owner is self:
                    resident[name] = value.stage
                    values[name] = value
                else:  # another session's actor: by way of this process
                    values[name] = self._transport.put(value.fetch())
            else:
                values[name] = self._transport.put(value)
        run = _Run(tuple(fetches), keep, profile, values, path=None)
        if not wanted >= self._results:
            needs = self._needs.of(wanted)
            run.path = wanted.union(*(needs.reads[stage] for stage in needs.stages))
        with self._lock:
            if self._closed:
                raise SessionClosed("The session is closed.")
            number = next(self._numbers)
            self._runs[number] = run
        self._post(machine.Submit(number, wanted, resident))
        return number, run

    def _wait(self, number: int, run: _Run, should_stop: Callable[[], bool] | None, timeout_s: float | None) -> None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if should_stop is None and deadline is None:
            run.ended.wait()
            return
        stopping = False
        while not run.ended.wait(_POLL_S if should_stop is not None else max(0.0, (deadline or 0) - time.monotonic())):
            if not stopping and should_stop is not None and should_stop():
                stopping = True
                self._post(machine.Cancel(number))
            if deadline is not None and time.monotonic() >= deadline:
                self._post(machine.DeadlinePassed(number))
                run.ended.wait()

    def _result(self, run: _Run, name: str) -> Any:
        if name in run.kept:
            return run.kept[name]
        value = run.values[name]
        if isinstance(value, Resident):
            return value
        result = self._transport.get(value)
        if name in self._producer:
            self._count(name, self._producer[name], -1, nbytes_of(result))
        return result

    # -- events and commands

    def _post(self, event: Any) -> None:
        self._events.append(event)
        self.drain()

    def drain(self) -> None:
        """Step the state machine through the events that wait, and carry out what it says."""
        with self._lock:
            while self._events:
                for command in self._state.step(self._events.popleft()):
                    self._carry_out(command)

    def _carry_out(self, command: Any) -> None:
        if isinstance(command, machine.Execute):
            self._execute(command.run, command.stage)
        elif isinstance(command, machine.Finish):
            self._end(command.run, None)
        elif isinstance(command, machine.Fail):
            self._end(command.run, self._why(command))
        elif isinstance(command, machine.CancelStage):
            self._hosts[command.stage].cancel(command.run)
        elif isinstance(command, machine.Restart):
            threading.Thread(target=self._restart, args=(command.stage,), name="distort-restart", daemon=True).start()
        # Put, Fetch and Release name what the transport does by itself: feeds are put at submission, results are
        # fetched by the waiting caller, and handles free what they stand for

    def _execute(self, number: int, stage: int) -> None:
        run = self._runs.get(number)
        if run is None:  # close() ended it
            return
        host = self._hosts[stage]
        names = tuple(name for name in self._inputs[stage] if name in run.values)
        attempt = run.attempts[stage] = run.attempts.get(stage, 0) + 1
        try:
            values = [self._handle_for(run.values[name], stage) for name in names]
        except ClusterError as error:
            run.errors[stage] = error
            self._events.append(machine.StageFailed(number, stage, str(error)))
            return
        outputs = self._outputs[stage]
        returns = tuple(
            name
            for name in outputs
            if (name in self._crossing and (run.path is None or name in run.path))
            or (name in run.fetches and name not in run.keep)
        )
        keep = tuple(name for name in outputs if name in run.keep)
        order = ExecuteOrder(number, names, returns, keep, run.profile, run.path is not None)
        call = _Call(number, stage, attempt, tuple(other.epoch for other in self._hosts))
        inbox = self._inbox
        finished: list[_Answer] = []
        chains = self._transport.chains

        def done(report: StageReport | None, error: BaseException | None) -> None:
            answer = _Answer(call, report, error)
            if chains:
                inbox.put(answer)  # an actor's answer arrives on a thread that must not be held up
            else:
                finished.append(answer)

        handles = host.execute(order, values, done)
        # a value that is kept and read elsewhere too: consumers take this run's own handle
        run.values.update(zip(returns, handles, strict=True))
        for answer in finished:
            self._stage_ended(answer)

    def _handle_for(self, value: Any, stage: int) -> Handle:
        if not isinstance(value, Resident):
            return value
        value.check()
        if value.stage == stage:
            return ResidentKey(value.meta.key)
        return self._hosts[value.stage].export(value.meta.key)

    def _stage_ended(self, answer: _Answer) -> None:
        """Turn an actor's answer into an event. Called with or without the lock: it only appends."""
        call, report = answer.call, answer.report
        run = self._runs.get(call.run)
        current = run is not None and run.attempts[call.stage] == call.attempt
        if answer.error is None:
            assert report is not None
            if run is not None and current:
                self._note(run, call.stage, call.epochs[call.stage], report)
                self._events.append(machine.StageDone(call.run, call.stage))
            return
        cause = self._transport.cause(answer.error)
        lost = self._transport.lost_stage(cause, call.stage)
        if run is not None and current:
            run.errors[call.stage] = cause
        if lost is not None:
            if self._hosts[lost].epoch == call.epochs[lost]:  # not the host that took its place
                self._events.append(machine.StageLost(lost, _first_line(cause)))
        elif current:
            self._events.append(machine.StageFailed(call.run, call.stage, str(cause)))

    def _note(self, run: _Run, stage: int, epoch: int, report: StageReport) -> None:
        run.reports.append(report)
        for name, nbytes in report.received.items():
            fed = run.values.get(name)
            producer = fed.stage if isinstance(fed, Resident) and fed.stage != stage else self._producer.get(name, -1)
            self._count(name, producer, stage, nbytes)
            report.edges.append((name, producer, nbytes))
        for name, meta in report.kept.items():
            run.kept[name] = None if meta.empty else self._resident(stage, epoch, meta)

    def _resident(self, stage: int, epoch: int, meta: ResidentMeta) -> Resident:
        inbox = self._inbox
        return Resident(
            self,
            stage,
            epoch,
            meta,
            fetch=self._fetch_resident,
            is_current=self._is_current,
            release=lambda at, since, key: inbox.put(partial(_release, stage=at, epoch=since, key=key)),
        )

    def _require_process(self) -> None:
        if os.getpid() != self._pid:
            raise Forked(self._pid)

    def _fetch_resident(self, value: Resident) -> Any:
        self._require_process()
        host = self._hosts[value.stage]
        try:
            result = self._transport.get(host.export(value.meta.key))
        except Exception as error:
            if self._transport.lost_stage(error, value.stage) is None:
                raise
            if self._is_current(value.stage, value.epoch):
                self._post(machine.StageLost(value.stage, _first_line(error)))
            raise StageLost(
                f"The actor of stage {value.stage} was lost, and a value of shape {list(value.shape)} with it. Make it "
                "again."
            ) from error
        self._count("(resident)", value.stage, -1, nbytes_of(result))
        return result

    def _is_current(self, stage: int, epoch: int) -> bool:
        return not self._closed and self._hosts[stage].epoch == epoch and stage not in self._broken

    def _release_key(self, stage: int, epoch: int, key: str) -> None:
        if self._is_current(stage, epoch):
            self._hosts[stage].release([key])

    def _count(self, name: str, producer: int, consumer: int, nbytes: int) -> None:
        traffic = self._traffic.setdefault((name, producer, consumer), EdgeTraffic())
        traffic.nbytes += nbytes
        traffic.messages += 1

    def _why(self, command: machine.Fail) -> BaseException:
        run = self._runs.get(command.run)
        if run is None:
            return SessionClosed("The session was closed during the run.")
        cause = run.errors.get(command.stage) if command.stage is not None else None
        if cause is None and run.errors:
            cause = next(iter(run.errors.values()))
        if command.kind == "cancelled":
            return RunCancelled(_TERMINATED)
        if command.kind == "deadline":
            return DeadlineExceeded(f"The run did not end within its deadline (distort.timeout_s): {command.error}")
        if command.kind == "lost":
            outlook = "Open the session anew." if command.stage in self._broken else "It is being restarted; run again."
            error = StageLost(
                f"The actor of stage {command.stage} was lost while a run needed it: {command.error}. {outlook}"
            )
            error.__cause__ = cause
            return error
        return cause if cause is not None else ClusterError(command.error)

    def _end(self, number: int, error: BaseException | None) -> None:
        run = self._runs.pop(number, None)
        if run is None:
            return
        run.error = error
        run.ended.set()

    def _restart(self, stage: int) -> None:
        try:
            host = self._transport.reopen(stage)
        except Exception as error:  # noqa: BLE001  # the actor boundary: whatever it is, the stage stays lost
            with self._lock:
                self._broken[stage] = error
            self._post(machine.StageBroken(stage, f"it could not be restarted: {_first_line(error)}"))
            return
        with self._lock:
            closed = self._closed
            self._hosts[stage] = host
        if closed:
            host.close()
        else:
            self._post(machine.StageRestored(stage))

    # -- the rest

    @property
    def hosts(self) -> list[StageHost]:
        return list(self._hosts)

    def keep_value(self, value: Any, stage: int) -> Resident:
        """Put a value into an actor's memory."""
        self._require_process()
        host = self._hosts[stage]
        meta = host.keep_value(self._transport.put(value))
        self._count("(resident)", -1, stage, nbytes_of(value))
        return self._resident(stage, host.epoch, meta)

    def transfer_stats(self) -> list[dict[str, Any]]:
        """Bytes and messages since the start, by edge: value, producer and consumer stage (-1: this process)."""
        with self._lock:
            return [
                {"value": name, "producer": producer, "consumer": consumer, "nbytes": t.nbytes, "messages": t.messages}
                for (name, producer, consumer), t in sorted(self._traffic.items())
            ]

    def close(self) -> None:
        """End every actor; runs in flight fail. Safe to call twice. In a forked process nothing happens."""
        if os.getpid() != self._pid:
            self._finalizer.detach()
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            waiting = list(self._runs)
        for number in waiting:
            with self._lock:
                if number in self._runs:
                    self._end(number, SessionClosed("The session was closed during the run."))
        self._finalizer()


def _release(executor: Executor, stage: int, epoch: int, key: str) -> None:
    executor._release_key(stage, epoch, key)


def _dispatch(
    reference: weakref.ref[Executor], inbox: queue.SimpleQueue[_Answer | Callable[[Executor], None] | None]
) -> None:
    """Drain what actors report. Holds the executor only while it works, so that an unused one can go."""
    while True:
        item = inbox.get()
        executor = reference()
        if item is None or executor is None:
            return
        if isinstance(item, _Answer):
            executor._stage_ended(item)
        else:
            item(executor)
        executor.drain()
        del executor, item


def _shut_down(
    transport: Transport, inbox: queue.SimpleQueue[_Answer | Callable[[Executor], None] | None], pid: int
) -> None:
    if os.getpid() == pid:  # a forked process has the object, and not the actors
        inbox.put(None)
        transport.close()


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
