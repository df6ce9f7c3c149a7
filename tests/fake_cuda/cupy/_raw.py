"""RawModule and RawKernel: CUDA C compiled by g++ with ``include/fake_cuda.h``, run on the arrays' memory.

Shared objects are kept in FAKE_CUDA_CACHE (a folder of the user's cache by default), by a digest of their sources.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

from . import _call, _state
from .cuda import memory, runtime
from .cuda.driver import CUDADriverError

_INCLUDE = Path(__file__).parents[1] / "include"
_KERNEL = re.compile(
    r"__global__\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(?:static\s+)?void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\("
)
_DYNAMIC = re.compile(r"extern\s+__shared__\s+((?:__align__\s*\(\s*\d+\s*\)\s*)?)([\w\s]+?)\s+(\w+)\s*\[\s*\]\s*;")
_FLAGS = "-std=c++17 -O1 -shared -fPIC -w -fno-strict-aliasing -ffp-contract=off -fvisibility=hidden".split()
_lock = threading.Lock()
_loaded: dict[str, ctypes.CDLL] = {}


class CompileException(Exception):
    """As cupy.cuda.compiler's: with the compiler's words and the source."""

    def __init__(self, message: str, source: str, name: str, options: tuple[str, ...]) -> None:
        super().__init__(message, source, name, options)
        self.source = source

    def __str__(self) -> str:
        return str(self.args[0])


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(os.environ.get("FAKE_CUDA_CACHE") or Path(home) / "fake_cuda")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _source(code: str, expressions: tuple[str, ...]) -> str:
    """The CUDA C with what calls its kernels by their names."""
    body = _DYNAMIC.sub(r"\2 *\3 = (\2 *)fake_cuda::dynamic_shared;", code)
    names = list(dict.fromkeys(_KERNEL.findall(re.sub(r"//.*?$|/\*.*?\*/", "", code, flags=re.M | re.S))))
    templates = {match for match in re.findall(r"template\s*<[^>]*>\s*__global__[^(]*?(\w+)\s*\(", code)}
    called = [name for name in names if name not in templates and name not in expressions]
    calls = []
    for i, name in enumerate([*called, *expressions]):
        export = name if i < len(called) else f"expression_{i - len(called)}"
        calls.append(
            f'extern "C" __attribute__((visibility("default"))) const int *fake_kinds_{export}() '
            f"{{ return fake_cuda::Kernel<decltype(&{name})>::kinds(); }}\n"
            f"static void fake_body_{export}(void **a) {{ fake_cuda::Kernel<decltype(&{name})>::apply(&{name}, a); }}\n"
            f'extern "C" __attribute__((visibility("default"))) const char *fake_launch_{export}(void **a, '
            f"const unsigned *g, const unsigned *b, size_t s) {{ "
            f"return fake_cuda::launch(fake_body_{export}, a, g, b, s); }}\n"
        )
    head = '#include "fake_cuda.h"\n#line 1 "kernel.cu"\n'
    return head + body + "\n" + "".join(calls)


def _compile(code: str, options: tuple[str, ...], expressions: tuple[str, ...]) -> ctypes.CDLL:
    source = _source(code, expressions)
    defines = [option for option in options if option.startswith(("-D", "--define-macro", "-I", "--include-path"))]
    defines = [re.sub(r"^--define-macro=?", "-D", re.sub(r"^--include-path=?", "-I", option)) for option in defines]
    defines.append(f"-DFAKE_CUDA_ARCH={os.environ.get('FAKE_CUDA_CAPABILITY', '8.0').replace('.', '')}0")
    known = hashlib.sha256(_headers() + "\0".join([source, *defines, *_FLAGS]).encode()).hexdigest()[:32]
    with _lock:
        if known not in _loaded:
            path = _cache() / f"{known}.so"
            if not path.exists():
                _build(source, code, defines, path)
            _loaded[known] = ctypes.CDLL(str(path))
        return _loaded[known]


@functools.cache
def _headers() -> bytes:
    return b"".join(path.read_bytes() for path in sorted(_INCLUDE.iterdir()))


@functools.cache
def _precompiled(defines: tuple[str, ...]) -> Path:
    """A folder with the headers, read by g++ already: that is most of what a small kernel takes."""
    known = hashlib.sha256(_headers() + "\0".join([*defines, *_FLAGS]).encode()).hexdigest()[:32]
    folder = _cache() / f"headers-{known}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            place = Path(made) / "headers"
            shutil.copytree(_INCLUDE, place)
            header = str(place / "fake_cuda.h")
            command = ["g++", *_FLAGS, *defines, "-x", "c++-header", header, "-o", f"{header}.gch"]
            subprocess.run(command, check=True, capture_output=True)
            with contextlib.suppress(OSError):  # another process was sooner
                os.replace(place, folder)
    return folder


def _build(source: str, code: str, defines: list[str], path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "made.so"
        command = ["g++", *_FLAGS, f"-I{_precompiled(tuple(defines))}", *defines, "-x", "c++", "-", "-o", str(made)]
        done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
        if done.returncode:
            raise CompileException(done.stderr, code, "kernel.cu", tuple(defines))
        os.replace(made, path)


class RawKernel:
    def __init__(
        self,
        code: str,
        name: str,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        *,
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        jitify: Any = None,
        _export: str = "",
        _expressions: tuple[str, ...] = (),
    ) -> None:
        if not isinstance(code, str) or not isinstance(options, tuple):
            raise TypeError("Argument 'code' is a str, 'options' a tuple")
        self.code, self.name, self.options, self.backend = code, name, options, backend
        self.enable_cooperative_groups = enable_cooperative_groups
        self.max_dynamic_shared_size_bytes = 48 << 10
        self.max_threads_per_block = 1024
        self._export, self._expressions = _export or name, _expressions
        self._function: Any = None
        self._kinds: list[tuple[str, int]] = []

    def compile(self, log_stream: Any = None) -> None:
        library = _compile(self.code, self.options, self._expressions)
        try:
            function = getattr(library, f"fake_launch_{self._export}")
            kinds = getattr(library, f"fake_kinds_{self._export}")
        except AttributeError:
            raise CUDADriverError(500) from None
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        kinds.restype = ctypes.POINTER(ctypes.c_int)
        found = kinds()
        self._kinds = []
        for i in range(4096):
            if not found[i]:
                break
            self._kinds.append((chr(found[i] >> 16), found[i] & 0xFFFF))
        self._function = function

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0, stream: Any = None
    ) -> None:
        """Launch; the sizes are checked as the driver checks them, then made as small as ``fake.set_launch`` says."""
        if self._function is None:
            self.compile()
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError("grid and block are tuples")
        grid = tuple(max(1, int(n)) for n in (*grid, 1, 1)[:3])
        block = tuple(max(1, int(n)) for n in (*block, 1, 1)[:3])
        if grid[0] > 2**31 - 1 or max(grid[1:]) > 65535 or block[0] * block[1] * block[2] > 1024 or block[2] > 64:
            raise CUDADriverError(1)
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise CUDADriverError(1)
        values = self._values(tuple(args))
        small_grid, small_block = _fewer(grid, _state.blocks), _fewer(block, _state.threads)
        handle = _state.current_stream() if stream is None else stream.ptr
        function = self._function
        _state.counts["kernel"] += 1

        def work() -> None:
            pointers = (ctypes.c_void_p * max(len(values), 1))(*[v.ctypes.data for v in values])
            sizes = ((ctypes.c_uint * 3)(*small_grid), (ctypes.c_uint * 3)(*small_block))
            trouble = function(pointers, sizes[0], sizes[1], shared_mem)
            if trouble:
                raise RuntimeError(f"{self.name}: {trouble.decode()}")

        _state.launch(handle, work)

    def _values(self, args: tuple[Any, ...]) -> list[np.ndarray[Any, Any]]:
        """Each argument as the bytes that the kernel reads, of the parameter's kind and size."""
        if len(args) != len(self._kinds):
            raise TypeError(f"{self.name} has {len(self._kinds)} parameters, and {len(args)} arguments are given")
        values = []
        for i, (arg, (kind, nbytes)) in enumerate(zip(args, self._kinds, strict=True)):
            value, given = _argument(arg)
            fits = given in _FITTING[kind] if kind != "s" else True
            if not fits or value.nbytes != nbytes:
                raise TypeError(
                    f"{self.name}: argument {i} is {type(arg).__name__} ({given}, {value.nbytes} bytes), "
                    f"the parameter {kind}, {nbytes} bytes"
                )
            values.append(value)
        return values


_FITTING = {"p": "pi", "i": "i", "f": "f", "b": "bi"}


def _argument(arg: Any) -> tuple[np.ndarray[Any, Any], str]:
    if arg is None:
        return np.zeros((), np.int64), "p"
    if isinstance(arg, (_call.Operand, memory.MemoryPointer)):
        pointer = arg.data if isinstance(arg, _call.Operand) else arg
        if not runtime.may_access(_state.current_device(), pointer.device_id):
            raise CUDADriverError(700)
        return np.array(pointer.ptr, np.int64), "p"
    if isinstance(arg, np.ndarray):
        if arg.size != 1:
            raise TypeError(
                f"You are trying to pass a numpy.ndarray of shape {arg.shape} as a kernel parameter. "
                "Only numpy.ndarrays of size one can be passed by value."
            )
        return arg.copy(), _of_kind(arg.dtype)
    if isinstance(arg, (bool, int, float, np.generic)):
        value = np.array(arg, np.int64 if type(arg) is int else None)
        return value, _of_kind(value.dtype)
    raise TypeError(f"Unsupported type {type(arg)}")


def _of_kind(dtype: np.dtype[Any]) -> str:
    return {"i": "i", "u": "i", "f": "f", "b": "b"}.get(dtype.kind, "s")


def _fewer(sizes: tuple[int, ...], most: int) -> tuple[int, ...]:
    if not most:
        return sizes
    return (min(sizes[0], most), *(1 for _ in sizes[1:])) if most == 1 else tuple(min(n, most) for n in sizes)


class RawModule:
    def __init__(
        self,
        code: str | None = None,
        *,
        path: str | None = None,
        options: tuple[str, ...] = (),
        backend: str = "nvrtc",
        translate_cucomplex: bool = False,
        enable_cooperative_groups: bool = False,
        name_expressions: Any = None,
        jitify: Any = None,
    ) -> None:
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        if code is None:
            raise NotImplementedError("binaries for a fake device")
        if not isinstance(options, tuple):
            raise TypeError("Argument 'options' has incorrect type (expected tuple)")
        self.code, self.options, self.backend = code, options, backend
        self.name_expressions = tuple(name_expressions) if name_expressions is not None else None

    def compile(self, log_stream: Any = None) -> None:
        _compile(self.code, self.options, self.name_expressions or ())

    def get_function(self, name: str) -> RawKernel:
        if importlib.import_module("cuda.pathfinder").find_nvidia_header_directory("cudart") is None:
            raise RuntimeError(
                "Failed to find CUDA headers. Please install CUDA toolkit headers (e.g., pip install "
                "cupy-cuda12x[ctk]) or specify CUDA_PATH environment variable."
            )
        expressions = self.name_expressions or ()
        export = f"expression_{expressions.index(name)}" if name in expressions else name
        kernel = RawKernel(self.code, name, self.options, self.backend, _export=export, _expressions=expressions)
        kernel.compile()
        return kernel
