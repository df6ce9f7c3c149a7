"""What several processes of a host make alike is kept once: arrays by what they hold, in memory that all of them map.

The first process of a group listens under the group's name and keeps the descriptors; others ask it, and hand it what
it lacks. Segments are memfds, sealed before anybody else sees them, and names are abstract: nothing is left behind
whoever is killed when. Where the keeper dies, the next one that asks takes its place; what is mapped stays.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import mmap
import os
import socket
import struct
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from distort.cluster.shm.channel import dial, listen

_DIGEST_NBYTES = 32
_PEER = struct.Struct("3i")  # pid, uid, gid
_TIMEOUT_S = 10.0
_HAVE, _NEED = b"\1", b"\0"
_SEALS = sum(getattr(fcntl, f"F_SEAL_{name}", 0) for name in ("WRITE", "SHRINK", "GROW", "SEAL"))


class Pool:
    """Arrays of the processes that use one ``name``."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._keeper: socket.socket | None = None
        self._kept: dict[bytes, int] = {}  # descriptors, where this process is the keeper

    def share(self, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An array of the same elements, read-only and at the begin of a page, that the group's processes share.

        ``value`` itself where that can't be: without memory for it, or without the descriptors.
        """
        value = np.ascontiguousarray(value)
        data: memoryview = value.reshape(-1).view(np.uint8).data
        digest = hashlib.sha256(data).digest()
        try:
            with self._lock:
                memory = self._find(digest, lambda: _segment(data), len(data))
        except OSError as error:
            logging.getLogger("distort.cluster").warning("Replicas don't share %d bytes: %s", len(data), error)
            return value
        return np.frombuffer(memory, np.uint8).view(value.dtype).reshape(value.shape)

    def _find(self, digest: bytes, make: Callable[[], int], nbytes: int) -> mmap.mmap:
        for _ in range(2):
            self._join()
            if self._keeper is None:
                fd = self._kept.get(digest)
                if fd is None:
                    fd = self._kept.setdefault(digest, make())
                return mmap.mmap(fd, nbytes, prot=mmap.PROT_READ)
            try:
                fd = self._ask(digest, make)
            except (ConnectionError, EOFError):  # the keeper has died
                self._keeper.close()
                self._keeper = None
                continue
            try:
                return mmap.mmap(fd, nbytes, prot=mmap.PROT_READ)
            finally:
                os.close(fd)
        raise OSError(errno.EPIPE, "who keeps them dies time and again")

    def _join(self) -> None:
        """Be the keeper, or connected to it."""
        if self._listener is not None or self._keeper is not None:
            return
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                made = listen(self._name)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                made.setblocking(True)
                self._listener = made
                threading.Thread(target=self._serve, args=(made,), name="distort-pool", daemon=True).start()
                return
            try:
                made = dial(self._name)
            except OSError:
                # it doesn't listen yet, or no more
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            made.settimeout(_TIMEOUT_S)
            if not _same_user(made):
                made.close()
                raise PermissionError(errno.EACCES, "another user has the name of this group")
            self._keeper = made
            return

    # -- those that ask

    def _ask(self, digest: bytes, make: Callable[[], int]) -> int:
        """The descriptor of a segment, which the caller closes."""
        assert self._keeper is not None
        self._keeper.sendall(digest)
        answer, fds = _receive(self._keeper)
        if answer == _NEED:
            made = make()
            try:
                _send(self._keeper, _HAVE, made)
                answer, fds = _receive(self._keeper)
            finally:
                os.close(made)
        return fds[0]

    # -- the keeper

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # closed
            if not _same_user(client):
                client.close()
                continue
            threading.Thread(target=self._answer, args=(client,), name="distort-pool", daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        try:
            with client:
                while True:
                    digest, _ = _receive(client)
                    if digest not in self._kept:
                        _send(client, _NEED)
                        _, (fd,) = _receive(client)
                        # another may have been sooner
                        if self._kept.setdefault(digest, fd) != fd:
                            os.close(fd)
                    _send(client, _HAVE, self._kept[digest])
        except (OSError, EOFError, KeyError, ValueError):
            return  # the client has gone, or the pool is closed

    def close(self) -> None:
        """What was shared stays mapped, where it is."""
        with self._lock:
            for sock in (self._listener, self._keeper):
                if sock is not None:
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)  # who waits in accept() wakes
                    sock.close()
            self._listener = self._keeper = None
            while self._kept:
                os.close(self._kept.popitem()[1])


def _segment(data: memoryview) -> int:
    """The descriptor of a sealed segment with these bytes."""
    fd = os.memfd_create("distort-packed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        written = 0
        while written < len(data):
            written += os.write(fd, data[written:])
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _same_user(sock: socket.socket) -> bool:
    _, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return bool(uid == os.getuid())


def _send(sock: socket.socket, data: bytes, fd: int | None = None) -> None:
    rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))]
    sock.sendmsg([data], rights)


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """A message and the descriptors that came along. Raises EOFError at the end."""
    data, ancillary, _, _ = sock.recvmsg(_DIGEST_NBYTES, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    if not data:
        raise EOFError
    return data, [fd for _, _, part in ancillary for fd in array("i", part)]
