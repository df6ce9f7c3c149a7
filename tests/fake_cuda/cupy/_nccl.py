"""NCCL between processes of one machine: ranks meet at a socket, and send each other bytes over sockets.

As the real one: a communicator is there when all ranks have come, and waits for them for ever; two ranks on one device
are refused; sends and receives are work of a stream, done in order, each when the other end has its own; where the
other end is gone, an error is told to who asks, and the stream stands still until the communicator is aborted;
destroying one waits for its work. What the real one leaves undefined is an error here: sizes that differ, memory of
another device.

FAKE_NCCL_INIT=hang: nobody ever comes. FAKE_NCCL_STALL=n: after n operations of a process nothing arrives any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import struct
import threading
import time
import uuid
from typing import Any

from . import _heap, _state
from ._errors import CUDARuntimeError
from .cuda import runtime

NCCL_INT8, NCCL_UINT8, NCCL_INT32, NCCL_INT64 = 0, 1, 2, 4
NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64 = 6, 7, 8
_ITEM = {0: 1, 1: 1, 2: 4, 3: 4, 4: 8, 5: 8, 6: 2, 7: 4, 8: 8, 9: 2}
_ID_NBYTES = 128
_HEADER = struct.Struct("<cQ")
_CHUNK = 1 << 20
_POLL_S = 0.02
_TEXTS = {
    0: ("SUCCESS", "no error"),
    1: ("UNHANDLED_CUDA_ERROR", "unhandled cuda error (run with NCCL_DEBUG=INFO for details)"),
    2: ("SYSTEM_ERROR", "unhandled system error (run with NCCL_DEBUG=INFO for details)"),
    3: ("INTERNAL_ERROR", "internal error - please report this issue to the NCCL developers"),
    4: ("INVALID_ARGUMENT", "invalid argument (run with NCCL_DEBUG=WARN for details)"),
    5: ("INVALID_USAGE", "invalid usage (run with NCCL_DEBUG=WARN for details)"),
    6: ("REMOTE_ERROR", "remote process exited or there was a network error"),
}
_INVALID_ARGUMENT, _INVALID_USAGE, _SYSTEM, _REMOTE = 4, 5, 2, 6


class NcclError(RuntimeError):
    def __init__(self, status: int) -> None:
        self.status = status
        name, text = _TEXTS[status]  # KeyError for 7 (in progress): so does the real one
        super().__init__(f"NCCL_ERROR_{name}: {text}")

    def __reduce__(self) -> tuple[type[NcclError], tuple[int]]:
        return type(self), (self.status,)


def get_build_version() -> int:
    return 22501


def get_version() -> int:
    return 23203


def get_unique_id() -> bytes:
    """Of a place where ranks meet, which this process keeps open until they have."""
    name = f"fake-nccl-{os.getpid()}-{uuid.uuid4().hex}"
    listener = _listen(name)
    threading.Thread(target=_introduce, args=(listener,), daemon=True).start()
    return name.encode().ljust(_ID_NBYTES, b"\0")


def _listen(name: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind("\0" + name)
    made.listen()
    return made


def _introduce(listener: socket.socket) -> None:
    """Tell all ranks of each other when all have come."""
    known: dict[int, tuple[socket.socket, dict[str, Any]]] = {}
    while True:
        sock, _ = listener.accept()
        with sock.makefile("r") as file:
            told = json.loads(file.readline())
        known[told["rank"]] = (sock, told)
        if len(known) == told["ndev"]:
            break
    devices = [rank["device"] for _, rank in known.values()]
    status = _INVALID_USAGE if len(set(devices)) < len(devices) else 0  # "Duplicate GPU detected"
    answer = {"status": status, "places": {rank: told["place"] for rank, (_, told) in known.items()}}
    for sock, _ in known.values():
        sock.sendall(json.dumps(answer).encode() + b"\n")
        sock.close()
    listener.close()


class _Operation(_state.Pending):
    """A send or a receive, done by the communicator's own thread when the stream comes to it."""

    def __init__(
        self, communicator: NcclCommunicator, kind: str, address: int, nbytes: int, peer: int, stream: int
    ) -> None:
        self.stream = _state.stream_of(stream)
        self.kind, self.address, self.nbytes, self.peer = kind, address, nbytes, peer
        self._communicator = communicator
        self._begun = False
        self.ended = threading.Event()

    def begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._communicator._work.put(self)

    @property
    def done(self) -> bool:
        return self.ended.is_set()

    def wait(self) -> None:
        self.ended.wait()


class NcclCommunicator:
    comm = 0

    def __init__(self, ndev: int, commId: bytes, rank: int, config: Any = None) -> None:
        if type(commId) is not bytes:
            raise TypeError(f"Argument 'commId' has incorrect type (expected bytes, got {type(commId).__name__})")
        if len(commId) != _ID_NBYTES:
            raise ValueError(f"commId length {len(commId)} != {_ID_NBYTES}.")
        if not 0 <= rank < ndev:
            raise NcclError(_INVALID_ARGUMENT)
        if os.environ.get("NCCL_COMM_BLOCKING") == "0":
            raise KeyError(7)
        self._rank, self._size, self._device = rank, ndev, _state.current_device()
        self._peers: dict[int, socket.socket] = {}
        self._async_status = 0
        self._aborted = False
        self._operations: list[_Operation] = []
        self._work: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        if os.environ.get("FAKE_NCCL_INIT") == "hang":
            threading.Event().wait()
        self._meet(commId)
        self.comm = id(self)
        _state.counts["nccl communicator"] += 1
        self._thread = threading.Thread(target=self._go, daemon=True)
        self._thread.start()
        _state.at_shutdown.append(self.abort)

    def _meet(self, unique_id: bytes) -> None:
        with _listen(place := f"fake-nccl-rank-{uuid.uuid4().hex}") as listener:
            self._meet_at(unique_id, listener, place)

    def _meet_at(self, unique_id: bytes, listener: socket.socket, place: str) -> None:
        device = runtime.getDeviceProperties(self._device)["uuid"].hex()
        told = {"rank": self._rank, "ndev": self._size, "device": device, "place": place}
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as root:
            try:
                root.connect("\0" + unique_id.rstrip(b"\0").decode())
            except OSError:
                raise NcclError(_SYSTEM) from None
            root.sendall(json.dumps(told).encode() + b"\n")
            with root.makefile("r") as file:
                line = file.readline()
        if not line:
            raise NcclError(_REMOTE)
        answer = json.loads(line)
        if answer["status"]:
            raise NcclError(answer["status"])
        for other in range(self._rank):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect("\0" + answer["places"][str(other)])
            sock.sendall(bytes([self._rank]))
            self._peers[other] = sock
        for _ in range(self._size - 1 - self._rank):
            sock, _ = listener.accept()
            self._peers[sock.recv(1)[0]] = sock

    # -- the thread that does what streams come to

    def _go(self) -> None:
        while True:
            operation = self._work.get()
            if operation is None:
                return
            try:
                self._do(operation)
            except (OSError, EOFError):
                self._async_status = self._async_status or _REMOTE
                self._stand_still()
            if self._aborted and operation.kind == "recv":
                _heap.bytes_at(operation.address, operation.nbytes)[:] = 0xFE  # whatever had come by then
            operation.ended.set()
            operation.stream.drain(wait=False)  # goes on by itself

    def _stand_still(self) -> None:
        while not self._aborted:
            time.sleep(_POLL_S)

    def _do(self, operation: _Operation) -> None:
        global _n_operations
        _n_operations += 1
        if _n_operations > int(os.environ.get("FAKE_NCCL_STALL", str(1 << 60))):
            self._stand_still()
            return
        memory = _heap.bytes_at(operation.address, operation.nbytes)
        sock = self._peers[operation.peer]
        if operation.kind == "send":
            sock.sendall(_HEADER.pack(b"S", operation.nbytes))
            kind, nbytes = _HEADER.unpack(self._read(sock, _HEADER.size))
            if kind != b"R" or nbytes != operation.nbytes:
                self._async_status = _INVALID_USAGE
                self._stand_still()
                return
            for start in range(0, operation.nbytes, _CHUNK):
                sock.sendall(memory[start : start + _CHUNK].tobytes())
            return
        sock.sendall(_HEADER.pack(b"R", operation.nbytes))
        kind, nbytes = _HEADER.unpack(self._read(sock, _HEADER.size))
        if kind != b"S" or nbytes != operation.nbytes:
            self._async_status = _INVALID_USAGE
            self._stand_still()
            return
        filled = 0
        while filled < operation.nbytes:
            part = sock.recv(min(_CHUNK, operation.nbytes - filled))
            if not part:
                raise EOFError
            memory[filled : filled + len(part)] = bytearray(part)
            filled += len(part)

    def _read(self, sock: socket.socket, nbytes: int) -> bytes:
        found = b""
        while len(found) < nbytes:
            part = sock.recv(nbytes - len(found))
            if not part:
                raise EOFError
            found += part
        return found

    # -- what the real one has

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._give("send", sendbuf, count, datatype, peer, stream)

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._give("recv", recvbuf, count, datatype, peer, stream)

    def _give(self, kind: str, address: int, count: int, datatype: int, peer: int, stream: int) -> None:
        if not self.comm or datatype not in _ITEM or not 0 <= peer < self._size or peer == self._rank:
            raise NcclError(_INVALID_ARGUMENT)
        nbytes = count * _ITEM[datatype]
        if runtime.device_of(address) != self._device or _state.stream_of(stream).device_id != self._device:
            raise NcclError(_INVALID_ARGUMENT)
        try:
            runtime._extent(address, nbytes)
        except CUDARuntimeError:
            raise NcclError(_INVALID_ARGUMENT) from None
        if _state.capturing(stream) is not None:
            raise CUDARuntimeError(900)
        self._operations = [operation for operation in self._operations if not operation.done]
        operation = _Operation(self, kind, address, nbytes, peer, stream)
        self._operations.append(operation)
        _state.counts[f"nccl {kind}"] += 1
        _state.counts[f"nccl {kind} bytes"] += nbytes
        _state.enqueue(stream, operation)

    def check_async_error(self) -> None:
        if not self.comm:
            raise NcclError(_INVALID_ARGUMENT)
        if self._async_status:
            raise NcclError(self._async_status)

    def rank_id(self) -> int:
        if not self.comm:
            raise NcclError(_INVALID_ARGUMENT)
        return self._rank

    def size(self) -> int:
        if not self.comm:
            raise NcclError(_INVALID_ARGUMENT)
        return self._size

    def device_id(self) -> int:
        if not self.comm:
            raise NcclError(_INVALID_ARGUMENT)
        return self._device

    def abort(self) -> None:
        if self.comm:
            self._end(aborted=True)
            _state.counts["nccl abort"] += 1

    def destroy(self) -> None:
        if self.comm:
            for operation in self._operations:
                operation.wait()
            if self.comm:  # not aborted meanwhile
                self._end(aborted=False)
                _state.counts["nccl destroy"] += 1

    def _end(self, aborted: bool) -> None:
        _state.at_shutdown.remove(self.abort)
        self.comm = 0
        self._aborted = aborted
        for sock in self._peers.values():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._work.put(None)
        self._thread.join()
        for sock in self._peers.values():
            sock.close()
        for operation in self._operations:
            operation.ended.set()


_n_operations = 0
