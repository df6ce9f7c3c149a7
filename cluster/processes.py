"""Processes of this machine as /proc has them: whether one still is who it was, and who belongs to a session."""

from __future__ import annotations

import os
from pathlib import Path

_STATE, _SESSION, _START = 0, 3, 19  # fields of /proc/PID/stat after the name in parentheses (proc(5))


def _fields(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def boot_id() -> str:
    """The machine's boot, which makes process numbers and start times comparable."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int:
    """When a process began [ticks since boot]; 0 where there is none."""
    fields = _fields(pid)
    return int(fields[_START]) if fields else 0


def is_running(pid: int, started_ticks: int) -> bool:
    """Whether the process is there, is the one that began then, and has not ended (a zombie has)."""
    fields = _fields(pid)
    return bool(fields) and int(fields[_START]) == started_ticks and fields[_STATE] not in "ZX"


def members_of(session: int) -> list[int]:
    """Processes of a session (setsid) that have not ended."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _fields(int(name))
            if fields and int(fields[_SESSION]) == session and fields[_STATE] not in "ZX":
                found.append(int(name))
    return found
