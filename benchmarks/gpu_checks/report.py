"""Rows of a check: printed as they come, and kept where a check that dies later has left them."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: what a row may say; the first two are bad
WRONG, FAILED, OK, FIGURE, SKIPPED = RESULTS = ("wrong", "failed", "ok", "figure", "skipped")
_MOST_WORDS = 160
#: in the environment of a process that goes on for one that lost the GPU: what that one has done, as JSON
_DONE = "GPU_CHECK_DONE"


class Skipped(Exception):
    """What a check needs isn't there. Its text says what."""


@dataclass(slots=True)
class Row:
    check: str
    what: str
    result: str
    figure: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    at_s: float = 0.0

    def line(self) -> str:
        return f"{self.result:8}{self.check:19}{self.what:44} {self.figure}".rstrip()


class Report:
    """Of one check. ``small``: sizes for a machine that only stands in for a GPU. ``limit_s``: when to come to an end.

    ``arch``: a folder with architectures, see ``architectures.py``.
    """

    def __init__(self, check: str, path: Path | None, *, small: bool, limit_s: float, arch: Path | None = None) -> None:
        self.check, self.small, self.arch = check, small, arch
        self.rows: list[Row] = []
        self._path, self._began, self._limit_s = path, time.monotonic(), limit_s
        self._done: list[str] = json.loads(os.environ.get(_DONE, "[]"))

    @property
    def left_s(self) -> float:
        return self._limit_s - (time.monotonic() - self._began)

    def add(self, what: str, result: str, figure: str = "", **details: Any) -> None:
        row = Row(self.check, what, result, figure, details, round(time.monotonic() - self._began, 2))
        self.rows.append(row)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(asdict(row), default=str) + "\n")
        print(row.line(), flush=True)

    def faults(self, what: str, program: Any) -> None:
        """A row where a program has no plan for some feeds by an error of ours: its answers are right, and slow."""
        for key, text in program.faults.items():
            fed = ", ".join(f"{kind[0]}{list(kind[1])}" for kind in key if kind is not None)
            figure = f"no plan for {fed}: {program.refused[key]}"
            self.add(f"{what}: a plan", FAILED, figure[:400], traceback=text)

    def judge(self, what: str, right: bool, figure: str = "", **details: Any) -> None:
        self.add(what, OK if right else WRONG, figure, **details)

    def within(self, what: str, error: float, tolerance: float, extra: str = "", **details: Any) -> None:
        """``error`` that is NaN is no error within anything."""
        figure = f"error {error:.1e} of {tolerance:.0e}{f', {extra}' if extra else ''}"
        self.add(what, OK if error <= tolerance else WRONG, figure, error=error, tolerance=tolerance, **details)

    def is_done(self, what: str) -> bool:
        """Whether a process that lost the GPU has done this already, or lost it to this."""
        return what in self._done

    def go_on(self, what: str, before: Callable[[], None] = lambda: None) -> None:
        """Behind ``what``: in a process of its own, if the GPU does nothing more for this one, after ``before``."""
        self._done.append(what)
        import cupy

        try:
            cupy.cuda.runtime.deviceSynchronize()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            before()
            self.add(f"the GPU after {what}", FAILED, f"is lost, and a new process goes on: {words_of(error)}")
            limit = [n for n, word in enumerate(sys.argv) if word == "--limit-s"]
            words = [f"{self.left_s:.1f}" if n - 1 in limit else word for n, word in enumerate(sys.argv)]
            os.execve(sys.executable, [sys.executable, *words], {**os.environ, _DONE: json.dumps(self._done)})

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """What fails in the block is a row, and stops nothing else."""
        try:
            yield
        except Skipped as why:
            self.add(what, SKIPPED, str(why))
        except Exception as error:  # noqa: BLE001  # the row says which; the others are to run
            text = traceback.format_exc()
            print(text, file=sys.stderr, flush=True)
            notes = [str(note) for note in getattr(error, "__notes__", ())]
            self.add(what, FAILED, words_of(error), traceback=text[-6000:], notes=notes)


def words_of(error: BaseException) -> str:
    """Class and first line, and the innermost place that is the project's own."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0] if lines else ''}".strip(": ")
    text = text if len(text) <= _MOST_WORDS else text[:_MOST_WORDS] + " …"
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("distort."):
            found = f" ({module.removeprefix('distort.')}:{line} in {frame.f_code.co_name})"
    notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()) if len(str(note)) <= 2 * _MOST_WORDS)
    return text + found + notes


def read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    return [Row(**json.loads(line)) for line in path.read_text().splitlines() if line.endswith("}")]


def table(rows: Sequence[Row]) -> str:
    """All rows, bad ones first, and how many of each there are."""
    ordered = sorted(rows, key=lambda row: (RESULTS.index(row.result) > 1, 0))
    counts = {result: sum(row.result == result for row in rows) for result in RESULTS}
    told = ", ".join(f"{n} {result}" for result, n in counts.items() if n)
    return "\n".join([*(row.line() for row in ordered), f"{len(rows)} rows: {told}"])
