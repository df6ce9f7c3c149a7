"""What plans and runs of one program have of a GPU: its libraries, its stream, its memory, its options."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distort.kernels.cuda import device
from distort.kernels.cuda.copies import Copies
from distort.kernels.cuda.device_libraries import Libraries
from distort.kernels.cuda.memory import Pool
from distort.kernels.cuda.modules import Modules, modules_of
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.tuning import Tuning
from distort.kernels.cuda.weights import Weights


class _Foreign:
    """A stream of somebody else's, by CUDA's stream protocol."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


def stream_of(address: int) -> Any:
    """A CuPy stream over a ``cudaStream_t`` that somebody else keeps."""
    import cupy

    return cupy.cuda.Stream.from_external(_Foreign(address))


class Context:
    """Of one program. Libraries are opened when the first plan asks for them."""

    def __init__(self, options: CudaOptions) -> None:
        import cupy

        self.options = options
        self.device_id = options.device_id
        self.properties = device.properties(options.device_id)
        self.capability = self.properties.capability
        self.pool = Pool(options)
        self.weights = Weights(self.pool)
        self.copies = Copies()
        self.modules: Modules = modules_of(options.device_id)
        with device.current(self.device_id):
            if options.user_compute_stream:
                self.stream: Any = stream_of(options.user_compute_stream)
            else:
                self.stream = cupy.cuda.Stream(non_blocking=True)

    @contextmanager
    def using(self) -> Iterator[None]:
        """The GPU, the stream and the memory are those that CuPy uses."""
        with self.pool.used(), self.stream:
            yield

    def follow_callers(self) -> None:
        """What comes on the stream waits for all that is on the GPU's default stream now.

        Other libraries write there and don't wait for it. A caller's own stream has the order that the caller gave it.
        """
        import cupy

        if self.options.user_compute_stream:
            return
        with device.current(self.device_id):
            self._of_callers.record(cupy.cuda.Stream.null)  # CUDA's legacy default stream
            self.stream.wait_event(self._of_callers)

    @functools.cached_property
    def _of_callers(self) -> Any:
        import cupy

        return cupy.cuda.Event(disable_timing=True)

    @functools.cached_property
    def libraries(self) -> Libraries:
        """cuBLASLt and cuDNN, which open when a plan first asks for them."""
        major, minor = self.capability
        options, tuning = self.options, None
        if options.tunable_op_enable:
            limit_s = options.tunable_op_max_tuning_duration_ms / 1e3
            searches = options.tunable_op_tuning_enable
            where = (self.device_id, self.stream.ptr, self.pool.malloc)
            tuning = Tuning(*where, searches, limit_s if limit_s > 0 else math.inf)
        return Libraries(10 * major + minor, options, self.pool.malloc, tuning)

    @property
    def most_blocks(self) -> int:
        """Blocks of a grid: more would wait for others to end."""
        return self.properties.n_multiprocessors * 16


__all__ = ["Context", "stream_of"]
