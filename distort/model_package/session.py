"""Sessions of a package's variant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NoReturn

from distort import errors
from distort.enums import ExecutionMode, GraphOptimizationLevel
from distort.options import SessionOptions
from distort.session import InferenceSession

_INTEGERS = {
    f"session.{name}": name
    for name in ("intra_op_num_threads", "inter_op_num_threads", "log_severity_level", "log_verbosity_level")
}
_FLAGS = {
    f"session.{name}": name
    for name in ("enable_cpu_mem_arena", "enable_mem_pattern", "use_per_session_threads", "use_deterministic_compute")
}
_LEVELS = {level.name.removeprefix("ORT_").lower(): level for level in GraphOptimizationLevel}
_MODES = {mode.name.removeprefix("ORT_").lower(): mode for mode in ExecutionMode}
_TRUTHS = {"0": False, "false": False, "1": True, "true": True}
_INTEGER = re.compile(r"[ \t-\r]*[+-]?0*[0-9]{1,10}", re.ASCII)
_MAX_CONFIG_KEY = 1024


def _wrong(text: str) -> Exception:
    return errors.make("INVALID_ARGUMENT", f"AddSessionConfigEntry: value for {text}'")


def _integer(key: str, value: str) -> int:
    if not value:
        text = f"AddSessionConfigEntry: value for '{key}' must be an integer; got empty string"
        raise errors.make("INVALID_ARGUMENT", text)
    if _INTEGER.fullmatch(value) is None or not -(2**31) <= int(value) < 2**31:
        raise _wrong(f"'{key}' must be a base-10 int32; got '{value}")
    return int(value)


def add_entry(options: SessionOptions, key: str, value: str) -> None:
    """Set one of a package's ``session_options``: an attribute where the key names one, else a config entry."""
    if key in _INTEGERS:
        setattr(options, _INTEGERS[key], _integer(key, value))
    elif key in _FLAGS:
        if value.lower() not in _TRUTHS:
            raise _wrong(f"'{key}' must be a boolean ('0'/'1' or 'true'/'false'); got '{value}")
        setattr(options, _FLAGS[key], _TRUTHS[value.lower()])
    elif key == "session.log_id":
        options.logid = value
    elif key == "session.execution_mode":
        mode = _MODES.get(value.lower().removeprefix("ort_"))
        if mode is None:
            raise _wrong(f"'execution_mode' must be 'sequential' or 'parallel'; got '{value}")
        options.execution_mode = mode
    elif key == "session.graph_optimization_level":
        level = _LEVELS.get(value.lower().removeprefix("ort_"))
        if level is None:
            names = "/".join(_LEVELS)
            raise _wrong(f"'graph_optimization_level' must be one of {names}; got '{value}")
        options.graph_optimization_level = level
    elif not 0 < len(key) <= _MAX_CONFIG_KEY:
        text = f"Config key is empty or longer than maximum length {_MAX_CONFIG_KEY}"
        raise errors.make("INVALID_ARGUMENT", text)
    else:
        options.add_session_config_entry(key, value)


class PackageSession(InferenceSession):
    """An InferenceSession that was made from a package, and can't be made anew on other providers."""

    def _refuse(self, method: str) -> NoReturn:
        raise NotImplementedError(
            f"{method}() is not supported for sessions created from a model package. "
            "Create a new session with ModelPackageComponentContext.create_session() instead."
        )

    def set_providers(
        self,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
    ) -> None:
        self._refuse("set_providers")

    def enable_fallback(self) -> None:
        self._refuse("enable_fallback")
