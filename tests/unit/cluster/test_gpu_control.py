"""The connection of two ends of a link: who may have it, what is said, and its end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from distort.cluster.gpu.control import GONE, READY, SENDING, WANT, Control, LinkCut, listen

TOKEN = b"t" * 32


class Ends:
    """Both, or what kept either from coming."""

    def __init__(self, token: bytes = TOKEN, timeout_s: float = 5.0) -> None:
        self.listener = listen("127.0.0.1")
        self.port = self.listener.getsockname()[1]
        self.sender: Control | None = None
        self.error: Exception | None = None

        def accept() -> None:
            try:
                self.sender = Control.accepted(self.listener, token, time.monotonic() + timeout_s)
            except LinkCut as error:
                self.error = error

        self.thread = threading.Thread(target=accept)
        self.thread.start()

    def connect(self, token: bytes = TOKEN) -> Control:
        return Control.connected("127.0.0.1", self.port, token, time.monotonic() + 5)

    def close(self) -> None:
        self.thread.join()
        self.listener.close()
        if self.sender is not None:
            self.sender.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


def test_what_is_said_is_heard_in_order(ends: Ends) -> None:
    reader = ends.connect()
    ends.thread.join()
    assert ends.sender is not None
    for key in range(1, 200):
        reader.say(WANT, key)
    assert [ends.sender.hear(1.0) for _ in range(199)] == [(WANT, key, 0) for key in range(1, 200)]
    assert ends.sender.hear(0.0) is None
    told = [(SENDING, 1, 1 << 40), (GONE, 2, 0), (READY, 0, 0)]
    for message in told:
        ends.sender.say(*message)
    assert [reader.hear(1.0) for _ in told] == told
    reader.close()
    with pytest.raises(LinkCut, match=r"gone|cut"):
        ends.sender.hear(1.0)


def test_either_end_can_shut_it_for_both_while_they_hear(ends: Ends) -> None:
    reader = ends.connect()
    ends.thread.join()
    assert ends.sender is not None
    threading.Timer(0.05, reader.shut).start()
    with pytest.raises(LinkCut):
        ends.sender.hear(5.0)
    with pytest.raises(LinkCut):
        reader.hear(5.0)
    reader.shut()
    reader.close()


def test_strangers_are_sent_away_and_the_right_one_is_waited_for(ends: Ends) -> None:
    with pytest.raises(LinkCut, match=r"left|answer"):
        ends.connect(b"x" * 32)
    with socket.create_connection(("127.0.0.1", ends.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n" + b"\r\n" * 40)
        assert len(stranger.recv(64)) == 32  # a number to answer for, and then nothing
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(64) == b""
    reader = ends.connect()
    ends.thread.join()
    assert ends.sender is not None
    reader.close()


def test_a_reader_asks_for_proof_too() -> None:
    with listen("127.0.0.1") as stranger:

        def pretend() -> None:
            sock, _ = stranger.accept()
            with sock:
                sock.sendall(bytes(32))
                sock.recv(64)
                sock.sendall(bytes(32))

        thread = threading.Thread(target=pretend)
        thread.start()
        with pytest.raises(LinkCut, match="a stranger listens"):
            Control.connected("127.0.0.1", stranger.getsockname()[1], TOKEN, time.monotonic() + 5)
        thread.join()


def test_nobody_is_waited_for_in_vain() -> None:
    ends = Ends(timeout_s=0.1)
    ends.close()
    assert isinstance(ends.error, LinkCut)
    with pytest.raises(LinkCut, match="can't be reached"):
        Control.connected("127.0.0.1", ends.port, TOKEN, time.monotonic() + 1)
