"""NVIDIA's shared libraries, found where CuPy finds them: in wheels, conda, the toolkit, the system's folders."""

from __future__ import annotations

import ctypes
import functools
import importlib
from typing import Any

from distort.kernels.errors import KernelError

#: what to install, by what is missing
_REMEDY = "install distort[cuda12] or distort[cuda13], whichever fits the driver"


class LibraryMissing(KernelError):
    """A library of CUDA that is not installed, or that can't be loaded."""


class LibraryFailed(KernelError):
    """A library refused a call or failed in it. ``text`` names what was asked for, and what to do."""


def open_library(name: str) -> ctypes.CDLL:
    """A library by the name without prefix and version: ``cublasLt``. Raises LibraryMissing."""
    try:
        pathfinder = importlib.import_module("cuda.pathfinder")
    except ImportError as error:
        raise LibraryMissing(
            f"{name} can't be looked for: cuda-pathfinder is not installed. Remedy: {_REMEDY}."
        ) from error
    try:
        found = pathfinder.load_nvidia_dynamic_lib(name)
    # DynamicLibNotFoundError, or what the loader says of one that doesn't load
    except (RuntimeError, OSError) as error:
        reason = (str(error).splitlines() or ["not found"])[0]
        raise LibraryMissing(f"lib{name} can't be loaded: {reason}. Remedy: {_REMEDY}.") from error
    return ctypes.CDLL(found.abs_path)


@functools.cache
def is_installed(name: str) -> bool:
    """Whether a library can be loaded here; True where there is no telling, for nothing looks for libraries."""
    try:
        open_library(name)
    except LibraryMissing as error:
        return isinstance(error.__cause__, ImportError)
    return True


def forget() -> None:
    """For tests, which take libraries away."""
    is_installed.cache_clear()


def cudnn_frontend() -> Any:
    """The module ``cudnn``. Raises LibraryMissing."""
    try:
        module = importlib.import_module("cudnn")
        module.backend_version()  # it can be imported without libcudnn
    # the extension module raises what it likes where libcudnn isn't there, or is there twice
    except (ImportError, OSError, RuntimeError, AttributeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["not found"])[0]
        raise LibraryMissing(
            f"cuDNN can't be used: {reason}. Remedy: {_REMEDY}; these bring nvidia-cudnn-frontend and cuDNN 9."
        ) from error
    return module


__all__ = ["LibraryFailed", "LibraryMissing", "cudnn_frontend", "is_installed", "open_library"]
