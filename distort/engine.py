"""From a model to answers: optimize, plan, lower, run — in this process or on actors.

One engine belongs to one session. Sequential: the whole graph is one program in this process, and neither Ray nor
the scheduler is imported. Parallel: the plan's stages live on actors, and an :class:`Executor` runs over them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from distort.blas import use_threads
from distort.graph import passes, reader
from distort.graph.collecting import uncollected
from distort.graph.errors import ModelError
from distort.graph.functions import expand
from distort.graph.inference import check_strictly, infer
from distort.graph.ir import Graph, Model, Node
from distort.graph.operators import since_version
from distort.graph.validate import check_model
from distort.kernels import registry
from distort.kernels.compiler.choice import check_precision, make_program
from distort.kernels.program import Cancellation, Paths, Program, StepObserver, evaluate

if TYPE_CHECKING:
    from distort.cluster.executor import Executor
    from distort.cluster.orders import StageReport
    from distort.graph.pipeline import Pipeline
    from distort.graph.tensors import ExternalData
    from distort.kernels.compiler.program import CompiledProgram
    from distort.kernels.cuda.copies import Copies
    from distort.parallel import Actors
    from distort.runs import ActorRuns
    from distort.scheduler.plan import Plan


_CUDA = "CUDAExecutionProvider"


@dataclass(slots=True)
class EngineConfig:
    """What a session asks of its engine."""

    parallel: bool = False
    n_actors: int = 0  # inter_op_num_threads; 0: the planner decides
    intra_op_threads: int = 0  # 0: what the device has
    level: str = "all"  # graph optimization: disable, basic, extended, layout, all
    providers: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    #: without the prefix "distort."; and ``keep_qdq``, which is onnxruntime's session.disable_quant_qdq
    distort_keys: dict[str, str] = field(default_factory=dict)
    model_name: str = ""
    disabled_optimizers: frozenset[str] = frozenset()  # by onnxruntime's names
    spin_us: int = 2000  # how long who waits for an actor, or for work, waits awake
    spin_threads: bool = True  # whether threads of one run wait awake for the next
    fold_nbytes: int | None = None  # the largest constant that folding may leave; None: what is reasonable


@dataclass(slots=True)
class RunControl:
    """What a caller may do to a run under way."""

    cancellation: Cancellation | None = None
    timeout_s: float | None = None
    observer: StepObserver | None = None
    on_report: Callable[[StageReport], None] | None = None  # what each stage's execution tells; asks for its events
    only_path_to_fetches: bool = False  # run only the nodes that the fetches depend on
    # of sessions on a GPU of this process
    graph_id: int = 0  # which captured graph of the same shapes; -1: none is captured or replayed
    synchronize: bool = True  # the run returns when the GPU is done; else its results are still being made
    shrink: bool = False  # memory that is not in use goes back to the GPU after the run
    into: Mapping[str, Any] | None = None  # CuPy arrays that results of their names are written to


def has_kernel(domain: str, op_type: str, opset: int) -> bool:
    return registry.find(domain, op_type, opset) is not None


def load_model(
    path_or_bytes: str | os.PathLike[str] | bytes,
    external_folder: str | None = None,
    external: ExternalData | None = None,
    *,
    released_only: bool = True,
    strict_types: bool = False,
    map_weights: bool = False,
) -> Model:
    """Read, check and make runnable: functions without a kernel are replaced by their bodies.

    ``released_only`` refuses opset versions that onnx has not released, ``strict_types`` declared shapes that
    contradict inference. ``map_weights``: large ones are views of the model's file.
    Raises :class:`distort.graph.errors.ModelError`.
    """
    parsed = reader.parse_apart(path_or_bytes, map_weights)
    proto, path = parsed.proto, parsed.path
    try:
        model = reader.read_model(proto, path, external_folder, external, parsed.raw)
        check_model(model, proto, has_kernel, released_only=released_only)
        if strict_types:
            check_strictly(proto)
        expand(model, has_kernel)
        if any(node.op_type == "Gradient" for node in missing_kernels(model.graph)):
            from distort.graph.gradient import expand_gradients

            expand_gradients(model)
            expand(model, has_kernel)
    except ModelError as error:
        if path is not None and not error.text.startswith("Load model"):
            raise ModelError(error.status, f"Load model from {path} failed:{error.text}") from error
        raise
    return model


def missing_kernels(graph: Graph) -> list[Node]:
    """Nodes, those of bodies included, that nothing here can run."""
    missing = [node for node in graph.nodes if not has_kernel(node.domain, node.op_type, node.opset)]
    for node in graph.nodes:
        for body in node.subgraphs():
            missing.extend(missing_kernels(body))
    return missing


@uncollected()
def optimize(
    model: Model, level: str, disabled: frozenset[str] = frozenset(), fold_nbytes: int | None = None
) -> list[str]:
    """Run the graph passes of a level. Returns what they changed, for people."""
    return passes.optimize(model, level, evaluate, disabled, fold_nbytes)


class Engine:
    """A model ready to run. ``model`` is what results from optimization."""

    def __init__(self, model: Model, config: EngineConfig) -> None:
        self.model = model
        self.config = config
        self._pipeline: Pipeline | None = None
        if config.parallel and model.graph.nodes:
            from distort.planning import pin_annotations

            strict = config.distort_keys.get("strict_placement", "0") == "1"
            self._pipeline = pin_annotations(model, config.distort_keys.get("partition", "auto"), strict=strict)
        self.changes = (
            optimize(model, config.level, config.disabled_optimizers, config.fold_nbytes)
            if config.level != "disable"
            else []
        )
        self._program: Program | CompiledProgram | None = None  # in this process
        self._paths = Paths(model.graph, Program)
        self._actors: Actors | None = None
        self._runs: ActorRuns | None = None
        self._plan: Plan | None = None
        self._typed = False
        self._closed = False
        self._unfinished = False  # the last run did not wait for the GPU
        self._copies: Copies | None = None
        graph = model.graph
        _require_kernels(graph)
        keys = config.distort_keys
        check_precision(keys.get("compute_precision", "float32"), keys.get("compile", "1"))
        if config.parallel and graph.nodes:
            from distort.planning import session_plan

            self.infer_types()
            self._plan = session_plan(model, config, self._pipeline)
            if not self._plan.in_process:
                from distort.parallel import Actors

                self._actors = Actors(
                    graph, self._plan, config.distort_keys, config.spin_us, self._leave, config.providers
                )
        if self._actors is None:
            self._program = self._make_program()
            if self.compiled is not None:
                self.compiled.prepare_ahead()

    def _make_program(self) -> Program | CompiledProgram:
        """What runs the model in this process: on a GPU where that is the first of a sequential session's providers, or
        where the plan of a parallel one is a single stage there."""
        config = self.config
        gpu = self._gpu_options()
        if gpu is not None:
            from distort.kernels.cuda.options import CudaOptions
            from distort.kernels.cuda.program import CudaProgram

            on_gpu: Any = CudaProgram(self.model.graph, CudaOptions.read(gpu))
            return on_gpu  # type: ignore[no-any-return]  # it has what a program has
        return make_program(
            self.model.graph,
            n_threads=config.intra_op_threads,
            mode=config.distort_keys.get("compile", "1"),
            spin=config.spin_threads,
            precision=config.distort_keys.get("compute_precision", "float32"),
            keep_qdq=config.distort_keys.get("keep_qdq") == "1",
        )

    def _gpu_options(self) -> Mapping[str, Any] | None:
        """The options of the GPU that this process is to use; None where it is to use none."""
        providers = self.config.providers
        if not self.config.parallel:
            return providers[0][1] if providers and providers[0][0] == _CUDA else None
        plan = self._plan
        if plan is None or not plan.in_process or not plan.stages or plan.stages[0].device.kind != "cuda":
            return None
        device_id = str(plan.stages[0].device.index)
        given = [chosen for name, chosen in providers if name == _CUDA]
        return next((g for g in given if str(g.get("device_id", "0")) == device_id), {"device_id": device_id})

    # -- planning

    def infer_types(self) -> None:
        """Types of all values in ``model.graph.types``, inferred once: what contradicts itself is then unknown."""
        if not self._typed:
            self._typed = True
            infer(self.model)

    @property
    def plan(self) -> Plan:
        """The plan; a sequential session's is one stage in this process, and is made when it is asked for."""
        if self._plan is None:
            from distort.planning import plan_model

            self.infer_types()
            devices = None
            if self.gpu is not None:
                from distort.gpus import devices_here

                devices = devices_here(self.config.providers[:1])
            self._plan = plan_model(
                self.model,
                1,
                threads=self.config.intra_op_threads,
                model_name=self.config.model_name,
                typed=True,
                in_process=True,
                devices=devices,
                providers=self.config.providers,
            )[0]
        return self._plan

    # -- running

    def run(
        self,
        fetches: Sequence[str],
        feeds: Mapping[str, Any],
        *,
        keep: frozenset[str] = frozenset(),
        control: RunControl | None = None,
    ) -> list[Any]:
        """Values in the order of ``fetches``; they may share memory with feeds and weights.

        In parallel mode those in ``keep`` stay on the actors that made them and come back as ``Resident``.
        """
        return self.begin(fetches, feeds, keep=keep, control=control)()

    def begin(
        self,
        fetches: Sequence[str],
        feeds: Mapping[str, Any],
        *,
        keep: frozenset[str] = frozenset(),
        control: RunControl | None = None,
    ) -> Callable[[], list[Any]]:
        """As :meth:`run`, in two steps: on actors the run begins now, and what is returned ends it.

        What is returned must be called. Runs begin in the order of these calls.
        """
        if self._closed:
            from distort.cluster.errors import SessionClosed

            raise SessionClosed("The session is closed.")
        runs = self._on_actors()
        if runs is None:
            return partial(self._run_here, fetches, feeds, control or RunControl(), keep)
        given = self._given(feeds)
        run = runs.plain(fetches, given) if control is None and not keep else None
        if run is not None:
            return lambda: runs.executor.finish(run)[0]
        control = control or RunControl()
        begun = runs.start(fetches, given, keep, control)
        return lambda: self._gathered(fetches, given, runs.finish(begun))

    @property
    def compiled(self) -> CompiledProgram | None:
        """The compiled program of a sequential session that is open."""
        program = self._program
        return (
            None if self._closed or self.parallel or isinstance(program, Program) or self.gpu is not None else program
        )

    def _on_actors(self) -> ActorRuns | None:
        """What runs on actors; None where they aren't there (yet)."""
        if self._actors is None:
            return None
        if self._runs is None:
            executor = self._actors.ready
            if executor is None:
                return None
            from distort.runs import ActorRuns

            self._runs = ActorRuns(self.model.graph, self.plan, self.config.distort_keys, executor)
        return self._runs

    def _given(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Feeds, and the defaults of those that are left out."""
        graph = self.model.graph
        if not graph.defaults:
            return feeds
        given = {name: graph.initializers[name] for name in graph.defaults if feeds.get(name) is None}
        given.update((name, value) for name, value in feeds.items() if value is not None or name not in given)
        return given

    def _gathered(self, fetches: Sequence[str], given: Mapping[str, Any], made: Mapping[str, Any]) -> list[Any]:
        # an output that is a feed or an initializer belongs to no stage
        weights = self.model.graph.initializers
        return [made[name] if name in made else given.get(name, weights.get(name)) for name in fetches]

    def _leave(self) -> None:
        """Nothing more is to run in this process. A run that has begun here still ends here."""
        self._program = None
        self._paths = Paths(self.model.graph, Program)

    def _run_here(
        self, fetches: Sequence[str], feeds: Mapping[str, Any], control: RunControl, keep: frozenset[str] = frozenset()
    ) -> list[Any]:
        program: Program | CompiledProgram | None = self._program
        if program is None:
            # a parallel session's, until its actors are there
            program = self._program = self._make_program()
        use_threads(self.config.intra_op_threads)
        if self.gpu is not None and program is self._program:
            gpu = self.gpu.to(fetches) if control.only_path_to_fetches else self.gpu
            home = [name for name in fetches if name not in keep]
            self._unfinished = not (control.synchronize or home)
            results = gpu.run(
                local_values(feeds),
                control.observer,
                control.cancellation,
                graph_id=control.graph_id,
                synchronize=control.synchronize,
                into=control.into,
                fetches=fetches,
                home=home,
            )
            if control.shrink:
                self.gpu.shrink()
            made: Sequence[str] = gpu.outputs
        else:
            if control.only_path_to_fetches:
                program = self._paths.to(fetches)
            results = program.run(local_values(feeds), control.observer, control.cancellation)
            made = program.outputs
        by_name = dict(zip(made, results, strict=True))
        return [by_name[name] for name in fetches]

    # -- the rest

    @property
    def program(self) -> Program | CompiledProgram | None:
        """What runs the model in this process; None where actors do."""
        return self._program

    @property
    def parallel(self) -> bool:
        """Whether its stages live on actors, be they there already or on their way."""
        return self._actors is not None

    @property
    def executor(self) -> Executor | None:
        """The executor of a parallel session, when its actors are there."""
        return self._actors.wait() if self._actors is not None else None

    @property
    def ready_executor(self) -> Executor | None:
        """As :attr:`executor`; None also while the actors are on their way."""
        return self._actors.ready if self._actors is not None else None

    @property
    def published(self) -> str:
        """Where the metrics of its actors are, for people; nothing where nobody asked for them."""
        publisher = self._actors.publisher if self._actors is not None else None
        return publisher.where if publisher is not None else ""

    @property
    def split_told(self) -> str:
        """Why the last run that had a batch was split into micro-batches, or not; nothing where none had."""
        return self._runs.told_of_split if self._runs is not None else ""

    def transfer_stats(self) -> list[dict[str, Any]]:
        """Bytes and messages by edge since the start; of a sequential session, those to and from its GPU."""
        executor = self.ready_executor
        counted = self._copies if self.gpu is None else self.copies
        copied = counted.rows() if counted is not None else []
        return (executor.transfer_stats() if executor is not None else []) + copied

    # -- of sessions on a GPU of this process

    @property
    def gpu(self) -> Any:
        """The program (a ``CudaProgram``), where it runs on a GPU of this process; None where it doesn't."""
        program = self._program
        return program if program is not None and hasattr(program, "device_id") else None

    @property
    def copies(self) -> Copies:
        """What the session copied between this process and GPUs."""
        if self.gpu is not None:
            counted: Copies = self.gpu.context.copies
            return counted
        if self._copies is None:
            from distort.kernels.cuda.copies import Copies

            self._copies = Copies()
        return self._copies

    def synchronize(self) -> None:
        """Wait for all that the session's stream has yet to do; nothing where there is none."""
        gpu = self.gpu
        if gpu is not None:
            gpu.synchronize()
        self._unfinished = False

    @property
    def pending(self) -> Callable[[], None] | None:
        """What waits for the last run's results, where the run itself didn't."""
        return self.synchronize if self._unfinished else None

    def synchronize_pending(self) -> None:
        """Wait for the last run's results, where the run itself didn't."""
        if self._unfinished:
            self.synchronize()

    def move_on_gpu(self, target: Any, source: Any) -> None:
        """Write a result of the last run into memory of a GPU: in the session's stream, where the run didn't wait."""
        from distort.kernels.cuda import copies

        gpu = self.gpu
        if self._unfinished and gpu is not None and target.device.id == gpu.device_id:
            copies.move(target, source, gpu.stream, wait=False)
            return
        self.synchronize_pending()
        copies.move(target, source)

    def close(self) -> None:
        """End the actors and free the weights. Safe to call twice."""
        self._closed = True
        self.synchronize_pending()  # what runs under way use is about to go
        gpu = self.gpu
        if gpu is not None:
            self._copies = self.copies  # they are told afterwards too
        if self._actors is not None:
            self._actors.close()
        self._leave()
        if gpu is not None:
            with suppress(RuntimeError):  # of CUDA's: a GPU that is lost has nothing to give back
                gpu.close()


def _require_kernels(graph: Graph) -> None:
    for node in missing_kernels(graph):
        raise ModelError(
            "NOT_IMPLEMENTED",
            f"Could not find an implementation for {node.op_type}({since_version(node)}) node with name '{node.name}'",
        )


def local_values(feeds: Mapping[str, Any]) -> Mapping[str, Any]:
    """Values with those that lie on actors brought here."""
    if any(hasattr(value, "fetch") for value in feeds.values()):
        return {name: value.fetch() if hasattr(value, "fetch") else value for name, value in feeds.items()}
    return feeds
