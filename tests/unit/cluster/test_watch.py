"""Nodes that are asked whether they are there: real sockets, of a stand-in that speaks the few words asked for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from distort.cluster import probe
from distort.cluster.nodes import Node, answering
from distort.cluster.watch import NodeWatch

SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def trailers(status: bytes) -> bytes:
    body = b"\x88\x00\x0bgrpc-status" + bytes([len(status)]) + status
    return len(body).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + body


class StandIn:
    """Serves one answer a connection, whatever it is asked; notes what that was."""

    def __init__(self, answer: bytes, token: str = "") -> None:
        self.answer, self.token = answer, token
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                asked = connection.recv(4096)
                shown = self.token.encode() in asked
                connection.sendall(SETTINGS + trailers(b"0" if shown else b"16") if self.token else self.answer)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


@pytest.fixture
def ray() -> Iterator[StandIn]:
    server = StandIn(SETTINGS + trailers(b"0"))
    yield server
    server.close()


def node(port: int, name: str = "n") -> Node:
    return Node(name, "127.0.0.1", port, "worker", 1, 1, 0, 0, False)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (SETTINGS + trailers(b"0"), probe.OPEN),
        (SETTINGS + trailers(b"12"), probe.OPEN),  # a raylet doesn't know the call
        (SETTINGS + trailers(b"16"), probe.WANTS_TOKEN),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", probe.NOT_RAY),
        (SETTINGS, probe.NOT_RAY),
        (b"", probe.NOT_RAY),
    ],
)
def test_what_listens(answer: bytes, found: str) -> None:
    server = StandIn(answer)
    try:
        assert probe.probe("127.0.0.1", server.port, 2) == found
    finally:
        server.close()


@pytest.mark.parametrize("token", ["0123456789abcdef", "x" * 300])
def test_a_token_is_shown(token: str) -> None:
    server = StandIn(b"", token)
    try:
        assert probe.probe("127.0.0.1", server.port, 2) == probe.WANTS_TOKEN
        assert probe.probe("127.0.0.1", server.port, 2, "another") == probe.WANTS_TOKEN
        assert probe.probe("127.0.0.1", server.port, 2, token) == probe.OPEN
    finally:
        server.close()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        with pytest.raises(TimeoutError):
            probe.probe("127.0.0.1", silent.getsockname()[1], 0.05)
        assert answering([node(silent.getsockname()[1])], 0.05) == ()
        port = silent.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        probe.probe("127.0.0.1", port, 0.05)


def test_who_answers(ray: StandIn) -> None:
    assert answering([node(1, "a"), node(ray.port, "b")], 1) == (node(ray.port, "b"),)


def test_a_node_is_lost_after_two_misses_and_told_once(ray: StandIn) -> None:
    at = {0: node(ray.port, "a"), 1: node(1, "b"), 2: node(1, "b")}
    told: list[tuple[int, str]] = []
    watch = NodeWatch(lambda: at, lambda unit, why: told.append((unit, why)), interval_s=60)
    watch.look()
    assert told == []
    watch.look()
    watch.look()
    why = "its node worker (127.0.0.1) does not answer"
    assert told == [(1, why), (2, why)]
    at[1] = node(ray.port, "a")  # it moved
    watch.look()
    assert len(told) == 2
    at[0] = at[1] = node(1, "c")
    watch.look()
    watch.look()
    assert told[2:] == [(0, why), (1, why)]
    watch.close()
