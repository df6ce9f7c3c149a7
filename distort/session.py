"""InferenceSession as users make and hold it: a native session, its providers, and what to fall back to."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from distort import errors, providers
from distort.enums import ExecutionMode
from distort.native import session as native
from distort.native.base import public
from distort.ortvalue import OrtValue

if TYPE_CHECKING:
    from distort.iobinding import IOBinding
    from distort.metadata import ModelMetadata, NodeArg
    from distort.native.devices import OrtMemoryInfo
    from distort.native.hardware import OrtEpAssignedSubgraph, OrtEpDevice
    from distort.native.values import OrtValueVector
    from distort.options import RunOptions, SessionOptions
    from distort.scheduler.plan import Plan


@public
class Session:
    """What a session can do once it is there. :class:`InferenceSession` makes one."""

    _sess: native.InferenceSession
    _model_path: str | None
    _model_bytes: bytes | None

    def __init__(self, enable_fallback: bool = True) -> None:
        self._enable_fallback = enable_fallback
        self._fallback_providers = [providers.CPU]
        self._from_model_package = False

    # -- describing

    def get_session_options(self) -> SessionOptions:
        return self._sess.session_options

    def get_inputs(self) -> list[NodeArg]:
        return self._sess.inputs_meta

    def get_outputs(self) -> list[NodeArg]:
        return self._sess.outputs_meta

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Inputs with a default: fed or not, as the caller likes."""
        return self._sess.overridable_initializers

    def get_modelmeta(self) -> ModelMetadata:
        return self._sess.model_meta

    def get_input_memory_infos(self) -> list[OrtMemoryInfo]:
        return self._sess.input_meminfos

    def get_output_memory_infos(self) -> list[OrtMemoryInfo]:
        return self._sess.output_meminfos

    def get_input_epdevices(self) -> list[OrtEpDevice]:
        """The provider that takes each input, and its processor."""
        return self._sess.input_epdevices

    def get_providers(self) -> list[str]:
        return self._sess.get_providers()

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return self._sess.get_provider_options()

    def get_provider_graph_assignment_info(self) -> list[OrtEpAssignedSubgraph]:
        """The nodes that run, by provider and stage; needs session.record_ep_graph_assignment_info=1."""
        return self._sess.get_provider_graph_assignment_info()

    @property
    def plan(self) -> Plan:
        """Which nodes run in which stage, where, and why."""
        with errors.translated():
            return self._sess._loaded.engine.plan

    def get_transfer_stats(self) -> list[dict[str, Any]]:
        """Bytes and messages that moved since the start, by value, producing and consuming stage (-1: here)."""
        return self._sess._loaded.engine.transfer_stats()

    def explain(self) -> str:
        """The plan's explanation, and what was measured since: runs, busy actors, bytes by edge, restarts.

        Of a session in this process: what of the model is compiled, and what NumPy kernels run, and why.
        """
        engine = self._sess._loaded.engine
        text = self.plan.explain()
        if not engine.parallel:
            from distort import explanation

            told = "It runs in this process: no actor is asked, nothing crosses."
            if engine.gpu is not None:
                told = "It runs in this process and on its GPU: no actor is asked."
            return f"{text}\n\n{told}\n\n{explanation.of_program(engine)}"
        with errors.translated():
            executor = engine.ready_executor
        if executor is None:
            return f"{text}\n\nIts actors are on their way; until they are there, it runs in this process."
        from distort import explanation

        told = explanation.explain(executor.activity(), engine.plan)
        if engine.split_told:
            told += f"\n  the last batch: {engine.split_told}"
        if engine.published:
            told += f"\n  metrics {engine.published}"
        return f"{text}\n\n{told}"

    # libraries read these

    @property
    def _inputs_meta(self) -> list[NodeArg]:
        return self._sess.inputs_meta

    @property
    def _outputs_meta(self) -> list[NodeArg]:
        return self._sess.outputs_meta

    @property
    def _overridable_initializers(self) -> list[NodeArg]:
        return self._sess.overridable_initializers

    @property
    def _model_meta(self) -> ModelMetadata:
        return self._sess.model_meta

    @property
    def _providers(self) -> list[str]:
        return self._sess.get_providers()

    @property
    def _provider_options(self) -> dict[str, dict[str, str]]:
        return self._sess.get_provider_options()

    @property
    def _sess_options(self) -> SessionOptions:
        return self._sess.session_options

    # -- running

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: RunOptions | None = None
    ) -> list[Any]:
        """Compute outputs (None or nothing: all of them), in the order of ``output_names``.

        Feeds are arrays, OrtValues, lists (tensors and sequences) or dicts (maps). Results are the caller's own.
        """
        sess = self._sess
        if run_options is None and sess._quick is not None:
            results = sess._quick.run(output_names, input_feed)
            if results is not None:
                return results
        self._require_inputs(input_feed)
        return sess.run(output_names or sess._loaded.output_names, input_feed, run_options)

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: RunOptions | None = None,
    ) -> list[OrtValue]:
        """As :meth:`run`, over OrtValues; on actors, results stay where they were made."""
        sess = self._sess
        self._require_inputs(input_dict_ort_values)
        values = {name: value._get_c_value() for name, value in input_dict_ort_values.items()}
        results = sess.run_with_ort_values(values, output_names or sess._loaded.output_names, run_options)
        return [OrtValue(value, session=sess) for value in results]

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
        self._sess.run_with_ortvaluevector(run_options, feed_names, feeds, fetch_names, fetches, fetch_devices)

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
        sess = self._sess
        self._require_inputs(input_feed)
        sess.run_async(output_names or sess._loaded.output_names, input_feed, callback, user_data, run_options)

    def io_binding(self) -> IOBinding:
        """A new binding of this session's inputs and outputs to memory."""
        from distort.iobinding import IOBinding

        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: RunOptions | None = None) -> None:
        """Run over what is bound. Errors are RuntimeError, as in onnxruntime."""
        if iobinding._session is not self._sess:
            raise ValueError("IOBinding must be used with the session that created it.")
        self._sess.run_with_iobinding(iobinding._iobinding, run_options)

    def _require_inputs(self, input_feed: Mapping[str, Any]) -> None:
        given = input_feed.keys()
        for name in self._sess._loaded.required:
            if name not in given:
                missing = [name for name in self._sess._loaded.required if name not in given]
                raise ValueError(f"Required inputs ({missing}) are missing from input feed ({list(given)}).")

    # -- profiling

    def end_profiling(self) -> str:
        """Write the profile; its path, or nothing where there is none to write."""
        return self._sess.end_profiling()

    def get_profiling_start_time_ns(self) -> int:
        """On the clock of ``time.time_ns()``; 0 where profiling is off."""
        return self._sess.get_profiling_start_time_ns

    # -- the rest

    def set_providers(
        self,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
    ) -> None:
        """Make the session anew on other providers; bindings made before are of no use afterwards."""
        before = self._sess
        self._create(providers, provider_options)
        before._close()

    def disable_fallback(self) -> None:
        """Errors about providers raise, instead of falling back to the CPU."""
        self._enable_fallback = False

    def enable_fallback(self) -> None:
        """A session whose providers can't be used falls back to the CPU."""
        self._enable_fallback = True

    def create_ortvalue_from_shape_and_type(
        self, shape: Sequence[int], element_type: Any, device_type: str, device_id: int = 0, vendor_id: int = -1
    ) -> OrtValue:
        made = OrtValue.ortvalue_from_shape_and_type(shape, element_type, device_type, device_id, vendor_id)
        return OrtValue(made._get_c_value(), session=self._sess)

    def release_captured_graph(self, graph_annotation_id: int = 0) -> None:
        self._sess.release_captured_graph(graph_annotation_id)

    def set_ep_dynamic_options(self, options: dict[str, str]) -> None:
        self._sess.set_ep_dynamic_options(options)

    def get_tuning_results(self) -> list[Any]:
        return self._sess.get_tuning_results()

    def set_tuning_results(self, results: Sequence[Any], *, error_on_invalid: bool = False) -> None:
        self._sess.set_tuning_results(results, error_on_invalid)

    def close(self) -> None:
        """End the session's actors and free its weights; safe to call twice. A run afterwards raises."""
        self._sess._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __copy__(self) -> Self:
        """Another name for the same running model."""
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def _create(
        self,
        wanted: Sequence[str | tuple[str, dict[Any, Any]]] | None,
        provider_options: Sequence[dict[Any, Any]] | None,
        disabled_optimizers: Any = None,
    ) -> None:
        raise TypeError("A Session is made by InferenceSession")


@public
class InferenceSession(Session):
    """A model ready to run.

    ``sess_options.execution_mode = ORT_PARALLEL`` puts its stages on actors; otherwise it runs in this process.
    Pickled, it is made anew where it is read: from the same path, or from the same bytes.
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
        self._model_path = None
        self._model_bytes = None
        if isinstance(path_or_bytes, (str, os.PathLike)):
            self._model_path = os.fspath(path_or_bytes)
        elif isinstance(path_or_bytes, bytes):
            self._model_bytes = path_or_bytes
        else:
            raise TypeError(f"Unable to load from type '{type(path_or_bytes)}'")
        self._sess_options_initial = sess_options
        read_config = kwargs.get("read_config_from_model", os.environ.get("ORT_LOAD_CONFIG_FROM_MODEL") == "1")
        self._read_config_from_model = int(read_config) == 1
        try:
            self._create(providers, provider_options, kwargs.get("disabled_optimizers"))
        except (ValueError, RuntimeError) as error:
            if not self._enable_fallback:
                raise
            print("*************** EP Error ***************")
            print(f"EP Error {error} when using {providers}")
            print(f"Falling back to {self._fallback_providers} and retrying.")
            print("****************************************")
            try:
                self._create(self._fallback_providers, None)
            except Exception as again:
                raise again from error
            self.disable_fallback()

    def _create(
        self,
        wanted: Sequence[str | tuple[str, dict[Any, Any]]] | None,
        provider_options: Sequence[dict[Any, Any]] | None,
        disabled_optimizers: Any = None,
    ) -> None:
        options: Any = self._sess_options_initial
        mode = getattr(options, "execution_mode", ExecutionMode.ORT_SEQUENTIAL)
        parallel = mode == ExecutionMode.ORT_PARALLEL
        elsewhere = parallel and options._is_elsewhere()
        names, chosen = providers.normalize(wanted, provider_options, several_gpus=parallel, elsewhere=elsewhere)
        if options is None:
            from distort.options import SessionOptions

            options = SessionOptions()
        elif names and getattr(options, "_added_providers", None):
            warnings.warn(
                "Specified 'providers'/'provider_options' when creating InferenceSession but SessionOptions has "
                "already been configured with providers. InferenceSession will only use the providers "
                "passed to InferenceSession().",
                stacklevel=3,
            )
        source = self._model_path or self._model_bytes
        made = native.InferenceSession(options, source, bool(self._model_path), self._read_config_from_model)  # type: ignore[arg-type]  # it raises the TypeError that onnxruntime raises for an empty path
        made.initialize_session(names, chosen, set(disabled_optimizers or ()))
        self._sess = made

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "_sess"}
        used = self._sess._providers
        names, options = [name for name, _ in used], [chosen for _, chosen in used]
        state["_used"] = (names, options, self._sess._disabled_optimizers)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        names, options, disabled = state.pop("_used")
        vars(self).update(state)
        self._create(names, options, disabled)
