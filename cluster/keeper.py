"""The process that holds a cluster of ours: it starts Ray's head, and takes all of it along when it ends.

``python -m distort.cluster.keeper FOLDER OWNER COMMAND …`` leads a session (setsid), of which everything that the
command starts is a member, however deep. It ends by SIGTERM, with the command, or with the process OWNER, its parent
(0: none): then every member is killed and the folder removed. Ray by itself leaves its agents behind for a minute or
more when its head is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from types import FrameType

from distort.cluster.processes import members_of

#: how soon the owner's end is noticed
_POLL_S = 0.2
_PR_SET_PDEATHSIG = 1


class _Told(BaseException):
    """SIGTERM came."""


def _tell(number: int, frame: FrameType | None) -> None:
    raise _Told


def _die_with_keeper() -> None:
    """In the child, before it becomes the command: the kernel kills it when this process is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def keep(folder: str, owner: int, command: list[str]) -> None:
    signal.signal(signal.SIGTERM, _tell)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_keeper)  # noqa: PLW1509  # no threads here
        while child.poll() is None and (not owner or os.getppid() == owner):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_POLL_S)
    except _Told:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        kill_members(os.getpid())
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # what this process says, where its owner had no time to take it away
            os.unlink(f"{folder}.log")


def kill_members(session: int, timeout_s: float = 5.0) -> None:
    """Kill all of a session but this process; what a member forks meanwhile, too."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        members = [pid for pid in members_of(session) if pid != os.getpid()]
        if not members:
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


if __name__ == "__main__":
    keep(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
