"""The native session: checks as onnxruntime checks, drives an engine, hands out results that are the caller's own."""

from __future__ import annotations

import operator
import threading
import time
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence, Set, ValuesView
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from distort import config_keys, errors, fetches, loading, logs, providers
from distort.engine import RunControl
from distort.enums import ExecutionMode, OrtExecutionProviderDevicePolicy
from distort.feeds import check, convert, read_feeds
from distort.metadata import ModelMetadata, NodeArg
from distort.native.base import native
from distort.native.devices import OrtDevice, OrtMemoryInfo, any_on_gpu, cpu_memory, cuda_memory, is_cuda, on_gpu
from distort.native.values import OrtValue, OrtValueVector
from distort.options import RunOptions, SessionOptions
from distort.quick import QuickRuns

if TYPE_CHECKING:
    from distort.engine import Engine
    from distort.native import hardware
    from distort.native.async_runs import AsyncRuns
    from distort.native.binding import SessionIOBinding

_MAX_SELECTIONS = 8  # devices that a selection delegate may choose
_POLICIES_OF_GPUS = (OrtExecutionProviderDevicePolicy.PREFER_GPU, OrtExecutionProviderDevicePolicy.MAX_PERFORMANCE)
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"

#: the type of names
_TEXT = frozenset([str])
_RUN = (
    "(self: C.InferenceSession, arg0: collections.abc.Sequence[str], arg1: collections.abc.Mapping[str, object], "
    "arg2: C.RunOptions) -> list"
)
_RUN_ASYNC = (
    "(self: C.InferenceSession, arg0: collections.abc.Sequence[str], arg1: collections.abc.Mapping[str, object], arg2: "
    "collections.abc.Callable[[collections.abc.Sequence[object], object, str], None], arg3: object, arg4: "
    "C.RunOptions) -> None"
)


@native
class InferenceSession:
    """A model, and after :meth:`initialize_session` an engine that runs it."""

    def __init__(self, arg0: SessionOptions, arg1: str | bytes, arg2: bool, arg3: bool, /) -> None:
        if not isinstance(arg0, SessionOptions) or not isinstance(arg1, str if arg2 else bytes) or arg1 == "":
            raise errors.incompatible(
                "__init__",
                "C.InferenceSession(arg0: C.SessionOptions, arg1: str, arg2: bool, arg3: bool)",
                *(arg0, arg1 or None, arg2, arg3),
                constructor=True,
            )
        loading.check_options(arg0)
        self._options = arg0._copy()
        self._source = arg1
        self._read_config = arg3
        severity, verbosity = arg0.log_severity_level, arg0.log_verbosity_level
        self._logger = logs.DEFAULT.child(severity, verbosity, arg0.logid)
        self._lock = threading.Lock()
        self._async: AsyncRuns | None = None
        self._quick: QuickRuns | None = None
        self._providers: list[tuple[str, dict[str, str]]] = []

    _loaded: loading.Loaded
    _disabled_optimizers: frozenset[str]

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"cannot pickle '{errors.MODULE}.InferenceSession' object")

    def initialize_session(self, arg0: Sequence[str], arg1: Sequence[Mapping[str, str]], arg2: set[str], /) -> None:
        """Providers, their options, optimizers that are not to run. Raises onnxruntime's exceptions."""
        added = self._options._added_providers if not arg0 else []
        wanted = [*zip(arg0, (dict(o) for o in arg1), strict=False), *added]
        wanted += [(name, {}) for name in arg0[len(arg1) :]]
        options = self._options
        if not wanted and options._policy in _POLICIES_OF_GPUS and not providers.why_no_gpu():
            wanted = [(providers.CUDA, {})]
        parallel = self._is_parallel
        wanted_names, wanted_options = [name for name, _ in wanted], [given for _, given in wanted]
        elsewhere = parallel and options._is_elsewhere()
        usable = providers.usable(wanted_names, wanted_options, parallel=parallel, elsewhere=elsewhere)
        for note in providers.notes(usable):
            self._logger.log(logs.WARNING, f"{note}.")
        if self._logger.severity <= logs.INFO:
            self._logger.log(logs.INFO, f"Initializing session. {options._text()}")
        self._loaded = self._load(usable, frozenset(arg2))
        try:
            if not wanted and options._selection is not None:
                chosen = self._select(options._selection)
                if chosen:  # what the model is made to run on is known only now
                    self._loaded.engine.close()
                    usable = chosen
                    self._loaded = self._load(usable, frozenset(arg2))
            with errors.translated():
                explicit = any(name == providers.CPU for name, _ in wanted)
                if config_keys.refuses_cpu(options._config) or any(name == providers.CUDA for name, _ in usable):
                    from distort import assignment

                    assignment.check(self._loaded.engine, usable, options._config, explicit)
        except BaseException:
            self._loaded.engine.close()
            raise
        self._providers = usable
        self._disabled_optimizers = frozenset(arg2)
        if self._loaded.profiler is not None:
            # a profile that nobody ended is written when the session goes
            weakref.finalize(self, self._loaded.profiler.end)
        self._logger.log(logs.INFO, f"Session successfully initialized on {', '.join(name for name, _ in usable)}.")

    def _load(self, usable: Sequence[tuple[str, dict[str, str]]], disabled: frozenset[str]) -> loading.Loaded:
        options = self._options
        return loading.load(
            self._source,
            options,
            usable,
            options.enable_profiling,
            logger=self._logger,
            read_config=bool(self._read_config),
            disabled_optimizers=disabled,
        )

    def _select(self, choose: Callable[..., Sequence[Any]]) -> list[tuple[str, dict[str, str]]]:
        """Ask the caller's own function which devices to use: providers, where a GPU is among them, else nothing.

        Raises Fail where it chooses none that there is.
        """
        meta = self._loaded.metadata
        told = {
            "producer_name": meta.producer_name,
            "producer_version": self._loaded.engine.model.producer_version,
            "domain": meta.domain,
            "model_version": str(meta.version),
            "doc_string": meta.description,
            "graph_name": meta.graph_name,
            "graph_description": meta.graph_description,
            **meta.custom_metadata_map,
        }
        from distort.native import hardware

        devices = hardware.get_ep_devices()
        chosen = choose(devices, told, {}, _MAX_SELECTIONS)
        if not chosen:
            raise errors.make("FAIL", "EP selection delegate did not select anything.")
        if any(device not in devices for device in chosen):
            raise errors.make("FAIL", "EP selection delegate selected a device that it was not offered.")
        names, given = [device.ep_name for device in chosen], [device.ep_options for device in chosen]
        return providers.usable(names, given, parallel=self._is_parallel) if providers.CUDA in names else []

    @property
    def _is_parallel(self) -> bool:
        return bool(self._options.execution_mode == ExecutionMode.ORT_PARALLEL)

    # -- describing

    @property
    def session_options(self) -> SessionOptions:
        return self._options._copy()

    @property
    def inputs_meta(self) -> list[NodeArg]:
        return self._loaded.inputs

    @property
    def outputs_meta(self) -> list[NodeArg]:
        return self._loaded.outputs

    @property
    def overridable_initializers(self) -> list[NodeArg]:
        """Inputs with a default: fed or not, as the caller likes."""
        return self._loaded.overridable

    @property
    def model_meta(self) -> ModelMetadata:
        return self._loaded.metadata

    @property
    def input_meminfos(self) -> list[OrtMemoryInfo]:
        gpu = self._loaded.engine.gpu
        return [cpu_memory() if gpu is None else cuda_memory(gpu.device_id) for _ in self._loaded.inputs]

    @property
    def output_meminfos(self) -> list[OrtMemoryInfo]:
        gpu = self._loaded.engine.gpu
        return [cpu_memory() if gpu is None else cuda_memory(gpu.device_id) for _ in self._loaded.output_names]

    @property
    def input_epdevices(self) -> list[hardware.OrtEpDevice]:
        from distort.native import hardware

        gpu = self._loaded.engine.gpu
        device = hardware.cpu_provider() if gpu is None else hardware.provider_on_gpu(gpu.device_id)
        return [device for _ in self._loaded.inputs]

    def get_providers(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._providers))

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """By provider; of CUDA for several GPUs, those of the first."""
        return {name: providers.told_options(name, given) for name, given in reversed(self._providers)}

    def get_provider_graph_assignment_info(self) -> list[hardware.OrtEpAssignedSubgraph]:
        """The nodes that run, by provider; a parallel session's by stage."""
        from distort import assignment
        from distort.native import hardware

        if self._options._config.get(_RECORD_ASSIGNMENT) != "1":
            text = f"Session configuration entry '{_RECORD_ASSIGNMENT}' must be set to \"1\" to retrieve EP graph "
            raise errors.make("FAIL", f"{text}assignment information.")
        made = []
        for name, nodes in assignment.groups(self._loaded.engine):
            assigned = [hardware.OrtEpAssignedNode._of(node.name, node.domain, node.op_type) for node in nodes]
            made.append(hardware.OrtEpAssignedSubgraph._of(name, assigned))
        return made

    # -- running

    def run(self, arg0: Sequence[str], arg1: Mapping[str, Any], arg2: RunOptions | None, /) -> list[Any]:
        """Outputs in the order of their names."""
        loaded = self._loaded
        arg0 = _listed(arg0)
        self._check_arguments("run", _RUN, arg0, arg1, arg2)
        values = read_feeds(loaded.specs, arg1)
        results = fetches.to_users(self._execute(loaded, arg0, values, arg2))
        if arg2 is None and self._logger.severity > logs.VERBOSE and loaded.profiler is None:
            self._remember(loaded, arg0, arg1, values, results)
        return results

    def _remember(
        self,
        loaded: loading.Loaded,
        names: Sequence[str],
        feeds: Mapping[str, Any],
        values: Mapping[str, Any],
        results: Sequence[Any],
    ) -> None:
        """Let the next run of such feeds go the short way, where there is one and nothing is to be said about it."""
        program = loaded.engine.compiled
        if program is None or any(not _is_as_given(values.get(name), value) for name, value in feeds.items()):
            return
        if not loaded.fits_declared(names, results):
            return
        run = program.quick(values)
        if run is not None:
            quick = self._quick or QuickRuns(loaded.output_names, program.outputs)
            quick.add(names, values, run, loaded.fits_declared if loaded.declared_shapes else None)
            self._quick = quick

    def run_with_ort_values(
        self, arg0: Mapping[str, OrtValue], arg1: Sequence[str], arg2: RunOptions | None, /
    ) -> list[OrtValue]:
        """Feeds, names of the fetches. On actors, results stay where they were made."""
        arg1 = _listed(arg1)
        self._check_arguments("run_with_ort_values", _RUN, arg1, arg0, arg2)
        return self._run_to_ort_values(arg1, arg0, arg2)

    def run_with_ortvaluevector(
        self,
        arg0: RunOptions | None,
        arg1: Sequence[str],
        arg2: OrtValueVector,
        arg3: Sequence[str],
        arg4: OrtValueVector,
        arg5: Sequence[OrtDevice],
        /,
    ) -> None:
        """Options, names and values of the feeds, names of the fetches, where they are appended, their devices.

        Results of a session on a GPU stay there where the device is one, and are copied to the host where not.
        """
        values = dict(zip(arg1, arg2, strict=True))
        names = list(arg3)
        places = [place for place in arg5 or () if isinstance(place, OrtDevice)]
        keep = frozenset(name for name, place in zip(names, places, strict=False) if is_cuda(place))
        for value in self._run_to_ort_values(names, values, arg0, keep):
            arg4.push_back(value)

    def run_async(
        self,
        arg0: Sequence[str],
        arg1: Mapping[str, Any],
        arg2: Callable[[list[Any], Any, str], None],
        arg3: Any,
        arg4: RunOptions | None,
        /,
    ) -> None:
        """As :meth:`run`, on another thread, which then calls ``callback(results, user_data, error)``.

        ``error`` is empty where all went well. Feeds that can't be converted raise here.
        """
        loaded = self._loaded
        arg0 = _listed(arg0)
        self._check_arguments("run_async", _RUN_ASYNC, arg0, arg1, arg4)
        if not callable(arg2):
            raise errors.incompatible("run_async", _RUN_ASYNC, self, arg0, arg1, arg2, arg3, arg4)
        converted = {k: convert(v, k, loaded.specs.get(k)) for k, v in arg1.items() if v is not None}

        def job(begun: Callable[[], None]) -> list[Any]:
            check(loaded.specs, converted)
            loaded.check_fetches(arg0, " ")
            values = {name: value for name, (value, _) in converted.items()}
            return fetches.to_users(self._execute(loaded, arg0, values, arg4, begun=begun))

        with self._lock:
            if self._async is None or not self._async.usable:
                from distort.native.async_runs import AsyncRuns

                # a caller may be two rounds ahead of the actors
                most = int(self._options._config.get("distort.max_in_flight", "8"))
                self._async = AsyncRuns(most, 2 * most) if loaded.engine.parallel else AsyncRuns()
            runs = self._async
        runs.submit(job, lambda results, text: arg2(results, arg3, text))

    def run_with_iobinding(self, arg0: SessionIOBinding, arg1: RunOptions | None, /) -> None:
        """Run over what is bound. Errors are RuntimeError, as in onnxruntime."""
        arg0._run(arg1)

    def _check_arguments(
        self,
        function: str,
        signature: str,
        names: Sequence[str],
        feeds: Mapping[str, Any],
        run_options: RunOptions | None,
    ) -> None:
        """Raises TypeError."""
        if (
            run_options is None
            and type(names) is list
            and type(feeds) is dict
            and _TEXT.issuperset(map(type, names))
            and _TEXT.issuperset(map(type, feeds))
        ):
            return
        if (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or not all(isinstance(name, str) for name in names)
            or not all(isinstance(name, str) for name in feeds)
            or not (run_options is None or isinstance(run_options, RunOptions))
        ):
            raise errors.incompatible(function, signature, self, names, feeds, run_options)

    def _run_to_ort_values(
        self,
        names: Sequence[str],
        given: Mapping[str, OrtValue],
        run_options: RunOptions | None,
        on_device: frozenset[str] = frozenset(),
    ) -> list[OrtValue]:
        """Results on actors stay there, those of ``on_device`` on the session's GPU."""
        loaded = self._loaded
        values = read_feeds(loaded.specs, given)
        keep = frozenset(names) if loaded.engine.parallel else on_device
        results = self._execute(loaded, names, values, run_options, keep)
        types = loaded.engine.model.graph.types
        found = [fetches.to_ort_value(results, i, types.get(name)) for i, name in enumerate(names)]
        for name, value in zip(names, found, strict=True):
            if on_gpu(value._value):
                value._told = partial(loaded.engine.copies.count, name)
                value._settle = loaded.engine.pending
        return found

    def _execute(
        self,
        loaded: loading.Loaded,
        names: Sequence[str],
        values: Mapping[str, Any],
        run_options: RunOptions | None,
        keep: frozenset[str] = frozenset(),
        begun: Callable[[], None] | None = None,
        into: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """Values of a run, as the engine returns them. Raises onnxruntime's exceptions.

        ``begun`` is called when the run has begun, and later ones come after it. ``into``: memory of the session's GPU
        for results by name.
        """
        loaded.check_fetches(names)
        if any_on_gpu(values.values()) and loaded.engine.gpu is None:
            from distort.native import gpu_runs

            values = gpu_runs.from_gpus(loaded, values)
        if run_options is not None and run_options._adapters:
            adapters = reversed(run_options._adapters)  # the first one wins
            parameters = {name: value for adapter in adapters for name, value in adapter._parameters.items()}
            values = {**values, **read_feeds(loaded.specs, parameters)}
        if len(values) < len(loaded.specs) and (missing := loaded.missing(values)) is not None:
            self._logger.log(logs.ERROR, errors.text_of(missing))
            raise missing
        profiler = loaded.profiler
        control = None
        if run_options is not None or profiler is not None or into:
            control = RunControl(into=into)
            if profiler is not None:
                control.observer, control.on_report = profiler.observe, profiler.report
            if run_options is not None:
                _apply(run_options, control, loaded.engine)
                if run_options._config and loaded.engine.parallel:
                    self._tell_idle(run_options)
        logger = self._logger if run_options is None else self._logger_of(run_options)
        logger.log(logs.VERBOSE, "Begin execution")
        start_ns = time.time_ns() if profiler is not None else 0
        try:
            finish = loaded.engine.begin(names, values, keep=keep, control=control)
            if begun is not None:
                begun()
            results = finish()
            if loaded.engine.gpu is not None:
                from distort.native import gpu_runs

                results = gpu_runs.settle(loaded.engine, names, values, results, keep)
        except Exception as error:
            ours = errors.translate(error)
            if ours is None:
                raise
            logger.log(logs.ERROR, errors.text_of(ours))
            raise ours from error
        else:
            if loaded.declared_shapes and logger.severity <= logs.WARNING:
                loaded.verify_shapes(names, results)
            logger.log(logs.VERBOSE, "Done execution")
            return results
        finally:
            if profiler is not None:
                profiler.end_run(loaded.executor_name, start_ns, time.time_ns())

    def _tell_idle(self, options: RunOptions) -> None:
        """Say what of a run's options actors on GPUs don't obey."""
        if any(name == providers.CUDA for name, _ in self._providers):
            for name in ("gpu_graph_id", "disable_synchronize_execution_providers"):
                if options._config.get(name, "0") != "0":
                    text = f"Run config key '{name}' has no effect: the session's GPUs are those of its actors."
                    self._logger.log(logs.WARNING, text)

    def _logger_of(self, options: RunOptions) -> logs.Logger:
        own = self._options.logid
        logid = f"{own}:{options.logid}" if own and options.logid else own or options.logid
        return self._logger.child(options.log_severity_level, options.log_verbosity_level, logid)

    # -- profiling

    def end_profiling(self) -> str:
        """Write the profile; its path, or nothing where there is none to write."""
        profiler = self._loaded.profiler
        return profiler.end() if profiler is not None else ""

    @property
    def get_profiling_start_time_ns(self) -> int:
        """On the clock of ``time.time_ns()``; 0 where profiling is off."""
        profiler = self._loaded.profiler
        return profiler.start_ns if profiler is not None else 0

    # -- the rest

    def create_ortvalue_from_shape_and_type(self, arg0: Sequence[int], arg1: Any, arg2: OrtDevice, /) -> OrtValue:
        return OrtValue.ortvalue_from_shape_and_type(arg0, arg1, arg2)

    def create_ortvalue_from_shape_and_onnx_type(self, arg0: Sequence[int], arg1: int, arg2: OrtDevice, /) -> OrtValue:
        return OrtValue.ortvalue_from_shape_and_onnx_type(arg0, arg1, arg2)

    def release_captured_graph(self, arg0: int, /) -> None:
        """Forget the graphs that were captured on a GPU for ``gpu_graph_id``; on the CPU none is."""
        gpu = self._loaded.engine.gpu
        if gpu is not None:
            gpu.release_graphs(operator.index(arg0))

    def is_webgpu_graph_capture_enabled(self) -> bool:
        return False

    def webgpu_context_id(self) -> int:
        """-1: there is no WebGPU."""
        return -1

    def set_ep_dynamic_options(self, arg0: dict[str, str], /) -> None:
        """No provider here has any; onnxruntime's CPU provider ignores them too."""
        if not arg0:
            raise RuntimeError("No options were provided")

    def get_tuning_results(self) -> list[Any]:
        """Nothing: what ``tunable_op_tuning_enable`` found is the process's, and found anew by the next one."""
        return []

    def set_tuning_results(self, arg0: Sequence[Any], arg1: bool, /) -> None:
        """Nothing is taken, as nothing is given."""

    def _close(self) -> None:
        """End the session's actors and free its weights; safe to call twice. A run afterwards raises."""
        with self._lock:
            runs, self._async = self._async, None
        if runs is not None:
            runs.close()
        self.end_profiling()
        self._quick = None
        self._loaded.engine.close()


def _is_as_given(value: Any, given: Any) -> bool:
    """Whether a feed was taken as it is, or is text, which becomes objects."""
    return value is given or (type(given) is type(value) is np.ndarray and given.dtype.kind in "OU")


def _listed(names: Any) -> Any:
    """Names as a list, of what onnxruntime takes for one: sets, keys, generators and arrays too."""
    if isinstance(names, (list, tuple)):
        return names
    return list(names) if isinstance(names, (Set, ValuesView, Generator, map, np.ndarray)) else names


def _apply(options: RunOptions, control: RunControl, engine: Engine) -> None:
    """Run options into the engine's terms. Raises Fail and InvalidArgument."""
    severity = options.log_severity_level
    if not -1 <= severity <= 4:
        text = f"Invalid run log severity level. Not a valid onnxruntime::logging::Severity value: {severity}"
        raise errors.make("FAIL", text)
    entries = options._config
    if entries:
        arenas = {"": False, "cpu:0": False}  # which of a session's arenas shrink
        if engine.gpu is not None:
            arenas[f"gpu:{engine.gpu.device_id}"] = True
        for device in entries.get("memory.enable_memory_arena_shrinkage", "").split(";"):
            if device not in arenas:
                text = "Did not find an arena based allocator registered for device-id combination in the memory arena "
                raise errors.make("INVALID_ARGUMENT", f"{text}shrink list: {device}")
            control.shrink |= arenas[device]
        graph_id = entries.get("gpu_graph_id", "0")
        if not graph_id.removeprefix("-").isdecimal():
            raise errors.make("INVALID_ARGUMENT", f"Failed to parse the cuda graph annotation id: {graph_id}")
        control.graph_id = int(graph_id)
        control.synchronize = entries.get("disable_synchronize_execution_providers") != "1"
    control.cancellation = options._cancellation()
    control.only_path_to_fetches = options.only_execute_path_to_fetches
