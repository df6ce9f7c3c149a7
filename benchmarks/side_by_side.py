"""What the benchmarks of the distributed runtime share: turns, medians, tables, sessions."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def median_us(sides: Mapping[str, Callable[[], object]], rounds: int, calls: int) -> dict[str, float]:
    """Median microseconds of a call of each side; they take turns, ``calls`` at a time."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        for _ in range(calls):  # warm
            call()
    for _ in range(rounds):
        for name, call in sides.items():
            for _ in range(calls):
                begin = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - begin) * 1e6)
    return {name: statistics.median(of) for name, of in times.items()}


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
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    for row in (columns, ["-" * width for width in widths], *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"| {' | '.join(cells)} |", flush=True)


def load_feeds(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "inputs.npz") as file:
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


def print_machine() -> None:
    """What the figures were measured on."""
    import platform

    import ray

    import distort

    cores = len(os.sched_getaffinity(0))
    versions = f"distort {distort.__version__}, ray {ray.__version__}"
    versions += f", numpy {np.__version__}, Python {platform.python_version()}"
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f} at the start; {versions}\n", flush=True)
