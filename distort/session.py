"""InferenceSession: checks as onnxruntime checks, drives an Engine, hands out results that nobody else holds."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from distort import errors, fetches, loading, providers
from distort.engine import RunControl
from distort.enums import OrtAllocatorType, OrtMemType
from distort.feeds import check, convert, read_feeds
from distort.metadata import ModelMetadata, NodeArg
from distort.options import RunOptions, SessionOptions
from distort.ortvalue import OrtValue, OrtValueVector

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from distort.devices import OrtMemoryInfo
    from distort.iobinding import IOBinding
    from distort.scheduler.plan import Plan

#: runs of run_async at once; an engine on actors keeps no more in flight unless distort.max_in_flight says so
_ASYNC_THREADS = 8
_ASYNC_NAME = "distort-async"

_RUN = (
    "(self: C.InferenceSession, arg0: collections.abc.Sequence[str], arg1: collections.abc.Mapping[str, object], "
    "arg2: C.RunOptions) -> list"
)
_RUN_ASYNC = (
    "(self: C.InferenceSession, arg0: collections.abc.Sequence[str], arg1: collections.abc.Mapping[str, object], arg2: "
    "collections.abc.Callable[[collections.abc.Sequence[object], object, str], None], arg3: object, arg4: "
    "C.RunOptions) -> None"
)


class Session:
    """What a session can do once it is there. :class:`InferenceSession` makes one."""

    _loaded: loading.Loaded
    _sess_options: SessionOptions
    _providers: list[str]
    _provider_options: dict[str, dict[str, str]]

    def __init__(self, enable_fallback: bool = True) -> None:
        self._enable_fallback = enable_fallback
        self._fallback_providers = [providers.CPU]
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    # -- describing

    def get_session_options(self) -> SessionOptions:
        return self._sess_options._copy()

    def get_inputs(self) -> list[NodeArg]:
        return self._loaded.inputs

    def get_outputs(self) -> list[NodeArg]:
        return self._loaded.outputs

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Inputs with a default: fed or not, as the caller likes."""
        return self._loaded.overridable

    def get_modelmeta(self) -> ModelMetadata:
        return self._loaded.metadata

    def get_providers(self) -> list[str]:
        return list(self._providers)

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {name: dict(options) for name, options in self._provider_options.items()}

    def get_input_memory_infos(self) -> list[OrtMemoryInfo]:
        return [_cpu_memory() for _ in self.get_inputs()]

    def get_output_memory_infos(self) -> list[OrtMemoryInfo]:
        return [_cpu_memory() for _ in self.get_outputs()]

    @property
    def plan(self) -> Plan:
        """Which nodes run in which stage, where, and why."""
        with errors.translated():
            return self._loaded.engine.plan

    def get_transfer_stats(self) -> list[dict[str, Any]]:
        """Bytes and messages that moved since the start, by value, producing and consuming stage (-1: here)."""
        return self._loaded.engine.transfer_stats()

    # -- running

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: RunOptions | None = None
    ) -> list[Any]:
        """Compute outputs (None or nothing: all of them), in the order of ``output_names``.

        Feeds are arrays, OrtValues, lists (tensors and sequences) or dicts (maps). Results are the caller's own.
        """
        loaded = self._loaded
        names = self._check_arguments("run", _RUN, output_names, input_feed, run_options)
        values = read_feeds(loaded.specs, input_feed)
        return fetches.to_users(self._execute(loaded, names, values, run_options))

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """As :meth:`run`, over OrtValues; on actors, results stay where they were made."""
        names = self._check_arguments("run_with_ort_values", _RUN, output_names, input_dict_ort_values, run_options)
        values = {name: value._get_c_value() for name, value in input_dict_ort_values.items()}
        return self._run_to_ort_values(names, values, run_options)

    def run_with_ortvaluevector(
        self,
        run_options: RunOptions | None,
        feed_names: Sequence[str],
        feeds: OrtValueVector,
        fetch_names: Sequence[str],
        fetches: OrtValueVector,
        fetch_devices: Sequence[Any],
    ) -> None:
        """As :meth:`run_with_ort_values`; results are appended to ``fetches``."""
        values = dict(zip(feed_names, feeds, strict=True))
        for value in self._run_to_ort_values(list(fetch_names), values, run_options):
            fetches.push_back(value)

    def run_async(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        callback: Callable[[list[Any], Any, str], None],
        user_data: Any,
        run_options: RunOptions | None = None,
    ) -> None:
        """As :meth:`run`, on another thread, which then calls ``callback(results, user_data, error)``.

        ``error`` is empty where all went well. Feeds that can't be converted raise here.
        """
        loaded = self._loaded
        names = self._check_arguments("run_async", _RUN_ASYNC, output_names, input_feed, run_options)
        if not callable(callback):
            raise errors.incompatible(
                "run_async", _RUN_ASYNC, self, names, input_feed, callback, user_data, run_options
            )
        converted = {k: convert(v, k, loaded.specs.get(k)) for k, v in input_feed.items() if v is not None}

        def job() -> None:
            try:
                check(loaded.specs, converted)
                loaded.check_fetches(names, " ")
                values = {name: value for name, (value, _) in converted.items()}
                results = fetches.to_users(self._execute(loaded, names, values, run_options))
            except Exception as error:  # noqa: BLE001  # the callback is told, whatever it is
                callback([], user_data, errors.text_of(error))
            else:
                callback(results, user_data, "")

        with self._lock:
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(_ASYNC_THREADS, thread_name_prefix=_ASYNC_NAME)
            self._pool.submit(job)

    def io_binding(self) -> IOBinding:
        """A new binding of this session's inputs and outputs to memory."""
        from distort.iobinding import IOBinding

        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Run over what is bound. Errors are RuntimeError, as in onnxruntime."""
        if iobinding._session is not self or iobinding._loaded is not self._loaded:
            raise ValueError("IOBinding must be used with the session that created it.")
        iobinding._run(run_options)

    def _check_arguments(
        self,
        function: str,
        signature: str,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, Any],
        run_options: RunOptions | None,
    ) -> Sequence[str]:
        """The names of the fetches. Raises ValueError for missing feeds, then TypeError."""
        loaded = self._loaded
        given = input_feed.keys()
        missing = [name for name in loaded.required if name not in given]
        if missing:
            raise ValueError(f"Required inputs ({missing}) are missing from input feed ({list(given)}).")
        names = output_names or loaded.output_names
        if (
            isinstance(names, str)
            or not isinstance(names, Sequence)
            or not all(isinstance(name, str) for name in names)
            or not all(isinstance(name, str) for name in given)
            or not (run_options is None or isinstance(run_options, RunOptions))
        ):
            raise errors.incompatible(function, signature, self, names, input_feed, run_options)
        return names

    def _run_to_ort_values(
        self, names: Sequence[str], given: Mapping[str, OrtValue], run_options: RunOptions | None
    ) -> list[OrtValue]:
        loaded = self._loaded
        values = read_feeds(loaded.specs, given)
        keep = frozenset(names) if loaded.engine.parallel else frozenset()
        results = self._execute(loaded, names, values, run_options, keep)
        types = loaded.engine.model.graph.types
        return [fetches.to_ort_value(results, i, types.get(name)) for i, name in enumerate(names)]

    def _execute(
        self,
        loaded: loading.Loaded,
        names: Sequence[str],
        values: Mapping[str, Any],
        run_options: RunOptions | None,
        keep: frozenset[str] = frozenset(),
    ) -> list[Any]:
        """Values of a run, as the engine returns them. Raises onnxruntime's exceptions."""
        loaded.check_fetches(names)
        if len(values) < len(loaded.specs) and (missing := loaded.missing(values)) is not None:
            raise missing
        profiler = loaded.profiler
        control = None
        if run_options is not None or profiler is not None:
            control = RunControl(observer=profiler.observe if profiler is not None else None)
            if run_options is not None:
                _apply(run_options, control)
        start_ns = time.time_ns() if profiler is not None else 0
        try:
            return loaded.engine.run(names, values, keep=keep, control=control)
        except Exception as error:
            ours = errors.translate(error)
            if ours is None:
                raise
            raise ours from error
        finally:
            if profiler is not None:
                end_ns = time.time_ns()
                profiler.add("Session", "SequentialExecutor::Execute", start_ns, end_ns)
                profiler.add("Session", "model_run", start_ns, end_ns)

    # -- profiling

    def end_profiling(self) -> str:
        """Write the profile; its path, or nothing where there is none to write."""
        profiler = self._loaded.profiler
        return profiler.end() if profiler is not None else ""

    def get_profiling_start_time_ns(self) -> int:
        """On the clock of ``time.time_ns()``; 0 where profiling is off."""
        profiler = self._loaded.profiler
        return profiler.start_ns if profiler is not None else 0

    # -- the rest

    def set_providers(
        self,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
    ) -> None:
        """Make the session anew on other providers; bindings made before are of no use afterwards."""
        self._create(providers, provider_options)

    def disable_fallback(self) -> None:
        """Errors about providers raise, instead of falling back to the CPU."""
        self._enable_fallback = False

    def enable_fallback(self) -> None:
        """A session whose providers can't be used falls back to the CPU."""
        self._enable_fallback = True

    def create_ortvalue_from_shape_and_type(
        self, shape: Sequence[int], element_type: Any, device_type: str, device_id: int = 0, vendor_id: int = -1
    ) -> OrtValue:
        return OrtValue.ortvalue_from_shape_and_type(shape, element_type, device_type, device_id, vendor_id)

    def release_captured_graph(self, graph_annotation_id: int = 0) -> None:
        """Nothing to do: no graph is captured on the CPU."""

    def set_ep_dynamic_options(self, options: dict[str, str]) -> None:
        if not options:
            raise RuntimeError("No options were provided")

    def get_tuning_results(self) -> list[Any]:
        """No provider here tunes."""
        return []

    def set_tuning_results(self, results: Sequence[Any], *, error_on_invalid: bool = False) -> None:
        """No provider here tunes."""

    def close(self) -> None:
        """End the session's actors and free its weights; safe to call twice. A run afterwards raises."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            # a callback may close its session; its own thread can't be waited for
            pool.shutdown(wait=not threading.current_thread().name.startswith(_ASYNC_NAME))
        self.end_profiling()
        self._loaded.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(f"cannot pickle '{errors.MODULE}.InferenceSession' object")

    def __copy__(self) -> Self:
        """Another name for the same running model."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def _create(
        self,
        wanted: Sequence[str | tuple[str, dict[Any, Any]]] | None,
        provider_options: Sequence[dict[Any, Any]] | None,
    ) -> None:
        raise TypeError("A Session is made by InferenceSession")


class InferenceSession(Session):
    """A model ready to run.

    ``sess_options.execution_mode = ORT_PARALLEL`` puts its stages on actors; otherwise it runs in this process.
    """

    def __init__(
        self,
        path_or_bytes: str | bytes | os.PathLike[str],
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(enable_fallback=int(kwargs.get("enable_fallback", 1)) == 1)
        self._model_path: str | None = None
        self._model_bytes: bytes | None = None
        if isinstance(path_or_bytes, (str, os.PathLike)):
            self._model_path = os.fspath(path_or_bytes)
        elif isinstance(path_or_bytes, bytes):
            self._model_bytes = path_or_bytes
        else:
            raise TypeError(f"Unable to load from type '{type(path_or_bytes)}'")
        options = SessionOptions() if sess_options is None else sess_options
        if not isinstance(options, SessionOptions) or self._model_path == "":
            raise errors.incompatible(
                "__init__",
                "C.InferenceSession(arg0: C.SessionOptions, arg1: str, arg2: bool, arg3: bool)",
                options,
                self._model_path or self._model_bytes,
                bool(self._model_path),
                False,
                constructor=True,
            )
        self._sess_options = options._copy()
        self._sess_options_initial = sess_options
        try:
            self._create(providers, provider_options)
        except (ValueError, RuntimeError) as error:
            if not self._enable_fallback:
                raise
            print("*************** EP Error ***************")
            print(f"EP Error {error} when using {providers}")
            print(f"Falling back to {self._fallback_providers} and retrying.")
            print("****************************************")
            self._create(self._fallback_providers, None)
            self.disable_fallback()

    def _create(
        self,
        wanted: Sequence[str | tuple[str, dict[Any, Any]]] | None,
        provider_options: Sequence[dict[Any, Any]] | None,
    ) -> None:
        here = providers.available_providers()
        names, chosen = providers.check_and_normalize_provider_args(wanted, provider_options, here)
        added = self._sess_options._added_providers if not names else []
        usable = providers.usable([*names, *(n for n, _ in added)], [*chosen, *(o for _, o in added)])
        source = self._model_path if self._model_bytes is None else self._model_bytes
        assert source is not None
        before: loading.Loaded | None = self.__dict__.get("_loaded")
        self._loaded = loading.load(source, self._sess_options, usable, self._sess_options.enable_profiling)
        self._providers = [name for name, _ in usable]
        self._provider_options = dict(usable)
        if before is not None:
            before.engine.close()
        if self._loaded.profiler is not None:
            # a profile that nobody ended is written when the session goes
            weakref.finalize(self, self._loaded.profiler.end)


def _apply(options: RunOptions, control: RunControl) -> None:
    """Run options into the engine's terms. Raises Fail and InvalidArgument."""
    severity = options.log_severity_level
    if not -1 <= severity <= 4:
        text = f"Invalid run log severity level. Not a valid onnxruntime::logging::Severity value: {severity}"
        raise errors.make("FAIL", text)
    for device in options._config.get("memory.enable_memory_arena_shrinkage", "").split(";"):
        if device not in ("", "cpu:0"):
            text = "Did not find an arena based allocator registered for device-id combination in the memory arena "
            raise errors.make("INVALID_ARGUMENT", f"{text}shrink list: {device}")
    control.cancellation = options._cancellation()


def _cpu_memory() -> OrtMemoryInfo:
    from distort.devices import OrtMemoryInfo

    return OrtMemoryInfo("Cpu", OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, OrtMemType.DEFAULT)
