"""What can't be checked without a GPU, in one call of less than ten minutes: correctness first, then speed.

    python benchmarks/gpu_check.py [--out FILE] [--budget-s 540] [--only REGEX] [--arch DIR]

Each check of ``gpu_checks/`` runs in a process of its own, which is ended at its limit; rows are printed as they come.
A check that fails, hangs or dies stops no other; where the first one, ``setup``, finds no GPU, nothing else runs.
What no longer fits into the budget is skipped, and says so. Checks of correctness run several at a time; those that
measure run alone. At the end all rows come once more as a table, bad ones first; ``--out`` has them as JSON, with
tracebacks, and is written again every few seconds: who is ended has what was known. The exit code is 1 where a row is
wrong or failed.

docs/gpu_check.md says what each check means, and how to run this on a machine where nothing can be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]  # tests/gpu has the corpora

from gpu_checks.report import (  # noqa: E402  # the path comes first
    FAILED,
    RESULTS,
    SKIPPED,
    WRONG,
    Report,
    Row,
    Skipped,
    read_rows,
    table,
)


class Check(NamedTuple):
    """``argument``: what the module's ``run`` is given beside the report. ``alone``: it measures."""

    module: str
    limit_s: float
    alone: bool = False
    argument: str = ""


#: the most valuable first
CHECKS = {
    "setup": Check("setup", 90, alone=True),
    "machine": Check("machine", 60),
    "kernels": Check("kernels", 100),
    "libraries": Check("libraries", 100),
    "replays": Check("replays", 80),
    "sharing": Check("sharing", 60),
    "nodes": Check("nodes", 130),
    "neighbours": Check("neighbours", 70),
    "limits": Check("limits", 40),
    "actors": Check("actors", 60),
    "peaks": Check("peaks", 60, alone=True),
    "resnet50": Check("models", 60, alone=True, argument="resnet50"),
    "bert_base": Check("models", 80, alone=True, argument="bert_base"),
    "llama_kv": Check("models", 60, alone=True, argument="llama_kv"),
    "vit": Check("models", 60, alone=True, argument="vit"),
    "starts": Check("starts", 60, alone=True),
    "sanitizer": Check("sanitizer", 90),
    "vit_compiled": Check("compiled", 70, alone=True, argument="vit"),
    "resnet50_compiled": Check("compiled", 70, alone=True, argument="resnet50"),
    "bert_base_compiled": Check("compiled", 70, alone=True, argument="bert_base"),
    "llama_kv_compiled": Check("compiled", 70, alone=True, argument="llama_kv"),
}
#: less than this is no time for a check
_LEAST_S = 12.0
#: processes that check, and don't measure, at a time
_AT_A_TIME = 4
#: the check that comes before all others, and the row without which these are not worth running
FIRST, HAS_GPU = "setup", "GPU as distort sees it"
#: seconds between two writings of the rows, and lines of a process's last words that are kept
_EVERY_S, _MOST_LINES = 3.0, 60


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="rows as JSON")
    parser.add_argument("--budget-s", type=float, default=540.0, help="seconds for everything")
    parser.add_argument("--only", default="", help="checks whose names match")
    parser.add_argument("--arch", type=Path, default=ROOT / ".gpu_check" / "arch", help="architectures of the models")
    parser.add_argument("--small", action="store_true", help="sizes for a machine that only stands in for a GPU's")
    parser.add_argument("--full", action="store_true", help="a GPU's sizes even there")
    parser.add_argument("--check", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--limit-s", type=float, default=60.0, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    fake = _is_fake()  # where it is, it must be imported: no driver is found for it
    small = given.small or (fake and not given.full)
    if given.check:
        return run_one(given.check, given.rows, small, given.limit_s, given.arch)
    driver = Driver(given.budget_s, small, given.arch)
    wanted = [name for name in CHECKS if re.search(given.only, name)]
    with _written(given.out, driver):
        rows = driver.run(wanted)
    print(f"\n{table(rows)} in {driver.taken_s:.0f} s", flush=True)
    return int(any(row.result in (WRONG, FAILED) for row in rows))


@contextlib.contextmanager
def _written(path: Path | None, driver: Driver) -> Iterator[None]:
    """Rows that are known are in the file every few seconds, and at the end."""
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    over = threading.Event()

    def write() -> None:
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps([_as_json(row) for row in driver.rows()], indent=1, default=str))
        part.replace(path)

    def write_on() -> None:
        while not over.wait(_EVERY_S):
            write()

    thread = threading.Thread(target=write_on, daemon=True)
    write()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        write()


def _as_json(row: Row) -> dict[str, object]:
    return {name: getattr(row, name) for name in Row.__slots__}


def _is_fake() -> bool:
    """Whether ``cupy`` is the one of the tests."""
    try:
        return hasattr(importlib.import_module("cupy"), "fake")
    except (ImportError, OSError, RuntimeError):
        return False


def run_one(name: str, path: Path | None, small: bool, limit_s: float, arch: Path) -> int:
    """One check, in this process."""
    check = CHECKS[name]
    # who is taken down, or hangs, says where; what hangs is ended a little later
    faulthandler.enable()
    faulthandler.dump_traceback_later(limit_s / 0.9 * 0.97, exit=False)
    report = Report(name, path, small=small, limit_s=limit_s, arch=arch)
    with report.part(name):
        module = importlib.import_module(f"gpu_checks.{check.module}")
        module.run(report, check.argument) if check.argument else module.run(report)
    faulthandler.cancel_dump_traceback_later()
    return int(any(row.result in (WRONG, FAILED) for row in report.rows))


class Driver:
    """Starts checks, ends those that take too long, gathers their rows."""

    def __init__(self, budget_s: float, small: bool, arch: Path) -> None:
        self._began = time.monotonic()
        self._budget_s, self._small, self._arch = budget_s, small, arch
        self._rows: dict[str, list[Row]] = {}
        self._running: dict[str, Path] = {}
        self._lock = threading.Lock()

    @property
    def taken_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        return self._budget_s - self.taken_s

    def rows(self) -> list[Row]:
        """What is known by now, in the order of checks; of those that run, what they have written."""
        with self._lock:
            found = dict(self._rows)
            found |= {name: read_rows(path) for name, path in self._running.items()}
        return [row for name in CHECKS for row in found.get(name, [])]

    def run(self, names: list[str]) -> list[Row]:
        """All rows. In turn: the first check; those that only check, together; then one after another."""
        with tempfile.TemporaryDirectory(prefix="gpu_check_") as text:
            folder = Path(text)
            if FIRST in names:
                self._run(FIRST, folder)
                names = [name for name in names if name != FIRST]
                without = [row for row in self._rows[FIRST] if row.what == HAS_GPU and row.result == FAILED]
                if without:
                    for name in names:
                        self._keep(name, [], [(SKIPPED, without[0].figure)])
                    return self.rows()
            together = [name for name in names if not CHECKS[name].alone]
            with ThreadPoolExecutor(1 if self._small else _AT_A_TIME) as pool:
                list(pool.map(lambda name: self._run(name, folder), together))
            for name in names:
                if CHECKS[name].alone:
                    self._run(name, folder)
        return self.rows()

    def _run(self, name: str, folder: Path) -> None:
        limit_s = min(CHECKS[name].limit_s, self.left_s - 5)
        path = folder / f"{name}.jsonl"
        if limit_s < min(_LEAST_S, CHECKS[name].limit_s):
            self._keep(name, [], [(SKIPPED, f"{max(0.0, self.left_s):.0f} s are left of the budget")])
            return
        command = [sys.executable, str(Path(__file__).resolve()), "--check", name, "--rows", str(path)]
        # it is told to end by itself a little earlier
        command += [
            "--limit-s",
            f"{limit_s * 0.9:.1f}",
            "--arch",
            str(self._arch),
            "--small" if self._small else "--full",
        ]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "CUPY_CACHE_DIR": str(folder / "kernels")}
        log = folder / f"{name}.log"
        extra: list[tuple[str, str]] = []
        with self._lock:
            self._running[name] = path
        with log.open("w") as errors:
            process = subprocess.Popen(command, stderr=errors, env=environment, process_group=0)
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                code = 0
                extra.append((FAILED, f"ended at its limit of {limit_s:.0f} s"))
            finally:
                _end(process)
        rows, last = read_rows(path), log.read_text(errors="replace").strip().splitlines()[-_MOST_LINES:]
        if code not in (0, 1) or (code == 1 and not any(row.result in (WRONG, FAILED) for row in rows)):
            extra.append((FAILED, f"its process ended with {code}: {_words(last)[:200]}"))
        self._keep(name, rows, extra, last)

    def _keep(self, name: str, rows: list[Row], extra: list[tuple[str, str]], last: Sequence[str] = ()) -> None:
        """``extra``: rows of this process's own. ``last``: what the check's process said last of errors."""
        for result, words in extra:
            row = Row(name, name, result, words, {"last words": list(last)} if last else {})
            print(row.line(), flush=True)
            rows = [*rows, row]
        with self._lock:
            self._running.pop(name, None)
            self._rows[name] = rows


def _words(lines: Sequence[str]) -> str:
    """What a process said last by itself; where it was taken down, faulthandler's lines come behind that."""
    fatal = next((line for line in lines if line.startswith("Fatal Python error")), "")
    own = lines[: lines.index(fatal)] if fatal else lines
    last = [*own[-1:], *filter(None, [fatal])]
    return "; ".join(last)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process, and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


__all__ = ["CHECKS", "RESULTS", "Driver", "Skipped", "main", "run_one"]

if __name__ == "__main__":
    sys.exit(main())
