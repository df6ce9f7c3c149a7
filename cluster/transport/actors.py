"""Stages on Ray actors. Values go by shared memory inside a host, by Ray's object store from host to host.

Ray makes the actors, places them and says when they are gone. On this process's host an actor is also reached by a
socket (``distort.cluster.shm``): orders and results go there, and actors of one host send each other what they read.
From a GPU to one of another host values go by NCCL, where both actors have it (``far.py``); the call says so.
Everything else is a call of the actor with references as arguments: always right, about a millisecond a hop. (Ray
itself inlines values below about 100 kB in its calls.) Weights are put once; actors on one host map the same memory.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, cast

from distort.cluster.actor import StageActor, nbytes_of
from distort.cluster.clocks import Reading
from distort.cluster.errors import ClusterError, DeadlineExceeded, SenderLost, StageLost, first_line
from distort.cluster.grounds import Grounds
from distort.cluster.orders import ActorFacts, ActorStats, ExecuteOrder, StagePayload
from distort.cluster.resident import ResidentMeta
from distort.cluster.resources import Connection
from distort.cluster.shm.caller import Line, Switchboard
from distort.cluster.shm.channel import PeerGone, network_of_host
from distort.cluster.shm.spinning import DEFAULT_SPIN_US
from distort.cluster.transport.base import Answer, Handle, Listener, Loss, News, StageHost
from distort.cluster.transport.far import FarLinks
from distort.cluster.watch import NodeWatch
from distort.cluster.weights import WeightsMissing, open_weights, weight_groups
from distort.scheduler.plan import CALLER

#: values up to this size travel inside the call
_INLINE_NBYTES = 64 * 1024
#: how long an actor may take to start and to lower its stage
LOAD_TIMEOUT_S = 120.0
#: how long an actor may take to read its clock
_CLOCK_TIMEOUT_S = 2.0
#: values to release that wait for the next order, at most
_MOST_TO_RELEASE = 256


class RayHost:
    """A unit's Ray actor. Control calls (cancel, release) run beside an execution."""

    def __init__(self, unit: int, actor: Any, epoch: int, listener: Listener) -> None:
        self.unit = unit
        self.actor = actor
        self.epoch = epoch
        self.facts: ActorFacts | None = None
        self.line: Line | None = None  # where the host shares memory with this process
        self._listener = listener

    @property
    def pid(self) -> int:
        return self.facts.pid if self.facts is not None else 0

    def call(
        self, order: ExecuteOrder, run: int, oldest: int, values: Sequence[Handle], epochs: tuple[int, ...]
    ) -> list[Handle]:
        n_returns = 1 + len(order.returns) + len(order.announces)
        refs = self.actor.execute.options(num_returns=n_returns).remote(order, run, oldest, *values)
        report, *outputs = refs if n_returns > 1 else [refs]
        listener, unit = self._listener, self.unit

        def finished(future: Any) -> None:
            error = future.exception()
            told = None if error is not None else future.result()
            listener(Answer(unit, epochs, run, told, error))

        report.future().add_done_callback(finished)
        return outputs

    def prepare(self, number: int, order: ExecuteOrder) -> None:
        self._say(lambda line: line.prepare(number, order))

    def order(self, number: int, values: Sequence[Any], run: int, oldest: int) -> None:
        assert self.line is not None, "a host without a line gets calls"
        try:
            self.line.order(number, values, run, oldest)
        except PeerGone:
            self._lose()

    def _say(self, what: Callable[[Line], None]) -> bool:
        """Whether somebody hears it."""
        assert self.line is not None, "a host without a line gets calls"
        try:
            what(self.line)
        except PeerGone:
            self._lose()
            return False
        return True

    def _lose(self) -> None:
        self._listener(Loss(self.unit, self.epoch, "its process has ended"))

    def export(self, key: int) -> Handle:
        return self.actor.export.remote(key)

    def fetch(self, key: int, request: int) -> bool:
        return self.line is not None and self._say(lambda line: line.fetch(key, request))

    def release(self, keys: Sequence[int]) -> None:
        line = self.line
        if line is not None:
            line.release(keys)
            if line.n_to_release > _MOST_TO_RELEASE:
                with contextlib.suppress(PeerGone):
                    line.flush_releases()
            return
        import ray

        if ray.is_initialized():
            self.actor.release.remote(list(keys))

    def cancel(self, run: int) -> None:
        # the socket reaches a loop that waits, the call one that computes
        if self.line is not None:
            with contextlib.suppress(PeerGone):
                self.line.cancel(run)
        self.actor.cancel.remote(run)

    def keep_value(self, handle: Handle) -> ResidentMeta:
        import ray

        meta: ResidentMeta = ray.get(self.actor.keep_value.remote(handle))
        return meta

    def held(self) -> tuple[int, int]:
        import ray

        if self.line is not None:
            with contextlib.suppress(PeerGone):
                self.line.flush_releases()
        held: tuple[int, int] = ray.get(self.actor.held.remote())
        return held

    def stats(self, timeout_s: float) -> ActorStats | None:
        import ray

        if not ray.is_initialized():
            return None
        try:
            found: ActorStats = ray.get(self.actor.stats.remote(), timeout=timeout_s)
        except (ray.exceptions.RayError, TimeoutError):
            return None
        return found

    def clock(self) -> Reading | None:
        import ray

        try:
            reading: Reading = ray.get(self.actor.clock.remote(), timeout=_CLOCK_TIMEOUT_S)
        except (ray.exceptions.RayError, TimeoutError):
            return None
        return reading

    def close(self) -> None:
        import ray

        if ray.is_initialized():
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.kill(self.actor)


class ActorTransport:
    """``wanted`` is "auto" (shared memory where there is some), "shm" (or an error) or "object_store"."""

    chains = True
    #: whether some host has a line: asked in each run
    polls = False

    def __init__(
        self,
        connection: Connection,
        wanted: str = "auto",
        runtime_env: Mapping[str, Any] | None = None,
        spin_us: int = DEFAULT_SPIN_US,
        strict: bool = False,
    ) -> None:
        self._grounds = Grounds(connection, runtime_env)
        self._watch: NodeWatch | None = None
        self._wanted = wanted
        self._spin_us = spin_us
        self._strict = strict  # a way that is not the plan's is an error
        self._far = FarLinks()
        self._payloads: list[StagePayload] = []
        self._weights: list[list[Any]] = []  # by unit: references of the groups that it reads
        self._hosts: list[RayHost] = []
        self._linking = threading.Lock()
        self._switchboard = Switchboard(spin_us * 1e-6) if wanted != "object_store" else None

    def open(
        self, payloads: Sequence[StagePayload], weights: Sequence[Mapping[str, Any]], listener: Listener
    ) -> list[StageHost]:
        import ray

        self._listener = listener
        token = secrets.token_hex(16) if self._switchboard is not None else ""
        self._payloads = [replace(payload, token=token, spin_us=self._spin_us) for payload in payloads]
        self._weights = [[] for _ in payloads]
        for positions, group in weight_groups(weights).items():
            reference = ray.put(group)
            for position in positions:
                self._weights[position].append(reference)
        try:
            self._grounds.settle(
                [max(payload.threads, 1) for payload in payloads],
                [payload.host for payload in payloads],
                [payload.gpu.share if payload.gpu is not None else 0.0 for payload in payloads],
            )
            self._hosts = [self._start(unit, epoch=0) for unit in range(len(self._payloads))]
            self._load(range(len(self._hosts)))
            self._link(range(len(self._hosts)))
            if self._strict:
                self._far.require(self._payloads)
            if self._grounds.elsewhere:
                grounds = self._grounds  # the thread must not hold this object
                hosts = self._hosts
                self._watch = NodeWatch(
                    lambda: grounds.elsewhere, lambda unit, why: listener(Loss(unit, hosts[unit].epoch, why))
                )
        except BaseException:
            self.close()
            raise
        return list(self._hosts)

    def _start(self, unit: int, epoch: int) -> RayHost:
        actor = _ray_actor_class().options(**self._grounds.options(unit)).remote()
        return RayHost(unit, actor, epoch, self._listener)

    def _load(self, units: Sequence[int]) -> None:
        import ray

        loads = [self._load_one(unit) for unit in units]
        try:
            facts = [self._loaded(unit, load) for unit, load in zip(units, loads, strict=True)]
        except ray.exceptions.GetTimeoutError:
            free = cast(Any, ray).available_resources().get("CPU", 0)
            raise ClusterError(
                f"{len(loads)} stage actors did not start within {LOAD_TIMEOUT_S:g} s. The cluster has "
                f"{free:g} CPUs free; each actor asks for {max(self._payloads[0].threads, 1)}. Free some, or ask for "
                "fewer actors (inter_op_num_threads) or threads (intra_op_num_threads)."
            ) from None
        except ray.exceptions.RayActorError as error:
            raise StageLost(
                f"The actor of a stage ended while it was starting: {first_line(error)} Look at the "
                "cluster's memory and logs, and start this process with the RAY_AUTH_MODE that the cluster has."
            ) from error
        except ray.exceptions.RayError as error:
            raise self.cause(error) from error
        for unit, fact in zip(units, facts, strict=True):
            self._hosts[unit].facts = fact

    def _load_one(self, unit: int) -> Any:
        return self._hosts[unit].actor.load.remote(self._payloads[unit], *self._weights[unit])

    def _loaded(self, unit: int, load: Any) -> ActorFacts:
        """What an actor says of itself. Weights whose files its node lacks are sent to it."""
        import ray

        try:
            facts: ActorFacts = ray.get(load, timeout=LOAD_TIMEOUT_S)
        except ray.exceptions.RayTaskError as error:
            cause = self.cause(error)
            if not isinstance(cause, WeightsMissing):
                raise
            payload = self._payloads[unit]
            lacking = open_weights({name: payload.files[name] for name in cause.args})
            kept = {name: place for name, place in payload.files.items() if name not in lacking}
            self._payloads[unit] = replace(payload, files=kept)
            self._weights[unit].append(ray.put(lacking))
            facts = ray.get(self._load_one(unit), timeout=LOAD_TIMEOUT_S)
        return facts

    def _link(self, units: Sequence[int]) -> None:
        """Connect with the hosts that share memory with this process, and tell all of them where the others listen.

        One at a time: of two units that are restarted at once, neither is to be told where the other listened before.
        """
        switchboard = self._switchboard
        if switchboard is not None:
            with self._linking:
                self._link_alone(units, switchboard)

    def _link_alone(self, units: Sequence[int], switchboard: Switchboard) -> None:
        import ray

        node, network = _this_node(), network_of_host()
        for unit in units:
            host = self._hosts[unit]
            facts = host.facts
            assert facts is not None, "_load() comes first"
            if facts.endpoint and facts.node == node and facts.network == network:
                payload = self._payloads[unit]
                try:
                    host.line = switchboard.connect(unit, host.epoch, facts.endpoint, payload.token, payload.names)
                except OSError as error:
                    if self._wanted == "shm":
                        raise ClusterError(f"distort.transport=shm: stage{unit} can't be reached: {error}") from error
            if self._wanted == "shm" and host.line is None:
                raise ClusterError(
                    f"distort.transport=shm: the actor of stage{unit} is at {facts.node_ip}, and shares no memory with "
                    "this process. Leave the transport to distort (auto), or place all actors on this host."
                )
        self._look_for_lines()
        endpoints = {unit: host.facts.endpoint for unit, host in enumerate(self._hosts) if host.facts is not None}
        gpus = {unit: host.facts.gpu for unit, host in enumerate(self._hosts) if host.facts is not None}
        told = []
        for unit, host in enumerate(self._hosts):
            others = {other: endpoints[other] for other in endpoints if other != unit and self.linked(unit, other)}
            if others:
                told.append(
                    host.actor.set_peers.remote(others, {other: gpus[other] for other in others if gpus[other]})
                )
        ray.wait(told, num_returns=len(told), timeout=LOAD_TIMEOUT_S)  # one that is gone needs to know nothing
        actors = [host.actor for host in self._hosts]
        self._far.join(units, self._payloads, [host.facts for host in self._hosts], actors)

    def reopen(self, unit: int) -> StageHost:
        old = self._hosts[unit]
        if old.line is not None and self._switchboard is not None:
            self._switchboard.drop(old.line)
        old.close()
        self._grounds.move(unit)
        self._hosts[unit] = self._start(unit, old.epoch + 1)
        self._look_for_lines()
        self._load([unit])
        self._link([unit])
        return self._hosts[unit]

    def _look_for_lines(self) -> None:
        near = [host.unit for host in self._hosts if host.line is not None]
        self.polls = bool(near)
        if self._switchboard is not None:
            self._switchboard.leave_cores(sum(max(self._payloads[unit].threads, 1) for unit in near))

    def linked(self, producer: int, consumer: int) -> bool:
        if self._switchboard is None or producer == consumer:
            return False
        if CALLER in (producer, consumer):
            return self._hosts[max(producer, consumer)].line is not None
        one, other = self._hosts[producer].facts, self._hosts[consumer].facts
        return (
            one is not None
            and other is not None
            and bool(one.endpoint)
            and bool(other.endpoint)
            and (one.node, one.network) == (other.node, other.network)
        )

    def far(self, producer: int, consumer: int) -> bool:
        return self._far.works(producer, consumer)

    def cut(self, producer: int, consumer: int, why: str) -> None:
        self._far.cut(producer, consumer, why, self._payloads, self._hosts[producer].actor)

    def poll(self, timeout_s: float | None) -> list[News]:
        assert self._switchboard is not None
        return self._switchboard.poll(timeout_s)

    def wake(self) -> None:
        if self._switchboard is not None:
            self._switchboard.wake()

    def put(self, value: Any) -> Handle:
        import ray

        return value if nbytes_of(value) <= _INLINE_NBYTES else ray.put(value)

    def get(self, handle: Handle, timeout_s: float | None = None) -> Any:
        import ray

        if not isinstance(handle, ray.ObjectRef):
            return handle
        try:
            return ray.get(handle, timeout=timeout_s)
        except ray.exceptions.GetTimeoutError:
            raise DeadlineExceeded(f"A value did not arrive within {timeout_s:g} s.") from None
        except ray.exceptions.RayError as error:
            cause = self.cause(error)
            if isinstance(cause, ray.exceptions.RayError):  # nobody's answer: whoever had the value is gone
                raise StageLost(f"A value was lost with the actor that had it: {first_line(cause)}") from error
            raise cause from error

    def lost_unit(self, cause: BaseException, unit: int) -> int | None:
        import ray

        if isinstance(cause, SenderLost):
            return None  # it may be there, and is asked itself
        if isinstance(cause, ray.exceptions.RayActorError):
            # the call of a consumer fails with the death of its producer's actor
            dead = str(getattr(cause, "actor_id", "") or "")
            for i, host in enumerate(self._hosts):
                if dead and dead in str(host.actor._actor_id):
                    return i
            # an actor that has been replaced since: nobody who lives is lost
            return unit if not dead else None
        losses = (
            ray.exceptions.ObjectLostError,
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.LocalRayletDiedError,
            StageLost,
        )
        return unit if isinstance(cause, losses) else None

    def cause(self, error: BaseException) -> BaseException:
        import ray

        # an error among a call's arguments comes wrapped in one RayTaskError for each hop
        while isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
            error = error.cause
        return error

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        for host in self._hosts:
            host.close()
        self._hosts, self._payloads, self._weights = [], [], []
        if self._switchboard is not None:
            self._switchboard.close()


def _this_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


@functools.cache
def _ray_actor_class() -> Any:
    """StageActor as Ray wants it, its control methods in concurrency groups of their own.

    One for all actors of a process: Ray keeps what it knows of each class.
    """
    ray: Any = import_module("ray")  # its stubs lack the options of actors

    def control(name: str, group: str = "control") -> Any:
        method = getattr(StageActor, name)

        def call(self: Any, *arguments: Any) -> Any:
            return method(self, *arguments)

        call.__name__ = name
        return ray.method(concurrency_group=group)(call)

    def on_caller_gone(self: Any) -> None:
        os._exit(0)  # Ray would notice as well, later

    def load(self: Any, *arguments: Any) -> ActorFacts:
        facts = StageActor.load(self, *arguments)
        # what is here now stays: it needs no looking through, each time that garbage is collected
        gc.collect()
        gc.freeze()
        return facts

    names = ("cancel", "release", "export", "held", "stats", "clock", "set_peers", "ping", "keep_value")
    methods = {name: control(name) for name in names}
    # these may take long: NCCL waits for the other end
    methods |= {name: control(name, "far") for name in ("far_facts", "offer_far", "accept_far", "give_up_far")}
    made = type("RayStageActor", (StageActor,), {**methods, "load": load, "on_caller_gone": on_caller_gone})
    return ray.remote(concurrency_groups={"control": 2, "far": 2}, max_restarts=0, max_task_retries=0)(made)
