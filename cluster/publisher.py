"""Metrics of a session made public: by Ray's own registry, or at an address of this process.

``distort.metrics=1`` tells Ray once a second; Ray exports them where its agents can (``ray[default]``).
``distort.metrics=HOST:PORT`` serves ``/metrics`` in Prometheus' text format, and ``/activity``, which ``distort top``
reads; it needs nothing but this process, and asks the actors when it is asked.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import uuid
import weakref
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from distort.cluster import metrics
from distort.cluster.errors import ClusterError

if TYPE_CHECKING:
    from distort.cluster.activity import Snapshot
    from distort.cluster.executor import Executor

#: from one telling of Ray to the next
_PERIOD_S = 1.0
#: how often a server looks whether its session was closed
_LOOK_S = 0.2
#: what a reader may take to send its request
_REQUEST_TIMEOUT_S = 10.0


class Publisher:
    """One session's. ``wanted`` is ``1`` or ``host:port`` (port 0: one that is free). Raises ClusterError."""

    def __init__(self, wanted: str, model: str) -> None:
        self.labels = {"session": uuid.uuid4().hex[:8], "model": model}
        self._executor: weakref.ref[Executor] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._server = None if wanted == "1" else _listen(wanted, self)
        if self._server is not None:
            self._thread = threading.Thread(
                target=self._serve, args=(self._server,), name="distort-metrics", daemon=True
            )
            self._thread.start()
        #: where the metrics are, for people
        self.where = "" if self._server is None else f"at {self.url}/metrics"

    @property
    def url(self) -> str:
        assert self._server is not None, "only what is served has an address"
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def follow(self, executor: Executor) -> None:
        """Publish what this executor does, as long as it lives."""
        self._executor = weakref.ref(executor, lambda _: self.stop())
        if self._server is None:
            self.where = _ray_exports()
            threading.Thread(target=self._tell_ray, name="distort-metrics", daemon=True).start()

    def snapshot(self) -> Snapshot | None:
        """None while there are no actors, or when they are gone."""
        executor = self._executor() if self._executor is not None else None
        return None if executor is None or self._stop.is_set() else executor.activity()

    def _serve(self, server: ThreadingHTTPServer) -> None:
        with server:
            while not self._stop.is_set():
                server.handle_request()

    def _tell_ray(self) -> None:
        registry = metrics.RayMetrics(self.labels)
        while not self._stop.wait(_PERIOD_S):
            snapshot = self.snapshot()
            if snapshot is not None:
                registry.record(snapshot)

    def stop(self) -> None:
        """Publish no more, and soon listen no more."""
        self._stop.set()

    def close(self) -> None:
        """As :meth:`stop`, and wait for it. Safe to call twice, and from any thread."""
        self.stop()
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(2 * _LOOK_S)


def _ray_exports() -> str:
    """Where Ray exports metrics of this process; logs a warning where it doesn't."""
    from importlib import import_module

    ray: Any = import_module("ray")  # its stubs lack types here
    here = ray.get_runtime_context().get_node_id()
    for node in ray.nodes():
        if node.get("NodeID") == here and node.get("MetricsExportPort", -1) > 0:
            return f"at http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics, by Ray"
    text = (
        "told to Ray, which exports none: its agents lack what that takes. Install ray[default] where the cluster "
        "runs, or have this process serve them with distort.metrics=HOST:PORT"
    )
    logging.getLogger("distort.cluster").warning("distort.metrics=1: metrics are %s.", text)
    return text


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], publisher: Publisher) -> None:
        self.publisher = weakref.ref(publisher)
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        publisher = self.server.publisher()
        path = self.path.partition("?")[0]
        if publisher is None or path not in ("/metrics", "/activity"):
            self.send_error(404, "there are /metrics and /activity")
            return
        snapshot = publisher.snapshot()
        if snapshot is None:
            self.send_error(503, "the actors are not there")
        elif path == "/metrics":
            self._answer("text/plain; version=0.0.4; charset=utf-8", metrics.to_text(snapshot, publisher.labels))
        else:
            told = {**publisher.labels, "snapshot": snapshot.as_dict()}
            self._answer("application/json", json.dumps(told))

    def _answer(self, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed: stderr belongs to the program."""


def _listen(address: str, publisher: Publisher) -> ThreadingHTTPServer:
    host, _, port = address.rpartition(":")
    try:
        server = _Server((host.strip("[]"), int(port)), publisher)
    except OSError as error:
        raise ClusterError(
            f"distort.metrics={address}: this process can't listen there: {error}. Each session needs a port of its "
            "own; 0 takes one that is free."
        ) from error
    server.timeout = _LOOK_S
    return server
