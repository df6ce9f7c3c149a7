"""Each kernel against onnxruntime on a realistic shape: interleaved in one process, medians and ratios, as a table.

    python benchmarks/kernels.py [--only REGEX] [--threads 1] [--seconds 0.3] [--limit 20]

A ratio above 1 means that distort is faster. Ends with exit code 1 where a kernel is more than ``limit`` times slower
than onnxruntime's. One node is a session of its own, so what a run costs on top of its kernel counts on both sides.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from typing import Any

from kernel_cases import KernelCase, all_cases, feeds_of, model_of


def sessions(case: KernelCase, threads: int) -> tuple[Any, Any]:
    """Ours and onnxruntime's; None where it has no kernel."""
    import distort

    try:
        import onnxruntime
    except ImportError:
        onnxruntime = None

    made = []
    for module in (distort, onnxruntime):
        if module is None:
            made.append(None)
            continue
        options = module.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
        try:
            made.append(module.InferenceSession(model_of(case), options, providers=["CPUExecutionProvider"]))
        except Exception:
            if module is distort:
                raise
            made.append(None)
    return made[0], made[1]


def measure(ours: Any, theirs: Any, feeds: dict[str, Any], seconds: float) -> tuple[float, float | None]:
    """Median milliseconds of both, one run of each in turn."""
    pair = [session for session in (ours, theirs) if session is not None]
    times: list[list[float]] = [[] for _ in pair]
    for session in pair:
        session.run(None, feeds)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for session, spent in zip(pair, times, strict=True):
            begin = time.perf_counter()
            session.run(None, feeds)
            spent.append((time.perf_counter() - begin) * 1e3)
    medians = [statistics.median(spent) for spent in times]
    return medians[0], medians[1] if len(medians) > 1 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="regular expression on the operator's name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each operator")
    parser.add_argument("--limit", type=float, default=20.0, help="how many times slower a kernel may be")
    arguments = parser.parse_args()
    slow, ratios = [], []
    print("| operator | distort ms | onnxruntime ms | ratio |\n|---|---|---|---|")
    for case in all_cases():
        if not re.search(arguments.only, case.name):
            continue
        ours, theirs = sessions(case, arguments.threads)
        try:
            mine, rival = measure(ours, theirs, feeds_of(case), arguments.seconds)
        except Exception as error:  # noqa: BLE001  # the rival may load what it can't run
            print(f"| {case.name} | {type(error).__name__}: {str(error)[:80]} | | |", flush=True)
            continue
        name = f"{case.domain}.{case.name}" if case.domain else case.name
        if rival is None:
            print(f"| {name} | {mine:.3f} | no kernel | |", flush=True)
            continue
        ratios.append(rival / mine)
        if mine > arguments.limit * rival:
            slow.append(f"{name}: {mine / rival:.1f} times slower")
        print(f"| {name} | {mine:.3f} | {rival:.3f} | {rival / mine:.2f} |", flush=True)
    if ratios:
        print(f"\nGeometric mean {statistics.geometric_mean(ratios):.2f} over {len(ratios)} operators.")
    if slow:
        sys.exit("\n".join(slow))


if __name__ == "__main__":
    main()
