"""What the benchmarks share: turns, medians, tables, sessions, where tables are kept."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def median_us(sides: Mapping[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, float]:
    """Median microseconds of a call of each side; they take turns, ``calls`` at a time.

    The first fifth of a turn, for which a side's processes wake up, doesn't count.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        for _ in range(calls):  # warm
            call()
    for _ in range(rounds):
        for name, call in sides.items():
            for number in range(calls + calls // 5):
                begin = time.perf_counter()
                call()
                if number >= calls // 5:
                    times[name].append((time.perf_counter() - begin) * 1e6)
    return {name: statistics.median(of) for name, of in times.items()}


def medians_ms(sides: Mapping[str, Callable[[], object]], seconds: float, warm_runs: int = 5) -> dict[str, float]:
    """Median milliseconds of a call of each side, all warmed by as many runs. They take turns of some 60 ms.

    Before a turn there is a pause in which the other side's threads stop looking for work (onnxruntime's take 25 ms);
    the first runs of a turn, for which one's own wake up, don't count.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        for _ in range(warm_runs):
            call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 5:
        for name, call in sides.items():
            time.sleep(_PAUSE_S)
            _repeat(call, _SETTLE_S)
            times[name] += _repeat(call, _TURN_S)
    return {name: statistics.median(of) * 1e3 for name, of in times.items()}


#: of a turn in :func:`medians_ms`: the pause before it, what isn't counted, and what is
_PAUSE_S, _SETTLE_S, _TURN_S = 0.04, 0.003, 0.06


def _repeat(call: Callable[[], object], seconds: float) -> list[float]:
    """Seconds that calls take, one at least."""
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while not taken or time.perf_counter() < until:
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return taken


def runs_per_s(sides: Mapping[str, tuple[Callable[[], object], int]], rounds: int, seconds: float) -> dict[str, float]:
    """Median throughput of each side, with so many calls in flight as it names; they take turns of ``seconds``."""
    from distort.cli.workload import keep_running

    rates: dict[str, list[float]] = {name: [] for name in sides}
    for run, in_flight in sides.values():  # warm
        keep_running(run, in_flight, 0.0, at_least=2 * in_flight)
    for _ in range(rounds):
        for name, (run, in_flight) in sides.items():
            rates[name].append(keep_running(run, in_flight, seconds, at_least=2 * in_flight).runs_per_s)
    return {name: statistics.median(of) for name, of in rates.items()}


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Markdown, padded."""
    print(table(columns, rows), flush=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    lines = []
    for row in (columns, ["-" * width for width in widths], *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def publish(document: str, name: str, text: str) -> None:
    """Put a text between ``<!-- name -->`` and ``<!-- /name -->`` in a document of the project."""
    path = Path(__file__).resolve().parents[1] / document
    before, begin, rest = path.read_text().partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not begin or not end:
        raise SystemExit(f"{path} has no place for '{name}'")
    path.write_text(f"{before}{begin}{text.strip()}\n{end}{after}")
    print(f"written to {path}", flush=True)


def find_models(folders: Sequence[Path], only: str = "") -> list[Path]:
    """Folders with model.onnx and inputs.npz, at any depth, whose names a regular expression finds."""
    paths = sorted(path.parent for folder in folders for path in folder.rglob("model.onnx"))
    return [path for path in paths if re.search(only, path.name) and (path / "inputs.npz").exists()]


def load_feeds(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "inputs.npz", allow_pickle=True) as file:
        return {name: file[name] for name in file.files}


def open_session(model: str | bytes, *, actors: int = 0, threads: int = 1, **keys: object) -> Any:
    """A session of distort: in this process, or with so many actors; ``keys`` are ``distort.…`` entries."""
    import distort

    options = distort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if actors:
        options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = actors
        options.add_session_config_entry("distort.start", "wait")
        for name, value in keys.items():
            options.add_session_config_entry(f"distort.{name}", str(value))
    return distort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_rival(model: str | bytes, threads: int = 1) -> Any:
    """The same of onnxruntime; None where it is not installed."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def print_machine(packages: Sequence[str] = ("distort", "ray", "numpy")) -> None:
    """What the figures were measured on."""
    print(f"{machine(packages)}\n", flush=True)


def machine(packages: Sequence[str]) -> str:
    """Processor, cores and load as they are now, versions of packages."""
    import platform
    from importlib.metadata import version

    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    load = os.getloadavg()[0]
    told = f"{_processor()}, {cores} cores, load {load:.1f} at the start"
    if load > cores / 2:
        told += " (other work ran beside this: times are too long, and several threads tell little)"
    return f"{told}; {versions}, Python {platform.python_version()}"


def _processor() -> str:
    """Its name, and those of its instructions that matter here."""
    import platform

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    names = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "amx_tile": "AMX"}
    told = [name for flag, name in names.items() if flag in flags]
    return f"{facts.get('model name', platform.machine())} ({', '.join(told)})" if told else platform.machine()
