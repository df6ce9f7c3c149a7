"""Device memory of other processes of this host, opened here."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np

from distort.cluster.errors import ClusterError
from distort.cluster.gpu.page import ReadPage


class DevicePage:
    """What a channel has for the number of a page: the peer's slot, opened when a value in it is first used.

    The memory stays open until the channel has forgotten the slot and the last array over it is gone.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self.page = ReadPage(memory)
        self._opened: _Opened | None = None

    def value(self, dtype: np.dtype[Any], dims: tuple[int, ...], nbytes: int) -> DeviceValue:
        return DeviceValue(self, dtype, dims, nbytes)

    def open(self) -> _Opened:
        """Raises ClusterError where the GPUs can't reach each other."""
        if self._opened is None:
            self._opened = _Opened(self.page)
        return self._opened


class _Opened:
    """A peer's slot in this process's address space. Called with this process's GPU current."""

    def __init__(self, page: ReadPage) -> None:
        import cupy

        assert page.reading, "a slot is opened while it is read, and at no other time"
        self._cupy: Any = cupy
        self._page = page
        self.device_id: int = cupy.cuda.Device().id
        handles = page.handles
        self.nbytes = handles.nbytes
        runtime: Any = cupy.cuda.runtime
        self.same_device = runtime.deviceGetPCIBusId(self.device_id) == handles.device
        page.mapped = True
        self.ptr = self.event = 0
        try:
            self.ptr = runtime.ipcOpenMemHandle(handles.memory)
            self.event = runtime.ipcOpenEventHandle(handles.event)
        except runtime.CUDARuntimeError as error:
            self.close()
            raise ClusterError(
                f"GPU {runtime.deviceGetPCIBusId(self.device_id)} can't read the memory of GPU {handles.device}, where "
                f"the stage before it runs: {error}. Set distort.transport=object_store, or put both stages on GPUs "
                "that can reach each other (`nvidia-smi topo -p2p r`)."
            ) from error

    def close(self) -> None:
        """Safe to call twice."""
        runtime = self._cupy.cuda.runtime
        ptr, event, self.ptr, self.event = self.ptr, self.event, 0, 0
        with contextlib.suppress(runtime.CUDARuntimeError):
            self._cupy.cuda.Device(self.device_id).use()  # the process has no other
            runtime.deviceSynchronize()  # what was given to the GPU may read it still
            if event:
                runtime.eventDestroy(event)
            if ptr:
                runtime.ipcCloseMemHandle(ptr)
        self._page.mapped = False

    def __del__(self) -> None:
        if self.ptr or self.event:
            self.close()


class DeviceValue:
    """A tensor in a peer's device slot, as long as its reader's flag stands."""

    __slots__ = ("_page", "dims", "dtype", "nbytes")

    def __init__(self, page: DevicePage, dtype: np.dtype[Any], dims: tuple[int, ...], nbytes: int) -> None:
        self._page, self.dtype, self.dims, self.nbytes = page, dtype, dims, nbytes

    @property
    def page(self) -> ReadPage:
        return self._page.page

    def array(self, stream: Any) -> Any:
        """A CuPy array that work given to the stream may read: the slot itself, or a copy from another GPU.

        Called with the GPU and its pool current.
        """
        import cupy

        opened = self._page.open()
        runtime: Any = cupy.cuda.runtime
        runtime.streamWaitEvent(stream.ptr, opened.event)
        if opened.same_device:
            block: Any = cupy.cuda.UnownedMemory(opened.ptr, opened.nbytes, opened, opened.device_id)
            return cupy.ndarray(self.dims, self.dtype, cupy.cuda.MemoryPointer(block, 0))
        # kernels may read a value more than once, and each time over the link
        made = cupy.empty(self.dims, self.dtype)
        runtime.memcpyAsync(made.data.ptr, opened.ptr, self.nbytes, runtime.memcpyDefault, stream.ptr)
        return made
