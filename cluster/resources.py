"""What there is to run on: the program's Ray, a cluster at an address, the user's own, or an embedded one.

A process has at most one connection to Ray. Whoever opened it owns it: an embedded cluster is started once, serves
every session of the process, listens on loopback only and ends with the process; a cluster that the program, the
user (``distort cluster start``) or somebody else started is used and left as it was.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from distort.cluster import own_cluster
from distort.cluster.errors import AddressError, ClusterError, Forked
from distort.cluster.head import Starting, start_head
from distort.cluster.probe import NOT_RAY, WANTS_TOKEN, probe, token_here

#: how long a cluster at an address may take to answer
CONNECT_TIMEOUT_S = 10.0

EMBEDDED, OWN, PROGRAM, JOINED = "embedded", "own", "program", "joined"

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})

_lock = threading.Lock()
_connection: Connection | None = None
_pid = 0  # of the process that has it
_embedded: Starting | None = None
_auth_mode: str | None = None  # RAY_AUTH_MODE, where it was set here


@dataclass(frozen=True, slots=True)
class Connection:
    address: str  # "embedded", "program" (it called ray.init itself), or as it was given: "auto", host:port
    kind: str  # EMBEDDED, OWN, PROGRAM or JOINED
    n_cpus: float

    @property
    def embedded(self) -> bool:
        return self.kind == EMBEDDED

    @property
    def grants_cpus(self) -> bool:
        """Whether actors ask for the CPUs that they use. On a cluster of the user's alone they need no permission."""
        return self.kind not in (EMBEDDED, OWN)


def attach(address: str = "", *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> Connection:
    """The process's connection to Ray, opened where there is none.

    ``address`` is "" (the program's own connection, else the user's cluster where it runs in the environment of this
    process, else an embedded one), "auto" (the cluster running on this machine, the user's first) or "host:port".
    Raises :class:`AddressError` where nobody answers within ``connect_timeout_s``.
    """
    global _connection, _pid  # noqa: PLW0603  # a process has one connection to Ray, and this is it
    if _pid not in (0, os.getpid()):
        raise Forked(_pid)
    with _lock:
        _pid = os.getpid()
        own = None if address else own_cluster.find()
        if not address and own is None and "ray" not in sys.modules:
            _begin_embedded()  # it starts while Ray is imported here
        import ray

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
            _connection = Connection(PROGRAM, PROGRAM, _n_cpus(ray))
        elif address:
            _connection = _join(address, connect_timeout_s)
        elif own is not None and own.like_here:
            _connection = _join_own(own, connect_timeout_s)
        else:
            _connection = _start_embedded(connect_timeout_s)
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


def _show_token(wanted: bool, target: str) -> None:
    """Set Ray's way of authentication to the cluster's: mixed, they part at once or, worse, when actors answer.

    Ray reads the variable when it is imported; where that was before, it is told to read it again.
    """
    global _auth_mode  # noqa: PLW0603  # what this module has put into the environment
    chosen = os.environ.get("RAY_AUTH_MODE")
    mode = "token" if wanted else "disabled"
    if chosen == mode or (chosen is None and not wanted):
        return
    if chosen is not None and chosen != _auth_mode:
        what = "asks for a token" if wanted else "knows no tokens"
        raise AddressError(f"The cluster at {target} {what}, and RAY_AUTH_MODE is {chosen} here. Set it to {mode}.")
    os.environ["RAY_AUTH_MODE"] = _auth_mode = mode
    import ray

    if not ray.is_initialized():
        import_module("ray._raylet").Config.initialize("")


def _start_embedded(connect_timeout_s: float) -> Connection:
    """Join the cluster of this process, started where it doesn't run (yet, or any more)."""
    try:
        embedded = _begin_embedded()
        address = embedded.address(on_wait=_require_program)
        return _join(address, connect_timeout_s, EMBEDDED)
    except (ClusterError, OSError) as error:
        raise ClusterError(f"An embedded Ray cluster could not be started: {error}") from error


def _require_program() -> None:
    """A program that has come to its end waits for the threads that it has left: this one need not go on."""
    if not threading.main_thread().is_alive():
        raise ClusterError("the program is ending")


def _begin_embedded() -> Starting:
    global _embedded  # noqa: PLW0603  # a process has one embedded cluster
    if _embedded is None or _embedded.keeper.poll() is not None:
        _embedded = start_head(owner=os.getpid())
        atexit.register(end_embedded)
    return _embedded


def end_embedded() -> None:
    """End the embedded cluster of this process, and with it every parallel session on it; done at exit as well."""
    global _embedded, _connection  # noqa: PLW0603  # a process has one embedded cluster
    if _pid != os.getpid() or _embedded is None:
        return
    atexit.unregister(end_embedded)
    if _connection is not None and _connection.embedded:
        import ray

        ray.shutdown()
        _connection = None
    _embedded.end()
    _embedded = None


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


def _join_own(own: own_cluster.OwnCluster, connect_timeout_s: float) -> Connection:
    try:
        return _join(own.address, connect_timeout_s)
    except AddressError as error:
        raise AddressError(
            f"The cluster of your own (`distort cluster status`) runs and can't be joined: {error.text} End it with "
            "`distort cluster stop`; sessions then start an embedded one."
        ) from error


def _join(address: str, connect_timeout_s: float, kind: str = JOINED) -> Connection:
    import ray
    from ray._private import worker as ray_worker

    _quiet_environment()
    target = address
    if address == "auto":
        target = _running_cluster()
    _show_token(_check_answers(target, address, connect_timeout_s), target)
    own = own_cluster.find()
    if own is not None and own.address == target and own.like_here:
        kind = OWN
    host = target.rpartition(":")[0]
    keeping = _loopback_kept() if host in _LOOPBACK else contextlib.nullcontext()
    try:
        with keeping:
            ray.init(address=target, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise AddressError(f"distort.address={address}: the cluster at {target} refused: {error}") from error
    # Ray prints the raylet's messages (a worker died, …) to stdout whatever log_to_driver says; the error that the
    # run raises says it better, and stdout belongs to the program
    ray_worker.print_to_stdstream = _log_message  # type: ignore[assignment]  # it takes what Ray passes, and more
    return Connection(EMBEDDED if kind == EMBEDDED else address, kind, _n_cpus(ray))


def _running_cluster() -> str:
    """The cluster that ``auto`` means: RAY_ADDRESS, the user's own, whichever Ray finds."""
    from ray._private import services

    own = own_cluster.find()
    if own is not None and not os.environ.get("RAY_ADDRESS"):
        return own.address
    try:
        found = services.get_ray_address_from_environment("auto", None)
    except ConnectionError:
        found = None
    if not found:
        raise AddressError(
            "distort.address=auto: no Ray cluster runs on this machine. Start one with `distort cluster start` (or "
            "`ray start --head`), or leave the address out for an embedded one."
        )
    return str(found)


def _check_answers(target: str, address: str, timeout_s: float) -> bool:
    """Whether the cluster there asks for a token, which it then takes. Raises :class:`AddressError` in time."""
    host, separator, port = target.rpartition(":")
    if not separator or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise AddressError(f"distort.address={address}: not an address. Use host:port or auto.")
    deadline = time.monotonic() + timeout_s
    try:
        found = probe(host.strip("[]"), int(port), timeout_s)
        wants_token = found == WANTS_TOKEN
        if wants_token:
            found = probe(host.strip("[]"), int(port), max(0.1, deadline - time.monotonic()), token_here())
    except OSError as error:
        raise AddressError(
            f"distort.address={address}: nobody answers at {target} within {timeout_s:g} s ({error}). Is the "
            "cluster's head running there (`ray start --head --port=…`)?"
        ) from error
    if found == NOT_RAY:
        raise AddressError(f"distort.address={address}: what listens at {target} is no Ray cluster.")
    if found == WANTS_TOKEN:
        have = "the one here is another" if token_here() else "there is none here"
        raise AddressError(
            f"distort.address={address}: the cluster at {target} asks for its token, and {have}. Copy the file "
            "~/.ray/auth_token of its head, or set RAY_AUTH_TOKEN."
        )
    return wants_token
