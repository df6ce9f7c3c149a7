"""Stages on Ray actors; values by Ray's object store: always right, about a millisecond a hop.

An edge is an ObjectRef that the producer's call returned and that the consumer's call takes as an argument: Ray
chains the calls and moves the value from actor to actor. (Ray itself inlines values below about 100 kB in its
calls.) Weights are put once; actors on one host map the same memory.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from importlib import import_module
from typing import Any, cast

from distort.cluster.actor import ExecuteOrder, StageActor, StagePayload, nbytes_of
from distort.cluster.errors import ClusterError, DeadlineExceeded, StageLost
from distort.cluster.resident import ResidentMeta
from distort.cluster.resources import Connection
from distort.cluster.transport.base import Handle, OnDone, StageHost, weight_groups

#: values up to this size travel inside the call
_INLINE_NBYTES = 64 * 1024
#: how long an actor may take to start and to lower its stage
LOAD_TIMEOUT_S = 120.0


class RayHost:
    """A stage's Ray actor. Control calls (cancel, release) run beside an execution."""

    def __init__(self, actor: Any, epoch: int) -> None:
        self.actor = actor
        self.epoch = epoch
        self.pid = 0

    def execute(self, order: ExecuteOrder, values: Sequence[Handle], on_done: OnDone) -> list[Handle]:
        n_returns = 1 + len(order.returns)
        refs = self.actor.execute.options(num_returns=n_returns).remote(order, *values)
        report, *outputs = refs if n_returns > 1 else [refs]

        def finished(future: Any) -> None:
            error = future.exception()
            on_done(None, error) if error is not None else on_done(future.result(), None)

        report.future().add_done_callback(finished)
        return outputs

    def export(self, key: str) -> Handle:
        return self.actor.export.remote(key)

    def release(self, keys: Sequence[str]) -> None:
        import ray

        if ray.is_initialized():
            self.actor.release.remote(list(keys))

    def cancel(self, run: int) -> None:
        self.actor.cancel.remote(run)

    def keep_value(self, handle: Handle) -> ResidentMeta:
        import ray

        meta: ResidentMeta = ray.get(self.actor.keep_value.remote(handle))
        return meta

    def held(self) -> tuple[int, int]:
        import ray

        held: tuple[int, int] = ray.get(self.actor.held.remote())
        return held

    def close(self) -> None:
        import ray

        if ray.is_initialized():
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.kill(self.actor)


class ObjectStoreTransport:
    name = "object_store"
    chains = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._payloads: list[StagePayload] = []
        self._weights: list[list[Any]] = []  # by stage: references of the groups that it reads
        self._hosts: list[RayHost] = []

    def open(self, payloads: Sequence[StagePayload], weights: dict[str, Any]) -> list[StageHost]:
        import ray

        self._payloads = list(payloads)
        self._weights = [[] for _ in payloads]
        for positions, group in weight_groups(payloads, weights).items():
            reference = ray.put(group)
            for position in positions:
                self._weights[position].append(reference)
        self._hosts = [self._start(payload, epoch=0) for payload in self._payloads]
        try:
            self._load(range(len(self._hosts)))
        except BaseException:
            self.close()
            raise
        return list(self._hosts)

    def _start(self, payload: StagePayload, epoch: int) -> RayHost:
        ray: Any = import_module("ray")  # its stubs lack the options of actors
        actor_class = ray.remote(
            concurrency_groups={"control": 2},
            max_restarts=0,
            max_task_retries=0,
            # an embedded cluster is the session's alone, so its actors need no permission to be there
            num_cpus=0 if self._connection.embedded else max(payload.threads, 1),
        )(_ray_actor_class())
        actor = actor_class.remote()
        return RayHost(actor, epoch)

    def _load(self, stages: Sequence[int] | range) -> None:
        import ray

        loads = [self._hosts[stage].actor.load.remote(self._payloads[stage], *self._weights[stage]) for stage in stages]
        try:
            facts = ray.get(loads, timeout=LOAD_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError:
            free = cast(Any, ray).available_resources().get("CPU", 0)
            raise ClusterError(
                f"{len(loads)} stage actors did not start within {LOAD_TIMEOUT_S:g} s. The cluster has "
                f"{free:g} CPUs free; each actor asks for {max(self._payloads[0].threads, 1)}. Free some, or ask for "
                "fewer actors (inter_op_num_threads) or threads (intra_op_num_threads)."
            ) from None
        except ray.exceptions.RayActorError as error:
            raise StageLost(
                f"The actor of a stage ended while it was starting: {str(error).strip().splitlines()[0]} Look at the "
                "cluster's memory and logs, and start this process with the RAY_AUTH_MODE that the cluster has."
            ) from error
        except ray.exceptions.RayError as error:
            raise self.cause(error) from error
        for stage, fact in zip(stages, facts, strict=True):
            self._hosts[stage].pid = fact["pid"]

    def reopen(self, stage: int) -> StageHost:
        old = self._hosts[stage]
        old.close()
        self._hosts[stage] = self._start(self._payloads[stage], old.epoch + 1)
        self._load([stage])
        return self._hosts[stage]

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
            raise self.cause(error) from error

    def lost_stage(self, cause: BaseException, stage: int) -> int | None:
        import ray

        if isinstance(cause, ray.exceptions.RayActorError):
            # the call of a consumer fails with the death of its producer's actor
            dead = str(getattr(cause, "actor_id", "") or "")
            for i, host in enumerate(self._hosts):
                if dead and dead in str(host.actor._actor_id):
                    return i
            # an actor that has been replaced since: nobody who lives is lost
            return stage if not dead else None
        losses = (
            ray.exceptions.ObjectLostError,
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.LocalRayletDiedError,
            StageLost,
        )
        return stage if isinstance(cause, losses) else None

    def cause(self, error: BaseException) -> BaseException:
        import ray

        # an error among a call's arguments comes wrapped in one RayTaskError for each hop
        while isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
            error = error.cause
        return error

    def close(self) -> None:
        for host in self._hosts:
            host.close()
        self._hosts, self._payloads, self._weights = [], [], []


@functools.cache
def _ray_actor_class() -> Any:
    """StageActor as Ray wants it, its control methods in a concurrency group of their own."""
    import ray

    def control(name: str) -> Any:
        method = getattr(StageActor, name)

        def call(self: Any, *arguments: Any) -> Any:
            return method(self, *arguments)

        call.__name__ = name
        return ray.method(concurrency_group="control")(call)

    names = ("cancel", "release", "export", "held", "ping", "keep_value")
    return type("RayStageActor", (StageActor,), {name: control(name) for name in names})
