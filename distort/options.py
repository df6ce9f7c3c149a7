"""SessionOptions and RunOptions: onnxruntime's attributes, checks and defaults.

What onnxruntime has no name for is a session config entry ``distort.<key>``; an unknown key raises when it is set.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from distort import config_keys, errors, logs
from distort.enums import ExecutionMode, ExecutionOrder, GraphOptimizationLevel, OrtExecutionProviderDevicePolicy
from distort.native.base import native

if TYPE_CHECKING:
    from distort.kernels.program import Cancellation

_MAX_CONFIG_KEY = 1024
_PREFIX = "distort."


def _at_least_one(text: str) -> bool:
    return text.isdecimal() and int(text) >= 1


def _parts(text: str) -> bool:
    return text == "auto" or text.isdecimal()


def _seconds(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


def _nbytes(text: str) -> bool:
    from distort.scheduler.device import parse_nbytes

    try:
        return parse_nbytes(text) > 0
    except ValueError:
        return False


def _json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _any_text(text: str) -> bool:
    return True


def _partition(text: str) -> bool:
    return text in ("auto", "annotations") or (text.startswith("annotations:") and text != "annotations:")


def _one_of(*names: str) -> Callable[[str], bool]:
    return lambda text: text in names


def _metrics(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return text in ("0", "1") or (bool(host) and port.isdecimal() and int(port) < 65536)


#: key without the prefix -> (is a value valid?, what is expected); a value that nothing here acts on is not valid
DISTORT_KEYS: dict[str, tuple[Callable[[str], bool], str]] = {
    "address": (_any_text, "the address of a Ray cluster, or nothing for one of its own"),
    "stages": (_at_least_one, "a number of stages, at least 1"),
    "replicas": (lambda text: text == "auto" or _at_least_one(text), "a number of actors for each stage, or auto"),
    "costs": (_one_of("auto", "measured", "estimated"), "auto, measured or estimated"),
    "device_memory": (_nbytes, "bytes with a unit, as 512MB or 2GiB"),
    "max_in_flight": (_at_least_one, "a number of runs, at least 1"),
    "micro_batch": (_parts, "0, auto or a number of parts"),
    "compile": (_one_of("0", "1"), "0 or 1"),
    "map_weights": (_one_of("0", "1"), "0 or 1"),
    "compute_precision": (_one_of("float32", "bf16"), "float32 or bf16"),
    "transport": (_one_of("auto", "shm", "object_store"), "auto, shm or object_store"),
    "partition": (
        _partition,
        "auto (the planner cuts the graph), annotations or annotations:NAME (the model's own device configuration)",
    ),
    "strict_placement": (_one_of("0", "1"), "0 or 1"),
    "recovery": (_one_of("raise", "replay"), "raise or replay"),
    "start": (_one_of("overlap", "wait"), "overlap or wait"),
    "verify": (_one_of("0", "1"), "0 or 1"),
    "timeout_s": (_seconds, "seconds, more than 0"),
    "metrics": (_metrics, "0, 1 (by Ray) or host:port (an address to serve them at)"),
    "runtime_env": (_json_object, "a JSON object, as Ray's runtime environments are"),
    "objective": (_one_of("latency", "throughput", "memory"), "latency, throughput or memory"),
}


def _check_distort_key(key: str, value: str) -> None:
    known = DISTORT_KEYS.get(key.removeprefix(_PREFIX))
    if known is None:
        names = ", ".join(_PREFIX + name for name in DISTORT_KEYS)
        raise errors.make("INVALID_ARGUMENT", f"Unknown session config key '{key}'. Known keys: {names}")
    valid, expected = known
    if not valid(value):
        raise errors.make("INVALID_ARGUMENT", f"Session config key '{key}' wants {expected}, got '{value}'.")


def _is_int(value: Any) -> bool:
    try:
        return -(2**31) <= operator.index(value) < 2**31
    except TypeError:
        return False


def _is_bool(value: Any) -> bool:
    return value is None or (hasattr(type(value), "__bool__") and getattr(value, "size", 1) == 1)


_KINDS: dict[type, tuple[str, Callable[[Any], bool], Callable[[Any], Any]]] = {
    int: ("typing.SupportsInt | typing.SupportsIndex", _is_int, operator.index),
    bool: ("bool", _is_bool, bool),
    str: ("str", lambda value: isinstance(value, str), str),
}


class _Option:
    """An attribute that takes values of one type only and says so as onnxruntime does."""

    def __init__(self, default: Any, doc: str) -> None:
        self.default = default
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._slot = "_" + name
        kind = type(self.default)
        enum = (f"C.{kind.__name__}", lambda value: isinstance(value, kind), kind)
        self._wanted, self._accepts, self._convert = _KINDS.get(kind, enum)
        # onnxruntime names the arguments of the two classes' setters differently
        first, second = ("arg0", "arg1") if owner.__name__ == "SessionOptions" else ("self", "arg0")
        self._signature = f"({first}: C.{owner.__name__}, {second}: {self._wanted}) -> None"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else getattr(instance, self._slot, self.default)

    def __set__(self, instance: Any, value: Any) -> None:
        if not self._accepts(value):
            raise errors.incompatible("", self._signature, instance, value)
        setattr(instance, self._slot, self._convert(value))


def _take(instance: Any, function: str, wanted: Sequence[type], values: Sequence[Any]) -> None:
    """Check the arguments of a method; raises onnxruntime's TypeError."""
    if not all(_KINDS[kind][1](value) for kind, value in zip(wanted, values, strict=True)):
        arguments = ", ".join(f"arg{i}: {_KINDS[kind][0]}" for i, kind in enumerate(wanted))
        signature = f"(self: C.{type(instance).__name__}, {arguments}) -> None"
        raise errors.incompatible(function, signature, instance, *values)


class _ConfigEntries(dict[str, str]):
    """Config entries of a session or a run."""

    def add(self, key: str, value: str) -> None:
        if not 0 < len(key) <= _MAX_CONFIG_KEY:
            raise RuntimeError(f"Config key is empty or longer than maximum length {_MAX_CONFIG_KEY}")
        if key in self:
            text = f"Config with key [{key}] already exists with value [{self[key]}]. It will be overwritten"
            logs.DEFAULT.log(logs.WARNING, text, depth=3)
        self[key] = value

    def find(self, owner: str, key: str) -> str:
        try:
            return self[key]
        except KeyError:
            raise RuntimeError(f"{owner} does not have configuration with key: {key}") from None


def _native_value(value: Any) -> Any:
    """The handle that an OrtValue holds. Raises RuntimeError for what is none."""
    from distort.native import values
    from distort.ortvalue import OrtValue

    if isinstance(value, OrtValue):
        return value._get_c_value()
    if not isinstance(value, values.OrtValue):
        raise RuntimeError("The provided Python object must be an OrtValue")
    return value


@native
class SessionOptions:
    """How a session optimizes, plans and runs. A session takes a copy when it is made."""

    enable_cpu_mem_arena = _Option(True, "Kept for compatibility: numpy allocates.")
    enable_mem_pattern = _Option(True, "Kept for compatibility: memory is freed after a value's last reader.")
    enable_mem_reuse = _Option(True, "Kept for compatibility.")
    enable_profiling = _Option(False, "Write onnxruntime's profile JSON.")
    execution_mode = _Option(ExecutionMode.ORT_SEQUENTIAL, "ORT_PARALLEL puts the model's stages on actors.")
    execution_order = _Option(ExecutionOrder.DEFAULT, "Kept for compatibility: nodes run in topological order.")
    graph_optimization_level = _Option(GraphOptimizationLevel.ORT_ENABLE_ALL, "Which graph passes run.")
    inter_op_num_threads = _Option(0, "Number of actors in ORT_PARALLEL; 0: the planner decides.")
    intra_op_num_threads = _Option(0, "Threads of the process, or of each actor; 0: what the device has.")
    log_severity_level = _Option(-1, "0 verbose, 1 info, 2 warning, 3 error, 4 fatal; -1: the default logger's.")
    log_verbosity_level = _Option(0, "Verbosity of severity 0.")
    logid = _Option("", "Named in log lines.")
    optimized_model_filepath = _Option("", "Where to write the optimized model.")
    profile_file_prefix = _Option("onnxruntime_profile_", "Start of the profile's file name.")
    use_deterministic_compute = _Option(False, "Kept for compatibility: the kernels are deterministic.")
    use_per_session_threads = _Option(True, "False: sessions share the global pool.")

    def __init__(self) -> None:
        self._config = _ConfigEntries()
        self._free_dims_by_name: dict[str, int] = {}
        self._free_dims_by_denotation: dict[str, int] = {}
        self._initializers: dict[str, Any] = {}  # name -> OrtValue, where the graph has or lacks one
        self._external_initializers: dict[str, Any] = {}  # name -> OrtValue, in place of one of the same type
        self._external_files: dict[str, Any] = {}  # file name -> its bytes
        self._added_providers: list[tuple[str, dict[str, str]]] = []
        self._policy: OrtExecutionProviderDevicePolicy | None = None
        self._selection: Callable[..., Sequence[Any]] | None = None
        self._load_canceled = False

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"'{errors.MODULE}.SessionOptions' object has no attribute '{name}'")
        object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        state["_external_files"] = {name: bytes(data) for name, data in self._external_files.items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def _copy(self) -> SessionOptions:
        copied = SessionOptions()
        for name, value in vars(self).items():
            object.__setattr__(copied, name, type(value)(value) if isinstance(value, (dict, list)) else value)
        return copied

    def add_session_config_entry(self, arg0: str, arg1: str, /) -> None:
        _take(self, "add_session_config_entry", (str, str), (arg0, arg1))
        if arg0.startswith(_PREFIX):
            _check_distort_key(arg0, arg1)
        self._config.add(arg0, arg1)

    def get_session_config_entry(self, arg0: str, /) -> str:
        _take(self, "get_session_config_entry", (str,), (arg0,))
        return self._config.find("SessionOptions", arg0)

    def add_free_dimension_override_by_name(self, arg0: str, arg1: int, /) -> None:
        """Give a symbolic dimension its size; the first one stays."""
        _take(self, "add_free_dimension_override_by_name", (str, int), (arg0, arg1))
        self._free_dims_by_name.setdefault(arg0, operator.index(arg1))

    def add_free_dimension_override_by_denotation(self, arg0: str, arg1: int, /) -> None:
        """Give dimensions of a denotation (``DATA_BATCH``) their size; the first one stays."""
        _take(self, "add_free_dimension_override_by_denotation", (str, int), (arg0, arg1))
        self._free_dims_by_denotation.setdefault(arg0, operator.index(arg1))

    def add_initializer(self, arg0: str, arg1: Any, /) -> None:
        """Use an OrtValue as the initializer ``arg0``."""
        value = _native_value(arg1)
        if arg0 in self._initializers:
            text = f"An OrtValue for this name has already been added: {arg0}"
            raise RuntimeError(errors.prefix("INVALID_ARGUMENT") + text)
        self._initializers[arg0] = value

    def add_external_initializers(self, arg0: list[str], arg1: list[Any], /) -> None:
        """Replace initializers of the model by OrtValues of the same shape and type."""
        if len(arg0) != len(arg1):
            raise RuntimeError("Expecting names and ort_values lists to have equal length")
        self._external_initializers.update(zip(arg0, map(_native_value, arg1), strict=True))

    def add_external_initializers_from_files_in_memory(
        self, arg0: Sequence[str], arg1: Sequence[Any], arg2: Sequence[int], /
    ) -> None:
        """Bytes that stand for the files of external data: names, buffers, lengths."""
        if not len(arg0) == len(arg1) == len(arg2):
            raise RuntimeError("Expecting file names, buffers and lengths to have equal length")
        for name, buffer, length in zip(arg0, arg1, arg2, strict=True):
            self._external_files[name] = memoryview(buffer).cast("B")[:length]

    def add_provider(self, arg0: str, arg1: dict[str, str], /) -> None:
        from distort.providers import ALL_PROVIDERS, available_providers

        if arg0 not in ALL_PROVIDERS:
            raise RuntimeError(f"Unknown Provider Type: {arg0}")
        if arg0 not in available_providers():
            raise errors.make(
                "INVALID_ARGUMENT",
                f"Failed to add provider of type '{arg0}' to SessionOptions. Provider configuration is not supported.",
            )
        self._added_providers.append((arg0, dict(arg1)))

    def add_provider_for_devices(self, arg0: Sequence[Any], arg1: dict[str, str], /) -> None:
        """Use the provider of devices that :func:`get_ep_devices` lists, with options."""
        from distort.native.hardware import OrtEpDevice

        devices = list(arg0)
        if not all(isinstance(device, OrtEpDevice) for device in devices):
            signature = "(self: C.SessionOptions, arg0: collections.abc.Sequence[C.OrtEpDevice], "
            signature += "arg1: collections.abc.Mapping[str, str]) -> None"
            raise errors.incompatible("add_provider_for_devices", signature, self, arg0, arg1)
        names = list(dict.fromkeys(device.ep_name for device in devices))
        if len(names) != 1:
            text = "All OrtEpDevice values in ep_devices must have the same execution provider."
            raise errors.make("INVALID_ARGUMENT", text if names else "Empty list of OrtEpDevice values.")
        chosen = [{**device.ep_options, **arg1} for device in devices]
        self._added_providers += [(names[0], options) for options in chosen]

    def has_providers(self) -> bool:
        return bool(self._added_providers)

    def set_provider_selection_policy(self, arg0: OrtExecutionProviderDevicePolicy, /) -> None:
        if not isinstance(arg0, OrtExecutionProviderDevicePolicy):
            signature = "(self: C.SessionOptions, arg0: C.OrtExecutionProviderDevicePolicy) -> None"
            raise errors.incompatible("set_provider_selection_policy", signature, self, arg0)
        self._policy = arg0

    def set_provider_selection_policy_delegate(self, arg0: Callable[..., Sequence[Any]], /) -> None:
        """Let ``arg0(devices, model_metadata, runtime_metadata, max_selections)`` choose among the devices."""
        if not callable(arg0):
            signature = "(self: C.SessionOptions, arg0: collections.abc.Callable) -> None"
            raise errors.incompatible("set_provider_selection_policy_delegate", signature, self, arg0)
        self._selection = arg0

    def set_ep_context_data_read_func(self, read_func: Callable[..., None], max_data_size: int) -> None:
        """Where compiled nodes find data outside the model. It is never called: no provider here runs such nodes."""
        if not callable(read_func) or not _is_int(max_data_size) or max_data_size < 0:
            signature = "(self: C.SessionOptions, read_func: collections.abc.Callable, max_data_size: "
            signature += f"{_KINDS[int][0]}) -> None"
            raise errors.incompatible("set_ep_context_data_read_func", signature, self, read_func, max_data_size)

    def clear_ep_context_data_read_func(self) -> None:
        """Nothing to forget."""

    def set_load_cancellation_flag(self, arg0: bool, /) -> None:
        """True: a session that is being made stops and raises ModelLoadCanceled."""
        _take(self, "set_load_cancellation_flag", (bool,), (arg0,))
        self._load_canceled = bool(arg0)

    def register_custom_ops_library(self, arg0: str, /) -> None:
        """Custom operators are compiled against onnxruntime's C API, which is not here. Raises Fail."""
        _take(self, "register_custom_ops_library", (str,), (arg0,))
        import os

        reason = "cannot open shared object file: No such file or directory"
        if os.path.exists(arg0):
            reason = "it needs onnxruntime's C API; write the operator as a model-local function or a kernel instead"
        raise errors.make("FAIL", f"Failed to load library {arg0} with error: {arg0}: {reason}")

    def _text(self) -> str:
        """What was chosen, for the log."""
        chosen = {name.removeprefix("_"): value for name, value in vars(self).items() if value not in ({}, [], None)}
        return ", ".join(f"{name}: {value}" for name, value in chosen.items())

    def _is_elsewhere(self) -> bool:
        """Whether stages are to run on a cluster at an address."""
        return bool(self._config.get(f"{_PREFIX}address"))

    def _distort_keys(self) -> dict[str, str]:
        return {k.removeprefix(_PREFIX): v for k, v in self._config.items() if k.startswith(_PREFIX)}


@native
class RunOptions:
    """How one run goes; ``terminate`` may be set while it does."""

    log_severity_level = _Option(-1, "As in SessionOptions; -1: the session's.")
    log_verbosity_level = _Option(0, "Verbosity of severity 0.")
    logid = _Option("", "Named in log lines.")
    only_execute_path_to_fetches = _Option(False, "Run only the nodes that the fetches depend on.")

    def __init__(self) -> None:
        self._config = _ConfigEntries()
        self._adapters: list[Any] = []
        self._terminate = False
        self._flag: Cancellation | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"'{errors.MODULE}.RunOptions' object has no attribute '{name}'")
        object.__setattr__(self, name, value)

    @property
    def terminate(self) -> bool:
        """True ends every run that has these options, from whatever thread it is set."""
        return self._terminate

    @terminate.setter
    def terminate(self, value: bool) -> None:
        if not _is_bool(value):
            raise errors.incompatible("", "(self: C.RunOptions, arg0: bool) -> None", self, value)
        self._terminate = bool(value)
        if self._flag is not None:
            self._flag.requested = self._terminate

    def _cancellation(self) -> Cancellation:
        """The flag that runs look at."""
        if self._flag is None:
            from distort.kernels.program import Cancellation

            self._flag = Cancellation()
        # read after the flag is in place, so that a thread setting it just now is not missed
        self._flag.requested = self._terminate
        return self._flag

    def add_active_adapter(self, arg0: Any, /) -> None:
        """Feed a LoRA adapter's parameters to the runs that have these options; of several, the first that has one."""
        from distort.adapters import LoraAdapter

        if arg0 is None:
            return
        if not isinstance(arg0, LoraAdapter):
            signature = "(self: C.RunOptions, arg0: onnxruntime::lora::LoraAdapter) -> None"
            raise errors.incompatible("add_active_adapter", signature, self, arg0)
        self._adapters.append(arg0)

    def add_run_config_entry(self, arg0: str, arg1: str, /) -> None:
        _take(self, "add_run_config_entry", (str, str), (arg0, arg1))
        config_keys.tell({arg0: arg1}, config_keys.RUN_KEYS, logs.DEFAULT, "Run")
        self._config.add(arg0, arg1)

    def get_run_config_entry(self, arg0: str, /) -> str:
        _take(self, "get_run_config_entry", (str,), (arg0,))
        return self._config.find("RunOptions", arg0)
