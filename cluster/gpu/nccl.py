"""NCCL by CuPy: whether it is there, and a communicator of two GPUs."""

from __future__ import annotations

import warnings
from typing import Any

from distort.cluster.errors import ClusterError
from distort.cluster.orders import NcclFacts

#: who sends
SENDER, RECEIVER = 0, 1


class NcclFailed(ClusterError):
    """NCCL, or what it works with, said no."""


def _module() -> Any:
    """CuPy's, which warns where the library is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cupy.cuda import nccl

    return nccl


def measure(device_id: int) -> NcclFacts:
    """Whether this process can use NCCL, and which GPU it would."""
    from cupy.cuda import runtime

    uuid = bytes(runtime.getDeviceProperties(device_id)["uuid"])
    nccl = _module()
    if not nccl.available:
        cuda = runtime.runtimeGetVersion() // 1000
        return NcclFacts("", f"NCCL is not installed: pip install nvidia-nccl-cu{cuda}", uuid)
    try:
        number = nccl.get_version()
    except (nccl.NcclError, KeyError) as error:
        return NcclFacts("", f"NCCL does not work: {error}", uuid)
    return NcclFacts(f"{number // 10000}.{number // 100 % 100}.{number % 100}", "", uuid)


def make_unique_id() -> bytes:
    """Of a communicator; this process is where its ranks meet. Raises NcclFailed."""
    nccl = _module()
    try:
        return bytes(nccl.get_unique_id())
    except (nccl.NcclError, KeyError) as error:
        raise NcclFailed(_told(error)) from error


class Communicator:
    """Of two ranks, on the current GPU. One thread's: it is made, used and ended there.

    Making one waits for the other rank, for ever if need be, and nothing can end that but the end of the process.
    """

    def __init__(self, unique_id: bytes, rank: int) -> None:
        from cupy.cuda import runtime

        self._nccl = _module()
        self._peer = 1 - rank
        # CuPy knows no name for some of NCCL's results, and raises KeyError of their number
        self._errors: tuple[type[Exception], ...] = (self._nccl.NcclError, runtime.CUDARuntimeError, KeyError)
        try:
            self._comm = self._nccl.NcclCommunicator(2, unique_id, rank)
        except self._errors as error:
            raise NcclFailed(_told(error)) from error

    def send(self, address: int, nbytes: int, stream: Any) -> None:
        """Of the stream's work. Raises NcclFailed."""
        self._call(self._comm.send, address, nbytes, stream)

    def receive(self, address: int, nbytes: int, stream: Any) -> None:
        """Of the stream's work. Raises NcclFailed."""
        self._call(self._comm.recv, address, nbytes, stream)

    def _call(self, function: Any, address: int, nbytes: int, stream: Any) -> None:
        try:
            function(address, nbytes, self._nccl.NCCL_UINT8, self._peer, stream.ptr)
        except self._errors as error:
            raise NcclFailed(_told(error)) from error

    def check(self) -> None:
        """Raises NcclFailed where something went wrong meanwhile: the other process died, say."""
        try:
            self._comm.check_async_error()
        except self._errors as error:
            raise NcclFailed(_told(error)) from error

    def abort(self) -> None:
        """End it, and what it still has to do; safe to call twice. Destroying it would wait for the other end."""
        self._comm.abort()


def _told(error: Exception) -> str:
    if isinstance(error, KeyError):
        hint = ": its calls do not block (NCCL_COMM_BLOCKING=0), and CuPy's do" if error.args == (7,) else ""
        return f"NCCL's result {error}{hint}"
    return str(error)
