"""Starts the head of a cluster of ours on this machine, under a keeper (keeper.py)."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from distort.cluster.errors import ClusterError
from distort.cluster.probe import token_file, token_here

START_TIMEOUT_S = 60.0
LOOPBACK = "127.0.0.1"
_POLL_S = 0.05
#: Ray's sockets lie 85 characters below, and the kernel takes paths of 107
_LONGEST_FOLDER = 22


@dataclass(frozen=True, slots=True)
class Starting:
    """A head that may not answer yet. Its keeper's number is also that of the session of all its processes."""

    keeper: subprocess.Popen[bytes]
    folder: str  # Ray's files: sockets, logs, spilled objects; the keeper removes it
    log: str  # what Ray said; beside the folder, and removed when the head answers or can't

    def address(self, timeout_s: float = START_TIMEOUT_S, on_wait: Callable[[], None] = lambda: None) -> str:
        """Where it answers, once it does. Raises :class:`ClusterError` with Ray's last words, and ends it."""
        deadline = time.monotonic() + timeout_s
        written = Path(self.folder) / "ray_current_cluster"  # Ray writes it when its node stands
        try:
            while True:
                with contextlib.suppress(FileNotFoundError):
                    address = written.read_text().strip()
                    if address:
                        return address
                if self.keeper.poll() is not None or time.monotonic() > deadline:
                    raise ClusterError(self._last_words())
                on_wait()
                time.sleep(_POLL_S)
        except BaseException:
            self.end()
            raise
        finally:
            Path(self.log).unlink(missing_ok=True)

    def _last_words(self) -> str:
        happened = "ended before its cluster stood" if self.keeper.returncode is not None else "does not answer yet"
        text = Path(self.log).read_text(errors="replace")
        lines = [line.partition(" -- ")[2] or line for line in text.strip().splitlines()]
        return f"Ray {happened}. It said: {' '.join(lines[-3:])}"

    def end(self) -> None:
        self.keeper.terminate()
        self.keeper.wait()


def start_head(*, host: str = LOOPBACK, port: int = 0, n_cpus: int | None = None, owner: int = 0) -> Starting:
    """A head that listens at ``host`` alone and lives until it is told to end, or as long as this process (its pid
    as ``owner``). Raises :class:`ClusterError` where nothing can listen there."""
    _check_listenable(host, port)
    environment = _environment(host)
    base = tempfile.gettempdir()
    base = base if len(base) <= _LONGEST_FOLDER else "/tmp"
    folder = tempfile.mkdtemp(prefix="distort-ray-", dir=base)
    log = f"{folder}.log"
    with open(log, "xb") as output:
        keeper = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "distort.cluster.keeper",
                folder,
                str(owner),
                *_command(host, port, n_cpus, folder),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    return Starting(keeper, folder, log)


def _check_listenable(host: str, port: int) -> None:
    """Ray itself says so after 40 s."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise ClusterError(
            f"A cluster can't listen at {host}{f':{port}' if port else ''}: {error.strerror or error}. Choose another "
            "port (0: one that is free), or an address of this machine."
        ) from error


def _ray(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "ray.scripts.scripts", *arguments]


def _command(host: str, port: int, n_cpus: int | None, folder: str) -> list[str]:
    return _ray(
        *("start", "--head", "--block", "--disable-usage-stats"),
        f"--node-ip-address={host}",
        f"--port={port}",
        f"--num-cpus={os.cpu_count() if n_cpus is None else n_cpus}",
        f"--object-store-memory={_object_store_nbytes()}",
        f"--temp-dir={folder}",
        *("--include-dashboard=False", "--include-log-monitor=False", "--log-style=record", "--log-color=false"),
    )


def _object_store_nbytes() -> int:
    """30 % of the memory, and no more than /dev/shm holds (Ray would fall back to slow files)."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    wanted = int(total * 0.3)
    with contextlib.suppress(OSError):
        status = os.statvfs("/dev/shm")
        wanted = min(wanted, int(status.f_bavail * status.f_frsize * 0.9))
    return max(wanted, 80 * 1024 * 1024)


def _environment(host: str) -> dict[str, str]:
    environment = {**os.environ, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
    environment.pop("RAY_ADDRESS", None)
    if host == LOOPBACK:
        # Ray swaps it for the machine's outward address unless it is told that no other machine will join
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if "RAY_AUTH_MODE" not in environment and asks_for_tokens():
        environment["RAY_AUTH_MODE"] = "token"
        if not token_here():
            _make_token()
    return environment


def asks_for_tokens() -> bool:
    """Whether this Ray can ask who joins for a token, which by itself (2.60) it does for clusters of a program."""
    ray = find_spec("ray")  # importing it takes as long as starting it half the way
    folders = ray.submodule_search_locations if ray is not None else None
    return any(
        (Path(folder) / "_private/authentication/authentication_token_setup.py").exists() for folder in folders or ()
    )


def _make_token() -> None:
    """``ray start`` uses a token that is there, and makes none."""
    made = subprocess.run(
        _ray("get-auth-token", "--generate"),
        capture_output=True,
        text=True,
        cwd="/",
        timeout=START_TIMEOUT_S,
        check=False,
    )
    if made.returncode:
        raise ClusterError(f"Ray made no token for the cluster. It said: {made.stderr.strip()}")
    token_file().chmod(0o600)
