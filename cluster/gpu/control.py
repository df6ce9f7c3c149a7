"""What the two ends of a link between hosts tell each other: one connection, fixed messages, an end that is noticed.

Who listens and who connects show each other that they know the link's token, which itself does not travel.
"""

from __future__ import annotations

import hmac
import os
import select
import socket
import struct
import time

#: the reader asks for a value by its key; the sender has given it to its GPU to send, or has it no more; the link works
WANT, SENDING, GONE, READY = range(1, 5)
_MESSAGE = struct.Struct("<BQQ")  # kind, key, bytes
_NONCE_NBYTES, _PROOF_NBYTES = 32, 32
#: a connection of which nothing is heard is looked after: first after so long, then each so long, so many times
_IDLE_S, _INTERVAL_S, _PROBES = 5, 5, 3

Message = tuple[int, int, int]


class LinkCut(Exception):
    """The other end is gone, or is none of ours."""


def listen(address: str) -> socket.socket:
    """At a port of an address of this host. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.bind((address, 0))
        made.listen(4)
    except BaseException:
        made.close()
        raise
    return made


class Control:
    """One end. Any thread may say something; one thread at a time hears."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("KEEPIDLE", _IDLE_S), ("KEEPINTVL", _INTERVAL_S), ("KEEPCNT", _PROBES)):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{option}"), value)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * (_IDLE_S + _INTERVAL_S * _PROBES))
        self._socket = sock
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._received = b""

    @classmethod
    def accepted(cls, listener: socket.socket, token: bytes, deadline: float) -> Control:
        """Of the first that connects and knows the token. Raises LinkCut when the deadline (monotonic) has passed."""
        while True:
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                sock, _ = listener.accept()
            except TimeoutError as error:
                raise LinkCut("nobody connects to this host") from error
            try:
                sock.settimeout(max(0.01, min(5.0, deadline - time.monotonic())))
                nonce = os.urandom(_NONCE_NBYTES)
                sock.sendall(nonce)
                told = _read(sock, _PROOF_NBYTES + _NONCE_NBYTES)
                if not hmac.compare_digest(told[:_PROOF_NBYTES], _proof(token, b"reader", nonce)):
                    raise LinkCut("a stranger connects")
                sock.sendall(_proof(token, b"sender", told[_PROOF_NBYTES:]))
                sock.settimeout(None)
                return cls(sock)
            except (OSError, LinkCut):  # somebody else, or somebody who has left
                sock.close()

    @classmethod
    def connected(cls, address: str, port: int, token: bytes, deadline: float) -> Control:
        """Raises LinkCut where nobody is there who knows the token."""
        try:
            sock = socket.create_connection((address, port), max(0.01, deadline - time.monotonic()))
        except OSError as error:
            raise LinkCut(f"{address}:{port} can't be reached: {error}") from error
        try:
            nonce = os.urandom(_NONCE_NBYTES)
            sock.sendall(_proof(token, b"reader", _read(sock, _NONCE_NBYTES)) + nonce)
            if not hmac.compare_digest(_read(sock, _PROOF_NBYTES), _proof(token, b"sender", nonce)):
                raise LinkCut(f"a stranger listens at {address}:{port}")
            sock.settimeout(None)
        except OSError as error:
            sock.close()
            raise LinkCut(f"{address}:{port} does not answer: {error}") from error
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def say(self, kind: int, key: int = 0, nbytes: int = 0) -> None:
        """Raises LinkCut."""
        try:
            self._socket.sendall(_MESSAGE.pack(kind, key, nbytes))
        except OSError as error:
            raise LinkCut(f"the connection is cut: {error}") from error

    def hear(self, timeout_s: float) -> Message | None:
        """The next message; None where none comes in time. Raises LinkCut at the end of the connection."""
        while len(self._received) < _MESSAGE.size:
            try:
                if not self._poll.poll(1000 * timeout_s):
                    return None
                part = self._socket.recv(4096)
            except OSError as error:
                raise LinkCut(f"the connection is cut: {error}") from error
            if not part:
                raise LinkCut("the other end is gone")
            self._received += part
        told = _MESSAGE.unpack_from(self._received)
        self._received = self._received[_MESSAGE.size :]
        return told[0], told[1], told[2]

    def shut(self) -> None:
        """Both ends hear that it is over. From any thread."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        self._socket.close()


def _proof(token: bytes, role: bytes, nonce: bytes) -> bytes:
    return hmac.digest(token, role + nonce, "sha256")


def _read(sock: socket.socket, nbytes: int) -> bytes:
    """Raises LinkCut where the other end leaves, and OSError."""
    found = b""
    while len(found) < nbytes:
        part = sock.recv(nbytes - len(found))
        if not part:
            raise LinkCut("the other end has left")
        found += part
    return found
