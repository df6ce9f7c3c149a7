"""Settings and facts of the whole process: logging, seeds, telemetry, versions."""

from __future__ import annotations

import operator
from typing import Any

from distort import __version__, errors, logs

_INT = "typing.SupportsInt | typing.SupportsIndex"


class Settings:
    """What this process was told."""

    seed: int | None = None
    global_threads: tuple[int, int] | None = None  # intra and inter operator, once the global pool is set


def _int(function: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        signature = f"(arg0: {_INT}) -> None"
        raise errors.incompatible(function, signature, value) from None


def set_default_logger_severity(arg0: int, /) -> None:
    """0 verbose, 1 info, 2 warning, 3 error, 4 fatal."""
    logs.DEFAULT.severity = _severity("set_default_logger_severity", arg0)


def _severity(function: str, value: Any) -> int:
    severity = _int(function, value)
    if not 0 <= severity <= 4:
        raise RuntimeError("Invalid logging severity. 0:Verbose, 1:Info, 2:Warning, 3:Error, 4:Fatal")
    return severity


def set_default_logger_callback(callback: logs.Callback | None, severity: int = 2) -> None:
    """Send all log lines to ``callback(severity, category, logid, place, message)``; None: to stderr again.

    With a callback, ``severity`` becomes the default logger's.
    """
    level = _severity("set_default_logger_callback", severity)
    if callback is not None and not callable(callback):
        raise RuntimeError("callback must be a callable")
    logs.set_callback(callback)
    if callback is not None:
        logs.DEFAULT.severity = level


def set_default_logger_verbosity(arg0: int, /) -> None:
    """How much severity 0 tells."""
    logs.DEFAULT.verbosity = _int("set_default_logger_verbosity", arg0)


def set_global_thread_pool_sizes(intra_op_num_threads: int = 0, inter_op_num_threads: int = 0) -> None:
    """Threads of sessions whose ``use_per_session_threads`` is False; from now on others raise. 0: the machine's."""
    function = "set_global_thread_pool_sizes"
    sizes = (_int(function, intra_op_num_threads), _int(function, inter_op_num_threads))
    if Settings.global_threads is not None:
        raise errors.make("FAIL", "Global thread pools have already been created, cannot replace them")
    Settings.global_threads = sizes


def set_seed(arg0: int, /) -> None:
    """Seed the operators that draw random numbers and have no seed of their own."""
    Settings.seed = _int("set_seed", arg0)


def disable_telemetry_events() -> None:
    """Nothing to do: there is no telemetry."""


def enable_telemetry_events() -> None:
    """Nothing to do: there is no telemetry."""


def get_version_string() -> str:
    return __version__


def get_build_info() -> str:
    return f"distort {__version__}, with the API of onnxruntime 1.32"


def has_collective_ops() -> bool:
    return False


def preload_dlls(cuda: bool = True, cudnn: bool = True, msvc: bool = True, directory: str | None = None) -> None:
    """Nothing to do: libraries are loaded by the packages that bring them."""


def print_debug_info() -> None:
    """Version, platform and the packages that matter, on stdout."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    print(f"distort version: {__version__}\nplatform: {platform.platform()}\n\nPython packages:")
    for name in ("distort", "numpy", "onnx", "ml_dtypes", "ray", "cupy-cuda12x", "cupy-cuda13x", "llvmlite"):
        try:
            print(f"{name}=={version(name)}")
        except PackageNotFoundError:
            continue
    from distort.providers import CUDA, why_no_gpu

    print(f"\n{CUDA}: {why_no_gpu() or 'available'}")
    print(f"\nEnvironment variable:\nLD_LIBRARY_PATH={os.environ.get('LD_LIBRARY_PATH', '(unset)')}")
