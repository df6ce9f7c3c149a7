"""What there is to run on: an embedded Ray of our own, the program's Ray, or a cluster at an address.

A process has at most one connection to Ray. Whoever opened it owns it: an embedded cluster is started once, serves
every session of the process, listens on loopback only and ends with the process; a cluster that the program or
somebody else started is used and left as it was.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distort.cluster.errors import AddressError, ClusterError, Forked

#: how long a cluster at an address may take to answer
CONNECT_TIMEOUT_S = 10.0

# the HTTP/2 client preface and an empty SETTINGS frame: whoever serves gRPC answers with SETTINGS of its own
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})

_lock = threading.Lock()
_connection: Connection | None = None
_pid = 0  # of the process that has it


@dataclass(frozen=True, slots=True)
class Connection:
    address: str  # "embedded", "program" (it called ray.init itself) or host:port
    embedded: bool
    n_cpus: float


def attach(address: str = "", *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> Connection:
    """The process's connection to Ray, opened where there is none.

    ``address`` is "" (an embedded cluster, or the program's own connection), "auto" (the cluster running on this
    machine) or "host:port". Raises :class:`AddressError` where nobody answers within ``connect_timeout_s``.
    """
    global _connection, _pid  # noqa: PLW0603  # a process has one connection to Ray, and this is it
    if _pid not in (0, os.getpid()):
        raise Forked(_pid)
    if address:
        _offer_token()
    import ray

    with _lock:
        _pid = os.getpid()
        if _connection is not None and ray.is_initialized():
            if address and not _same_cluster(address, _connection, ray):
                if address != "auto":
                    _check_answers(address, address, connect_timeout_s)
                raise AddressError(
                    f"distort.address={address}: this process is connected to another Ray cluster "
                    f"({_connection.address}), and a process can use one only. Close it with ray.shutdown() first."
                )
            return _connection
        if ray.is_initialized():  # the program's own ray.init(): used, never shut down
            if address and not _same_cluster(address, None, ray):
                raise AddressError(
                    f"distort.address={address}: this program already called ray.init() for another cluster, and a "
                    "process can use one only. Close it with ray.shutdown() first."
                )
            _connection = Connection("program", False, _n_cpus(ray))
        elif address:
            _connection = _join(address, connect_timeout_s)
        else:
            _connection = _lasting(_start_embedded)
        return _connection


def _same_cluster(address: str, connection: Connection | None, ray: Any) -> bool:
    if connection is not None and connection.address == address:
        return True
    if address == "auto":
        return connection is None or not connection.embedded
    return str(ray.get_runtime_context().gcs_address) == address


def _n_cpus(ray: Any) -> float:
    return float(ray.cluster_resources().get("CPU", 0))


def _quiet_environment() -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    # a stage's error reaches its run by the report; the values that then nobody fetches are no news
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")


def _offer_token() -> None:
    """Show the machine's Ray token to a cluster that is joined: Ray (2.60) makes one by itself and then asks for it.

    Ray reads the variable when it is imported; where the program imported it before, the program has chosen.
    """
    if "RAY_AUTH_MODE" not in os.environ and (
        "RAY_AUTH_TOKEN" in os.environ or (Path.home() / ".ray" / "auth_token").exists()
    ):
        os.environ["RAY_AUTH_MODE"] = "token"


def _lasting(start: Callable[[], Connection]) -> Connection:
    """Call on a thread that lives as long as the process.

    Ray has its processes killed with their parent, and to the kernel that is the thread that made them.
    """
    answers: queue.SimpleQueue[Connection | BaseException] = queue.SimpleQueue()

    def call() -> None:
        try:
            answers.put(start())
        except BaseException as error:  # noqa: BLE001  # it is raised where it is waited for
            answers.put(error)
            return
        threading.Event().wait()

    threading.Thread(target=call, name="distort-cluster", daemon=True).start()
    answer = answers.get()
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _start_embedded() -> Connection:
    import ray
    from ray._private import worker as ray_worker

    _quiet_environment()
    try:
        with _loopback_kept():
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                _node_ip_address="127.0.0.1",
                num_cpus=os.cpu_count(),
                object_store_memory=_object_store_nbytes(),
            )
    except (OSError, RuntimeError, ValueError, ConnectionError) as error:
        raise ClusterError(f"An embedded Ray cluster could not be started: {error}") from error
    # Ray prints the raylet's messages (a worker died, …) to stdout whatever log_to_driver says; the error that the
    # run raises says it better, and stdout belongs to the program
    ray_worker.print_to_stdstream = _log_message  # type: ignore[assignment]  # it takes what Ray passes, and more
    return Connection("embedded", True, _n_cpus(ray))


@contextlib.contextmanager
def _loopback_kept() -> Iterator[None]:
    """Ray swaps 127.0.0.1 for the machine's outward address unless it is told that this is no multi-host cluster.

    (That is its default on Windows and macOS.) Its servers bind to loopback only when that is the node's address, and
    a process that joins such a cluster must look for it there.
    """
    from ray._private import ray_constants

    multi_host, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = multi_host


def _log_message(message: dict[str, Any], *_: Any, **__: Any) -> None:
    logging.getLogger("distort.cluster").debug("%s", " ".join(str(line) for line in message.get("lines", ())))


def _object_store_nbytes() -> int:
    """30 % of the memory, and no more than /dev/shm holds (Ray would fall back to slow files)."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    wanted = int(total * 0.3)
    with contextlib.suppress(OSError):
        status = os.statvfs("/dev/shm")
        wanted = min(wanted, int(status.f_bavail * status.f_frsize * 0.9))
    return max(wanted, 80 * 1024 * 1024)


def _join(address: str, connect_timeout_s: float) -> Connection:
    import ray

    _quiet_environment()
    target = address
    if address == "auto":
        target = _running_cluster()
    _check_answers(target, address, connect_timeout_s)
    host = target.rpartition(":")[0]
    keeping = _loopback_kept() if host in _LOOPBACK else contextlib.nullcontext()
    try:
        with keeping:
            ray.init(address=target, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise AddressError(f"distort.address={address}: the cluster at {target} refused: {error}") from error
    return Connection(address, False, _n_cpus(ray))


def _running_cluster() -> str:
    from ray._private import services

    found = services.get_ray_address_from_environment("auto", None)
    if not found:
        raise AddressError(
            "distort.address=auto: no Ray cluster runs on this machine. Start one with `ray start --head`, or leave "
            "the address out for an embedded one."
        )
    return str(found)


def _check_answers(target: str, address: str, timeout_s: float) -> None:
    """Ray itself waits 40 s for a port that nobody serves; ask first, within our own deadline."""
    host, separator, port = target.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise AddressError(f"distort.address={address}: not an address. Use host:port or auto.")
    deadline = time.monotonic() + timeout_s
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s) as connection:
            connection.sendall(_HTTP2_HELLO)
            connection.settimeout(max(0.1, deadline - time.monotonic()))
            header = connection.recv(9)
    except OSError as error:
        raise AddressError(
            f"distort.address={address}: nobody answers at {target} within {timeout_s:g} s ({error}). Is the "
            "cluster's head running there (`ray start --head --port=…`)?"
        ) from error
    if len(header) < 4 or header[3] != 4:  # type 4 is SETTINGS
        raise AddressError(f"distort.address={address}: what listens at {target} is no Ray cluster.")
