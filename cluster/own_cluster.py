"""A cluster of the user's own on this machine, kept warm between processes.

A keeper (keeper.py) holds it, and a file among the user's runtime files says where it is. The file outlives a crash,
so it names the keeper by its number, its start and the boot: a number alone is reused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from distort.cluster.head import LOOPBACK, START_TIMEOUT_S, start_head
from distort.cluster.keeper import kill_members
from distort.cluster.processes import boot_id, is_running, start_ticks
from distort.graph.atomic import writing

#: how long the keeper may take to end what it holds
_STOP_GRACE_S = 6.0


@dataclass(frozen=True, slots=True)
class OwnCluster:
    address: str  # host:port of its head; "" while it starts
    pid: int  # of its keeper, which leads the session of all its processes
    started_ticks: int  # when that process began, as the kernel counts
    boot: str  # of the machine
    since_s: float  # time.time() when it was started
    folder: str  # Ray's files: sockets, logs, spilled objects
    python: str  # the environment that its actors run in: its prefix
    python_version: str
    ray_version: str

    @property
    def runs(self) -> bool:
        return self.boot == boot_id() and is_running(self.pid, self.started_ticks)

    @property
    def like_here(self) -> bool:
        """Whether its actors run in the environment that this process runs in."""
        return (self.python, self.python_version, self.ray_version) == _environment()


def _environment() -> tuple[str, str, str]:
    return sys.prefix, platform.python_version(), version("ray")


def state_file() -> Path:
    """Where the cluster is written down: the user's runtime folder, else the cache; one file a host."""
    base = os.environ.get("XDG_RUNTIME_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "distort" / f"cluster-{socket.gethostname()}.json"


def find() -> OwnCluster | None:
    """The user's cluster, if it runs. Reads one file."""
    state = _read()
    return state if state is not None and state.address and state.runs else None


def start(
    *,
    host: str = LOOPBACK,
    port: int = 0,
    n_cpus: int | None = None,
    timeout_s: float = START_TIMEOUT_S,
    on_wait: Callable[[], None] = lambda: None,
) -> tuple[OwnCluster, bool]:
    """The user's cluster, started where it doesn't run. Returns it, and whether it was started now.

    It listens at ``host`` alone, at ``port`` (0: one that is free). ``on_wait`` is called while it is waited for.
    Raises :class:`ClusterError` with Ray's last words where it does not answer within ``timeout_s``.
    """
    with _locked():
        found = find()
        if found is not None:
            return found, False
        _clear(_read())
        head = start_head(host=host, port=port, n_cpus=n_cpus)
        pid = head.keeper.pid
        state = OwnCluster("", pid, start_ticks(pid), boot_id(), time.time(), head.folder, *_environment())
        _write(state)
        try:
            state = replace(state, address=head.address(timeout_s, on_wait))
        except BaseException:
            _clear(state)
            raise
        _write(state)
        return state, True


def stop() -> OwnCluster | None:
    """End the user's cluster and remove its files. Returns what ran; None where nothing did."""
    with _locked():
        state = _read()
        ran = state if state is not None and state.runs else None
        _clear(state)
        return ran


def _clear(state: OwnCluster | None) -> None:
    """End what there is of a cluster, whether it still runs or died halfway, and remove its files."""
    if state is None:
        state_file().unlink(missing_ok=True)  # one that can't be read
        return
    if state.runs:
        os.kill(state.pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_GRACE_S
        while state.runs and time.monotonic() < deadline:
            time.sleep(0.02)
    # a process that the number passed on to is no member, nor are those of its session
    if state.boot == boot_id() and start_ticks(state.pid) in (0, state.started_ticks):
        kill_members(state.pid)
    shutil.rmtree(state.folder, ignore_errors=True)
    state_file().unlink(missing_ok=True)


def _read() -> OwnCluster | None:
    try:
        return OwnCluster(**json.loads(state_file().read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(state: OwnCluster) -> None:
    with writing(state_file()) as file:
        file.write(json.dumps(asdict(state)).encode())


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One start or stop at a time; the lock is the folder itself, so no file is left of it."""
    folder = state_file().parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
