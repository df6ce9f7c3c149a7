"""A connection of two processes on one host: messages that arrive whole or not at all, descriptors, an end.

Sockets are sequenced packets in the abstract namespace: no file is left behind, and a peer's death is the end of the
stream at once. Sending never blocks: what the socket does not take waits here, so that two processes that have much
to say to each other can't wait for each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from array import array
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from distort.cluster.shm.slots import Slot, map_slot

#: what a socket is asked to buffer; the kernel may allow less
SOCKET_NBYTES = 1 << 20
#: the largest message
_BUFFER_NBYTES = 1 << 18
_ANCILLARY_NBYTES = socket.CMSG_SPACE(array("i").itemsize)

# plain numbers: the flags of the module are enumerations, and slow
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)

# first bytes of the messages that a channel keeps to itself; others begin with what their senders choose
_ANNOUNCE, _FORGET, _ANNOUNCE_PAGE = range(3)
_SLOT = struct.Struct("<BIQ")  # number and capacity of a slot whose descriptor comes along
#: the first byte that a message of others may have
FIRST_KIND = 3


class PeerGone(Exception):
    """The other end is closed."""


class Pins(Protocol):
    """Page-locks memory that a GPU is to copy from or to (cluster/gpu/pinning.py)."""

    def lock(self, memory: Any) -> None: ...

    def unlock(self, memory: Any) -> None: ...


class Channel:
    """One end. Any thread may send; one thread at a time receives."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_NBYTES)
        self._socket = sock
        self._buffer = bytearray(_BUFFER_NBYTES)
        self._view = memoryview(self._buffer)
        self._buffers = [self._buffer]
        self._lock = threading.Lock()
        self._outbox: deque[tuple[bytes, int | None]] = deque()  # messages, each with a descriptor
        self._segments: dict[int, Any] = {}  # the peer's slots that are mapped here
        self.gone = False
        #: whether the peer reads a GPU's memory (cluster/gpu), and what is told of slots that are mapped here, and end
        self.takes_pages = False
        self.pins: Pins | None = None

    def fileno(self) -> int:
        return self._socket.fileno()

    # -- sending

    def send(self, message: bytes) -> None:
        """Raises PeerGone. What can't be sent at once is sent by :meth:`flush`."""
        self._send(message)

    def announce(self, slot: Slot) -> None:
        """Let the peer map a slot, before the first message that speaks of it. Raises PeerGone."""
        if self not in slot.known_to:
            slot.known_to.add(self)
            self._send(_SLOT.pack(_ANNOUNCE, slot.number, slot.capacity), slot.fd)

    def announce_page(self, page: Any) -> None:
        """The same for a slot of a GPU's memory. Raises PeerGone."""
        if self not in page.known_to:
            page.known_to.add(self)
            self._send(_SLOT.pack(_ANNOUNCE_PAGE, page.number, page.capacity), page.fd)

    def forget(self, numbers: Sequence[int]) -> None:
        """Tell the peer that slots are given back. Raises PeerGone."""
        self._send(bytes([_FORGET]) + array("I", numbers).tobytes())

    def _send(self, message: bytes, fd: int | None = None) -> None:
        with self._lock:
            if self.gone:
                raise PeerGone
            if self._outbox or not self._try(message, fd):
                # the descriptor must outlive its slot
                self._outbox.append((message, None if fd is None else os.dup(fd)))

    def _try(self, message: bytes, fd: int | None) -> bool:
        try:
            if fd is None:
                self._socket.send(message)
            else:
                self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in (errno.ENOBUFS, errno.ETOOMANYREFS):  # for a moment
                return False
            self.gone = True
            raise PeerGone from error
        return True

    @property
    def waiting(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._outbox)

    def flush(self) -> bool:
        """Send what waits, as far as the socket takes it. True where nothing is left. Raises PeerGone."""
        with self._lock:
            while self._outbox:
                message, fd = self._outbox[0]
                if not self._try(message, fd):
                    return False
                self._outbox.popleft()
                if fd is not None:
                    os.close(fd)
        return True

    # -- receiving

    def receive(self) -> memoryview | None:
        """The next message, valid until the next call; None where there is none yet. Raises PeerGone at the end."""
        while True:
            try:
                nbytes, ancillary, flags, _ = self._socket.recvmsg_into(self._buffers, _ANCILLARY_NBYTES, _CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as error:
                self.gone = True
                raise PeerGone from error
            if nbytes == 0 or flags & _CUT:
                self.gone = True
                raise PeerGone
            kind = self._buffer[0]
            if kind == _ANNOUNCE:
                _, number, capacity = _SLOT.unpack_from(self._buffer)
                (fd,) = array("i", ancillary[0][2])
                self._segments[number] = memory = map_slot(fd, capacity)
                if self.pins is not None:
                    self.pins.lock(memory)
            elif kind == _FORGET:
                for number in array("I", self._buffer[1:nbytes]):
                    self._let_go(number)
            elif kind == _ANNOUNCE_PAGE:
                from distort.cluster.gpu.imports import DevicePage

                _, number, capacity = _SLOT.unpack_from(self._buffer)
                (fd,) = array("i", ancillary[0][2])
                self._segments[number] = DevicePage(map_slot(fd, capacity))
            else:
                return self._view[:nbytes]

    def _let_go(self, number: int) -> None:
        memory = self._segments.pop(number, None)
        if self.pins is not None and memory is not None:
            self.pins.unlock(memory)

    def find_slot(self, number: int) -> Any:
        """The memory of the peer's slot."""
        return self._segments[number]

    def close(self) -> None:
        with self._lock:
            self.gone = True
            for _, fd in self._outbox:
                if fd is not None:
                    os.close(fd)
            self._outbox.clear()
        for number in list(self._segments):
            self._let_go(number)
        self._socket.close()


def listen(name: str) -> socket.socket:
    """A listener under a name that ends with its process."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        made.bind("\0" + name)
        made.listen(64)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def dial(name: str) -> socket.socket:
    """A connection that blocks, for a while. Raises OSError where nobody listens under the name on this host."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        made.settimeout(5.0)
        made.connect("\0" + name)
    except BaseException:
        made.close()
        raise
    return made


def connect(name: str) -> Channel:
    """Raises OSError where nobody listens under the name on this host."""
    return Channel(dial(name))


def network_of_host() -> str:
    """What tells hosts apart that share a kernel: abstract names are seen within one network namespace."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/net")
    return ""
