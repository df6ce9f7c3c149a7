"""The actor of one stage: its program, its threads, the values that it keeps.

Plain Python, so that it runs without Ray too; ``transport/actors.py`` makes it a Ray actor. Orders come as calls, with
the values among their arguments (Ray moves those from actor to actor), or over a socket from this host
(``shm/loop.py``).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.cluster.brief_runs import BriefRuns
from distort.cluster.clocks import Reading, read_clock
from distort.cluster.errors import StaleResident
from distort.cluster.orders import (
    ActorFacts,
    ActorStats,
    ExecuteOrder,
    FarValue,
    GpuSeat,
    Held,
    NcclFacts,
    NodeEvent,
    Offer,
    StagePayload,
    StageReport,
)
from distort.cluster.resident import ResidentMeta
from distort.cluster.shm.channel import network_of_host
from distort.cluster.shm.loop import StageLoop
from distort.cluster.shm.outgoing import picklable
from distort.cluster.shm.pooled import Pool
from distort.cluster.weights import open_weights
from distort.graph.ir import Node
from distort.graph.types import element_of
from distort.kernels.compiler.choice import describe_program, make_program
from distort.kernels.events import describe
from distort.kernels.program import Cancellation, Paths, Program, Room, StepObserver

if TYPE_CHECKING:
    from distort.cluster.gpu.far import FarValues
    from distort.cluster.gpu.stage import GpuStage


class StageActor:
    def __init__(self) -> None:
        self._payload: StagePayload | None = None
        self._program: Any = None  # plain, compiled, or a GPU's
        self._gpu: GpuStage | None = None
        self._brief: BriefRuns | None = None
        self._loop: StageLoop | None = None
        self._pool: Pool | None = None
        self._resident: dict[int, Any] = {}
        self._n_kept = 0
        self._paths: Any = None
        self._cancellations: dict[int, Cancellation] = {}
        self._cancelled: set[int] = set()
        self._lock = threading.Lock()  # one execution at a time; control methods don't take it
        self._n_executions = 0
        self._busy_ns = 0

    def load(self, payload: StagePayload, *weights: dict[str, Any]) -> ActorFacts:
        """Lower the stage. ``weights`` are mapped read-only from the object store, those in files from these.

        Returns the actor's facts. Raises WeightsMissing where the node lacks files: then nothing is changed.

        With a token in the payload, the actor listens for orders and mail on a socket of its host.
        """
        if payload.custom_kernels:
            from distort.cluster.custom_kernels import unpack

            unpack(payload.custom_kernels)
        if payload.threads:
            from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

            threadpool_limits(payload.threads)
        graph = payload.graph
        for group in (*weights, open_weights(payload.files)):
            graph.initializers.update({name: group[name] for name in group if name not in graph.initializers})
        if payload.gpu is not None:
            return self._load_on_gpu(payload, payload.gpu)
        self._pool = Pool(payload.pool) if payload.pool else None
        self._program = make_program(
            graph,
            outputs=payload.outputs,
            n_threads=payload.threads,
            mode=payload.compile,
            spin=payload.spin_us > 0,
            precision=payload.compute_precision,
            keep_qdq=payload.keep_qdq,
            share=self._pool.share if self._pool is not None else None,
        )
        self._paths = Paths(graph, Program)
        self._brief = None if isinstance(self._program, Program) else BriefRuns(self._program)
        self._payload = payload
        endpoint = self._listen(payload) if payload.token else ""
        return ActorFacts(os.getpid(), *_node(), network_of_host(), endpoint, payload.threads)

    def _load_on_gpu(self, payload: StagePayload, seat: GpuSeat) -> ActorFacts:
        from distort.cluster.gpu.stage import GpuStage

        self._gpu = self._program = self._paths = GpuStage(
            payload.graph, payload.outputs, seat, f"stage{payload.stage}"
        )
        self._payload = payload
        endpoint = self._listen(payload) if payload.token else ""
        facts = ActorFacts(os.getpid(), *_node(), network_of_host(), endpoint, payload.threads)
        return replace(facts, gpu=self._gpu.bus_id)

    def _listen(self, payload: StagePayload) -> str:
        endpoint = f"distort-{payload.session}-{payload.unit}-{os.getpid()}"
        try:
            self._loop = StageLoop(
                payload.unit,
                payload.names,
                endpoint,
                payload.token,
                self._compute,
                release=self.release,
                export=self._lend,
                cancel=self._cancel,
                on_caller_gone=self.on_caller_gone,
                spin_s=payload.spin_us * 1e-6,
                gpu=self._gpu,
            )
        except OSError:  # a host that has no abstract names, or no memfd: values go by Ray
            return ""
        return endpoint

    def on_caller_gone(self) -> None:
        """The process that the actor works for has died, or the actor's GPU. Ray ends the actor, sooner or later."""

    def set_peers(self, endpoints: dict[int, str], gpus: dict[int, str] | None = None) -> None:
        """Where the other units of this host listen, and the GPUs that they have."""
        if self._loop is not None:
            gpu = self._gpu
            near = [unit for unit, of in (gpus or {}).items() if gpu is not None and gpu.is_read_by(of)]
            self._loop.set_peers(endpoints, near)

    # -- values between GPUs of different hosts

    def far_facts(self) -> NcclFacts:
        """What there is of NCCL here."""
        from distort.cluster.gpu.far import FarValues

        assert self._gpu is not None and self._payload is not None, "GPUs' actors are asked"
        if self._gpu.far is None:
            self._gpu.far = FarValues(self._payload.unit, self._gpu)
        return self._gpu.far.facts

    @property
    def _far(self) -> FarValues:
        assert self._gpu is not None and self._gpu.far is not None, "far_facts() comes first"
        return self._gpu.far

    def offer_far(self, unit: int, peer: str, address: str) -> Offer:
        """See FarValues, as for the other two."""
        return self._far.offer(unit, peer, address)

    def accept_far(self, offer: Offer, peer: str) -> str:
        return self._far.accept(offer, peer)

    def give_up_far(self, unit: int, peer: str, why: str) -> None:
        self._far.give_up(unit, peer, why)

    def execute(self, order: ExecuteOrder, run: int, oldest: int, *values: Any) -> Any:
        """Run the stage once, by a call.

        Returns the report, then one value for each name of ``order.returns``, and one for each of ``order.announces``:
        FarValue, or the value itself where it can't wait on this GPU.
        """
        feeds = dict(zip(order.inputs, values, strict=True))
        received = {name: nbytes_of(value) for name, value in feeds.items() if not isinstance(value, Held)}
        release: Callable[[], None] = _nothing
        mailed: dict[str, int] = {}
        far = {name: value for name, value in feeds.items() if type(value) is FarValue}
        came: Mapping[str, Any] = {}
        if self._gpu is not None and self._gpu.far is not None:
            self._gpu.far.forget_before(oldest)
        if order.mail:
            assert self._loop is not None, "mail comes by the loop"
            mail = self._loop.mail.wait_for(run, order.mail, oldest)
            mailed, release = mail.nbytes, partial(self._loop.release, mail)
            feeds.update(mail.values)
        try:
            if far:
                came = self._far.receive(far, lambda: run in self._cancelled)
                feeds.update(came)
                received.update((name, value.nbytes) for name, value in far.items())
            outputs, report = self._compute(order, run, feeds, received)
            assert report is not None, "calls ask for one"
            report.mail, report.by_nccl = mailed, tuple(far)
            if order.sends:
                assert self._loop is not None
                self._loop.send_mail(order, run, outputs)
            # what is handed back may be a view of what is about to be released
            told = self._announce(order, run, outputs)
            returns = (*order.returns, *(name for name, value in told if value is None))
            if self._gpu is not None:
                outputs = self._gpu.on_host({name: outputs[name] for name in returns}) if returns else {}
            returned = [_own(outputs[name]) if order.mail else outputs[name] for name in order.returns]
            returned += [outputs[name] if value is None else value for name, value in told]
        except Exception as error:
            if self._gpu is None:
                raise
            self._gpu.leave_if_lost(self.on_caller_gone)
            raise picklable(error) from None
        finally:
            feeds.clear()
            release()
            if came:
                self._far.release(came.values())
        return (report, *returned) if returned else report

    def _announce(self, order: ExecuteOrder, run: int, outputs: Mapping[str, Any]) -> list[tuple[str, FarValue | None]]:
        """What units of other hosts are to ask for; None for what can't wait here."""
        if not order.announces:
            return []
        assert self._gpu is not None
        with self._gpu.current():
            return [(name, self._far.announce(run, name, outputs[name], units)) for name, units in order.announces]

    def _compute(
        self,
        order: ExecuteOrder,
        run: int,
        values: Mapping[str, Any],
        received: dict[str, int],
        room: Room | None = None,
    ) -> tuple[dict[str, Any], StageReport | None]:
        """The stage's outputs by name, and the report. Outputs may be made where ``room`` says."""
        with self._lock:
            start_ns = time.time_ns()
            if room is not None and self._brief is not None and not (order.report or order.path_only):
                made = self._brief.of(values, room)
                if made is not None:
                    self._n_executions += 1
                    self._busy_ns += time.time_ns() - start_ns
                    return made, None
            return self._compute_alone(order, run, values, received, room)

    def _compute_alone(
        self, order: ExecuteOrder, run: int, values: Mapping[str, Any], received: dict[str, int], room: Room | None
    ) -> tuple[dict[str, Any], StageReport | None]:
        assert self._program is not None and self._payload is not None, "load() comes first"
        start_ns = time.time_ns()
        cancellation = self._cancellations[run] = Cancellation()
        if run in self._cancelled:
            cancellation.requested = True
        feeds = values
        if Held in map(type, values.values()):
            feeds = {name: self._held(v.key, name) if isinstance(v, Held) else v for name, v in values.items()}
        events: list[NodeEvent] = []
        observer: StepObserver | None = None
        if order.profile:
            weights = self._payload.graph.initializers
            provider = "CPUExecutionProvider" if self._gpu is None else "CUDAExecutionProvider"

            def observer(node: Node, begin: int, end: int, ins: Sequence[Any], outs: Sequence[Any]) -> None:
                args = describe(node, ins, outs, weights, provider)
                output = next(filter(None, node.outputs), "")
                events.append(NodeEvent(node.name, node.op_type, output, begin, end, args))

        program = self._program
        if order.path_only:
            program = self._paths.to(order.outputs)
        try:
            outputs = dict(zip(program.outputs, program.run(feeds, observer, cancellation, room), strict=True))
        finally:
            del self._cancellations[run]
            self._cancelled.discard(run)
        kept = {name: self._keep(outputs[name], name) for name in order.keep}
        end_ns = time.time_ns()
        self._n_executions += 1
        self._busy_ns += end_ns - start_ns
        if not order.report:
            if self._brief is not None:
                self._brief.look_at(feeds)
            return outputs, None
        report = StageReport(run, self._payload.stage, start_ns, end_ns, dict(received), kept, events)
        if order.profile:
            report.pid, report.thread = os.getpid(), threading.get_native_id()
        return outputs, report

    def _held(self, key: int, name: str) -> Any:
        try:
            return self._resident[key]
        except KeyError:
            raise StaleResident(f"The value bound to '{name}' is not on this actor any more. Make it again.") from None

    def _keep(self, value: Any, name: str = "") -> ResidentMeta:
        if value is None:
            return ResidentMeta(0, 0, (), 0, empty=True)
        self._n_kept += 1
        key = self._n_kept
        # a copy where it is a view of something larger, or of memory that its owner may take back
        value = _own(value) if self._gpu is None else self._gpu.own(name, value)
        self._resident[key] = value
        if isinstance(value, np.ndarray) or (self._gpu is not None and self._gpu.is_on_gpu(value)):
            device = "cpu" if isinstance(value, np.ndarray) else self._device_name()
            shape = tuple(value.shape)
            return ResidentMeta(key, element_of(np.dtype(value.dtype)), shape, nbytes_of(value), device=device)
        return ResidentMeta(key, 0, (), nbytes_of(value))

    def _device_name(self) -> str:
        """What the plan calls this actor's GPU."""
        assert self._payload is not None and self._payload.gpu is not None
        return f"cuda:{self._payload.gpu.device_id}"

    def keep_value(self, value: Any) -> ResidentMeta:
        """Take a value in and hold it."""
        if self._gpu is not None:
            return self._keep(self._gpu.bring(value))
        return self._keep(np.array(value) if isinstance(value, np.ndarray) else value)

    def export(self, key: int) -> Any:
        """Hand a held value out, on the host."""
        value = self._held(key, f"value {key}")
        return value if self._gpu is None else self._gpu.on_host({"": value})[""]

    def _lend(self, key: int) -> Any:
        """A held value where it lies."""
        return self._held(key, f"value {key}")

    def release(self, keys: Sequence[int]) -> None:
        for key in keys:
            self._resident.pop(key, None)

    def cancel(self, run: int) -> None:
        """Stop ``run`` before its next node, whether it has begun or is still to come."""
        if self._gpu is not None and self._gpu.far is not None:
            self._gpu.far.cancel(run)
        if self._loop is not None:
            self._loop.cancel(run)
        else:
            self._cancel(run)

    def _cancel(self, run: int) -> None:
        cancellation = self._cancellations.get(run)
        if cancellation is not None:
            cancellation.requested = True
        else:
            self._cancelled.add(run)
            if len(self._cancelled) > 1024:  # runs that ended before their cancellation arrived
                self._cancelled = set(sorted(self._cancelled)[-512:])

    def held(self) -> tuple[int, int]:
        """How many values this actor keeps, and their bytes."""
        return len(self._resident), sum(nbytes_of(value) for value in list(self._resident.values()))

    def stats(self) -> ActorStats:
        """What the actor has done since it was loaded."""
        loop = self._loop
        return ActorStats(
            self._n_executions,
            self._busy_ns,
            0 if loop is None else loop.mail.queued,
            {} if loop is None else dict(loop.mail.received),
            *self.held(),
            0 if loop is None else loop.out.pool.nbytes,
            "\n".join(self._described()),
            frozenset() if self._gpu is None else frozenset(self._gpu.by_device),
            0 if self._gpu is None else self._gpu.slots.nbytes + (self._gpu.far.nbytes if self._gpu.far else 0),
        )

    def _described(self) -> list[str]:
        if self._gpu is not None:
            return self._gpu.describe()
        return describe_program(self._program) if self._program is not None else []

    def clock(self) -> Reading:
        return read_clock()

    def ping(self) -> int:
        return os.getpid()


def _own(value: Any) -> Any:
    """The value, with copies of what is a view of other memory."""
    if isinstance(value, np.ndarray) and (value.base is not None or not value.flags.owndata):
        return value.copy()
    if isinstance(value, (list, tuple)):
        return type(value)(_own(item) for item in value)
    return value


def _nothing() -> None:
    return None


def nbytes_of(value: Any) -> int:
    """Bytes that moving a value moves: arrays by their buffer, strings by their text, containers by their items."""
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return sum(len(str(item).encode()) for item in value.reshape(-1))
        return value.nbytes
    if isinstance(value, (list, tuple)):
        return sum(nbytes_of(item) for item in value)
    if isinstance(value, dict):
        return sum(nbytes_of(k) + nbytes_of(v) for k, v in value.items())
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (int, float)):
        return 8
    return int(getattr(value, "nbytes", 0))  # on a GPU


def _node() -> tuple[str, str]:
    """Ray's id of this process's node, and the node's address."""
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return "", "127.0.0.1"
    return str(ray.get_runtime_context().get_node_id()), str(ray.util.get_node_ip_address())
