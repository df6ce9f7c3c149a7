"""Kernels as functions of a GPU: all that a plan lacks are compiled in one module, and each is kept by its name."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from distort.kernels import dumping
from distort.kernels.cuda import device
from distort.kernels.cuda.launch import Kernel
from distort.kernels.errors import KernelError

_OPTIONS = ("--std=c++17",)


class NotCompiled(KernelError):
    """CUDA C of ours that NVRTC doesn't take."""


class Modules:
    """Of one GPU of this process. Thread-safe."""

    def __init__(self, device_id: int) -> None:
        self._device_id = device_id
        self._lock = threading.Lock()
        self._functions: dict[str, Any] = {}

    def get(self, kernels: Iterable[Kernel]) -> dict[str, Any]:
        """Functions by kernels' names.

        Raises NotCompiled, which says what NVRTC says, where one can't be compiled, KernelError where none can.
        """
        wanted = {kernel.name: kernel for kernel in kernels}
        with self._lock:
            # in an order that the set alone decides: CuPy's cache on the disk knows texts
            missing = [wanted[name] for name in sorted(wanted) if name not in self._functions]
            if missing:
                self._compile(missing)
            return {name: self._functions[name] for name in wanted}

    def _compile(self, kernels: list[Kernel]) -> None:
        import cupy
        from cupy.cuda.compiler import CompileException

        source = "\n".join(kernel.source for kernel in kernels)
        dumped = _dump(kernels[0].name, source)
        with device.current(self._device_id):
            module = cupy.RawModule(code=source, options=_OPTIONS)
            try:
                found = {kernel.name: module.get_function(kernel.name) for kernel in kernels}
            except OSError as error:
                raise KernelError(
                    f"Compiled kernels can't be kept in CuPy's cache: {error}. Set CUPY_CACHE_DIR to a folder that can "
                    "be written to."
                ) from error
            except RuntimeError as error:
                if type(error) is RuntimeError:  # CuPy's own: what it compiles with isn't there
                    raise KernelError(f"CUDA C can't be compiled: {error}") from error
                error.add_note(f"It came up in loading {len(kernels)} compiled kernels, or in work before it.")
                raise
            except CompileException as error:
                name, words = _culprit(kernels, str(error))
                where = f"Its source is in {dumped}" if dumped else f"Set {dumping.VARIABLE} to a folder for its source"
                raise NotCompiled(f"CUDA C of {name} can't be compiled: {words}. {where}.") from error
        self._functions.update(found)


def _culprit(kernels: list[Kernel], words: str) -> tuple[str, str]:
    """The kernel that doesn't compile by itself, and what NVRTC says of it; all names where each does."""
    import cupy
    from cupy.cuda.compiler import CompileException

    for kernel in kernels:
        try:
            cupy.RawModule(code=kernel.source, options=_OPTIONS).get_function(kernel.name)
        except CompileException as error:
            return kernel.name, str(error)
    return ", ".join(kernel.name for kernel in kernels), words


def _dump(name: str, source: str) -> str:
    folder = dumping.folder()
    if folder is None:
        return ""
    path = folder / f"{name}.cu"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return str(path)


_of_device: dict[int, Modules] = {}
_lock = threading.Lock()


def modules_of(device_id: int) -> Modules:
    """What this process has compiled for a GPU: programs share it."""
    with _lock:
        return _of_device.setdefault(device_id, Modules(device_id))


def forget() -> None:
    """For tests, which take GPUs away."""
    with _lock:
        _of_device.clear()


__all__ = ["Modules", "NotCompiled", "forget", "modules_of"]
