"""Asks what listens at an address whether it is a Ray cluster, and whether it wants a token. Takes milliseconds.

Ray itself waits 40 s for a port that nobody serves and 20 s where its token is refused; and a program that shows a
token to a cluster without tokens joins it, and then none of its actors can answer it. So one call of Ray's is made by
hand: HTTP/2 (RFC 9113) with literal headers (RFC 7541), as gRPC answers them in plain text too.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_METHOD = b"/ray.rpc.NodeInfoGcsService/GetClusterId"
_UNAUTHENTICATED = b"16"
_EMPTY_MESSAGE = b"\0\0\0\0\0"

NOT_RAY, OPEN, WANTS_TOKEN = "not Ray", "open", "wants a token"


def probe(host: str, port: int, timeout_s: float, token: str = "") -> str:
    """What is there: NOT_RAY, OPEN (Ray, with this token or without one), or WANTS_TOKEN (another one).

    Raises OSError where nobody answers within ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    data = b""
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return OPEN  # that somebody listens is all that can be seen from here
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _call(token))
        while not _status(data):
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            received = connection.recv(4096)
            if not received:
                break
            data += received
            if len(data) >= 4 and data[3] != _SETTINGS:
                return NOT_RAY
    if not _status(data):
        return NOT_RAY
    return WANTS_TOKEN if _status(data) == _UNAUTHENTICATED else OPEN


def _status(data: bytes) -> bytes:
    """gRPC's status in what has come so far; empty while it hasn't."""
    _, found, rest = data.partition(b"grpc-status")
    if not found or len(rest) < 2 or len(rest) <= rest[0]:
        return b""
    return rest[1 : 1 + rest[0]]


def _call(token: str) -> bytes:
    headers = b"\x83\x86"  # :method POST, :scheme http
    headers += b"\x04" + _text(_METHOD) + b"\x01" + _text(b"ray")  # :path, :authority
    headers += _header(b"content-type", b"application/grpc") + _header(b"te", b"trailers")
    if token:
        headers += _header(b"authorization", b"Bearer " + token.encode())
    return _frame(_HEADERS, _END_HEADERS, 1, headers) + _frame(_DATA, _END_STREAM, 1, _EMPTY_MESSAGE)


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _header(name: bytes, value: bytes) -> bytes:
    return b"\x10" + _text(name) + _text(value)  # never indexed


def _text(content: bytes) -> bytes:
    nbytes = len(content)
    if nbytes < 127:
        return bytes([nbytes]) + content
    rest, length = nbytes - 127, bytearray([127])
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    length.append(rest)
    return bytes(length) + content


def token_file() -> Path:
    """Where Ray keeps the user's token."""
    return Path.home() / ".ray" / "auth_token"


def token_here() -> str:
    """The token that Ray would show; "" where there is none."""
    if "RAY_AUTH_TOKEN" in os.environ:
        return os.environ["RAY_AUTH_TOKEN"].strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or token_file()
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
