"""NVIDIA's run-time compiler, which needs no GPU: that sources are what it takes, for any architecture."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distort.kernels.cuda.launch import Kernel

#: from the oldest on
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")


@functools.cache
def library() -> Any:
    """The wheel's library; None where it is not installed."""
    for package, name in (("nvidia.cuda_nvrtc", "lib/libnvrtc.so.12"), ("nvidia.cu13", "lib/libnvrtc.so.13")):
        try:
            found = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        for folder in found.submodule_search_locations or () if found else ():
            path = Path(folder) / name
            if path.exists():
                return ctypes.CDLL(str(path))
    return None


def compile_all(kernels: Iterable[Kernel], architecture: str) -> int:
    """Bytes of machine code of all of them as one module. AssertionError with the compiler's words where it fails."""
    nvrtc = library()
    text = "".join(kernel.source for kernel in dict.fromkeys(kernels))
    program = ctypes.c_void_p()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"stage.cu", 0, None, None) == 0
    try:
        # as CuPy calls it, which always adds the second
        options = [b"--std=c++17", b"-ftz=true", f"--gpu-architecture={architecture}".encode()]
        status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        assert status == 0, log.value.decode()[:4000]
        assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
        return size.value
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
