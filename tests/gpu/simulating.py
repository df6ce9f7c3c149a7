"""Launches run by g++ and ``simulator.h``: what a kernel does on a GPU, up to the order of its threads."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distort.kernels.compiler.ir import Address, Buffer, ErrorWord, Operation, Place, Tensor
from distort.kernels.cuda.codegen import launches
from distort.kernels.cuda.launch import Kernel, Launch

Array = np.ndarray[Any, Any]
_HEADER = Path(__file__).with_name("simulator.h")
#: around each buffer, in bytes: of such bits that floats are NaN
_GUARD, _GUARD_BYTE = 256, 0xFF


def parameters_of(kernel: Kernel) -> list[str]:
    """The types of a kernel's parameters, as its source says."""
    found = re.search(rf"__global__[^{{;]*?\b{kernel.name}\(([^)]*)\)\s*\{{", kernel.source)
    assert found is not None, f"no __global__ function {kernel.name}"
    return [text.strip().rpartition(" ")[0].replace("__restrict__", "") for text in found[1].split(",")]


@functools.lru_cache(4096)
def compiled(kernel: Kernel) -> Any:
    """A function of (arguments, blocks, threads, order)."""
    types = parameters_of(kernel)
    given = ", ".join([f"*({kind}*)given[{n}]" for n, kind in enumerate(types)])
    text = (
        f'#include "{_HEADER}"\n{kernel.source}\n'
        f"static void with_arguments(void** given) {{ {kernel.name}({given}); }}\n"
        'extern "C" int run(void** given, unsigned blocks, unsigned threads, int order) {\n'
        "    return simulated::run(with_arguments, given, blocks, threads, order);\n}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        library, source = Path(folder) / f"{kernel.name}.so", Path(folder) / "kernel.cc"
        source.write_text(text)
        command = ["g++", "-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-o", str(library), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr[:4000]}\n{kernel.source}"
        function = ctypes.CDLL(str(library)).run
    function.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_int]
    return function


class Memory:
    """Buffers of a run, each between guards."""

    def __init__(self) -> None:
        self._places: dict[Buffer, tuple[Array, int]] = {}
        self.error = np.zeros(1, np.int64)

    def bytes_of(self, buffer: Buffer) -> Array:
        if buffer not in self._places:
            room = np.full(buffer.nbytes + 2 * _GUARD + 64, _GUARD_BYTE, np.uint8)
            begin = _GUARD + -(room.ctypes.data + _GUARD) % 64
            self._places[buffer] = room, begin
            if buffer.array is not None:
                self.bytes_of(buffer)[:] = np.frombuffer(buffer.array.tobytes(), np.uint8)
        room, begin = self._places[buffer]
        return room[begin : begin + buffer.nbytes]

    def view(self, tensor: Tensor) -> Array:
        """The elements of a tensor where they lie."""
        data = self.bytes_of(tensor.buffer)
        whole = data[: data.size // tensor.dtype.itemsize * tensor.dtype.itemsize].view(tensor.dtype)
        strides = [s * tensor.dtype.itemsize for s in tensor.strides]
        if not tensor.size:
            return np.zeros(tensor.shape, tensor.dtype)
        return np.lib.stride_tricks.as_strided(whole[tensor.offset :], tensor.shape, strides)

    def check(self) -> None:
        """That nothing was written around buffers."""
        for buffer, (room, begin) in self._places.items():
            assert (room[:begin] == _GUARD_BYTE).all(), "written before a buffer"
            assert (room[begin + buffer.nbytes :] == _GUARD_BYTE).all(), "written behind a buffer"

    def run(self, launch: Launch, *, block: int = 0, most_blocks: int = 64, order: int = 0) -> None:
        """``block``: threads of a block, if not those that the launch says. ``order``: see ``WAYS``."""
        types = parameters_of(launch.kernel)
        assert len(types) == len(launch.arguments), f"{types} for {launch.arguments}"
        words: list[Any] = []
        for kind, argument in zip(types, launch.arguments, strict=True):
            if isinstance(argument, Address):
                assert "*" in kind
                words.append(ctypes.c_void_p(self.bytes_of(argument.buffer).ctypes.data + argument.offset))
            elif isinstance(argument, ErrorWord):
                assert kind.replace(" ", "") == "longlong*"
                words.append(ctypes.c_void_p(self.error.ctypes.data))
            elif isinstance(argument, float):
                assert kind == "float", kind
                words.append(ctypes.c_float(argument))
            else:
                assert kind == "long long", kind
                words.append(ctypes.c_longlong(argument))
        given = (ctypes.c_void_p * len(words))(*[ctypes.addressof(word) for word in words])
        n_threads = block or launch.block
        wanted = launch.blocks or -(-launch.n_threads // n_threads)
        assert launch.shared_nbytes <= 48 << 10
        failure = compiled(launch.kernel)(given, max(1, min(wanted, most_blocks)), n_threads, order)
        assert failure == 0, "threads wait for others that never come"


#: threads of a block (0: as launched), blocks at most, in what order threads run: 0 as they are numbered, 1 backwards,
#: else by chance between each two meetings
WAYS = ((1, 1, 0), (0, 64, 1), (0, 3, 2))


def view(array: Array) -> Tensor:
    """A tensor that is a view of an array's memory."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    size = array.dtype.itemsize
    offset = (array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]) // size
    strides = tuple(0 if n == 1 else step // size for n, step in zip(array.shape, array.strides, strict=True))
    return Tensor(array.dtype, array.shape, strides, Buffer(owner.nbytes, Place.CONSTANT, owner), offset)


def views(*arrays: Array) -> list[Tensor]:
    """As :func:`view`, of one buffer where arrays share memory."""
    made = [view(array) for array in arrays]
    buffers: dict[int, Buffer] = {}
    for tensor in made:
        tensor.buffer = buffers.setdefault(id(tensor.buffer.array), tensor.buffer)
    return made


def run_all(operations: Iterable[Operation], memory: Memory, way: Sequence[Any] = WAYS[1]) -> list[Launch]:
    """Operations one after another; their launches."""
    made = []
    block, most_blocks, order = way
    for operation in operations:
        found = launches(operation)
        assert found is not None, operation.kind
        for launch in found:
            memory.run(launch, block=block, most_blocks=most_blocks, order=order)
            made.append(launch)
    memory.check()
    return made
