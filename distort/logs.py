"""Log lines by severity, in onnxruntime's form, on stderr or to a callback that the program sets.

Severities: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

VERBOSE, INFO, WARNING, ERROR, FATAL = range(5)
_LETTERS = "VIWEF"
_COLORS = {WARNING: "\x1b[0;93m", ERROR: "\x1b[1;31m", FATAL: "\x1b[1;31m"}
_CATEGORY = "onnxruntime"

#: (severity, category, log id, place in the code, message)
Callback = Callable[[int, str, str, str, str], object]


class Logger:
    """Says what is at least as severe as ``severity``."""

    __slots__ = ("logid", "severity", "verbosity")

    def __init__(self, severity: int, verbosity: int, logid: str) -> None:
        self.severity = severity
        self.verbosity = verbosity
        self.logid = logid

    def log(self, severity: int, message: str, depth: int = 1) -> None:
        """``depth``: how many callers up the place in the code is."""
        if severity >= self.severity:
            frame = sys._getframe(depth)
            place = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}"
            _emit(severity, self.logid, place, message)

    def child(self, severity: int, verbosity: int, logid: str) -> Logger:
        """A logger of a session, or of a run, with its own settings (-1: this one's severity)."""
        return Logger(self.severity if severity == -1 else severity, verbosity, logid)


#: what logs where no session does; its severity is the default of sessions
DEFAULT = Logger(WARNING, 0, "Default")

_callback: Callback | None = None
_inside = threading.local()


def set_callback(callback: Callback | None) -> None:
    """Where all lines go; None: stderr."""
    global _callback  # noqa: PLW0603  # the sink is the process's, as onnxruntime's is
    _callback = callback


def _emit(severity: int, logid: str, place: str, message: str) -> None:
    callback = _callback
    if callback is not None and not getattr(_inside, "callback", False):
        _inside.callback = True
        try:
            callback(severity, _CATEGORY, logid, place, message)
        except Exception:  # noqa: BLE001  # a run goes on whatever its observer does
            sys.unraisablehook(_unraisable(callback))
        else:
            return
        finally:
            _inside.callback = False
    _write(severity, logid, place, message)


def _unraisable(source: object) -> Any:
    """The exception of now, in the form that ``sys.unraisablehook`` reads."""
    kind, error, trace = sys.exc_info()
    return SimpleNamespace(exc_type=kind, exc_value=error, exc_traceback=trace, err_msg=None, object=source)


def _write(severity: int, logid: str, place: str, message: str) -> None:
    now_ns = time.time_ns()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now_ns // 1_000_000_000))
    line = f"{stamp}.{now_ns % 1_000_000_000:09d} [{_LETTERS[severity]}:{_CATEGORY}:{logid}, {place}] {message}"
    stream = sys.stderr
    if stream is None:  # a program without a terminal may have none
        return
    color = _COLORS.get(severity, "") if stream.isatty() and not os.environ.get("NO_COLOR") else ""
    stream.write(f"{color}{line}\x1b[m\n" if color else f"{line}\n")
