"""Latency of each model against onnxruntime: interleaved in one process, medians and ratios, as a table.

    python benchmarks/latency.py [--models DIR] [--only REGEX] [--threads 1] [--seconds 2] [--profile]

DIR holds NAME/model.onnx with NAME/inputs.npz (any depth). onnxruntime is optional; without it there are no
ratios. A ratio above 1 means that distort is faster. ``--profile`` names the operators that take the time of models
slower than a fifth of onnxruntime's speed.
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import re
import statistics
import time
from pathlib import Path

import numpy as np


def sessions(path: Path, threads: int) -> dict[str, object]:
    import distort

    def options(module: object) -> object:
        chosen = module.SessionOptions()
        chosen.intra_op_num_threads = threads
        chosen.inter_op_num_threads = 1
        chosen.log_severity_level = 4
        return chosen

    made = {"distort": distort.InferenceSession(str(path), options(distort), providers=["CPUExecutionProvider"])}
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        made["onnxruntime"] = onnxruntime.InferenceSession(
            str(path), options(onnxruntime), providers=["CPUExecutionProvider"]
        )
    return made


def measure(made: dict[str, object], feeds: dict[str, np.ndarray], seconds: float) -> dict[str, float]:
    """Median milliseconds of each session, one run of each in turn."""
    times: dict[str, list[float]] = collections.defaultdict(list)
    for session in made.values():
        session.run(None, feeds)
        session.run(None, feeds)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()), [])) < 3:
        for name, session in made.items():
            begin = time.perf_counter()
            session.run(None, feeds)
            times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def slowest_operators(path: Path, feeds: dict[str, np.ndarray]) -> str:
    """The three operators that take most of a run, with their shares."""
    from distort.engine import Engine, EngineConfig, RunControl, load_model

    engine = Engine(load_model(str(path)), EngineConfig())
    spent: collections.Counter[str] = collections.Counter()

    def observe(node: object, start_ns: int, end_ns: int, inputs: object, outputs: object) -> None:
        spent[node.op_type] += end_ns - start_ns

    # kernels take strings as objects
    feeds = {name: value.astype(object) if value.dtype.kind in "US" else value for name, value in feeds.items()}
    engine.run(engine.model.graph.outputs, feeds)
    engine.run(engine.model.graph.outputs, feeds, control=RunControl(observer=observe))
    total = sum(spent.values()) or 1
    return ", ".join(f"{name} {ns / total:.0%}" for name, ns in spent.most_common(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, action="append", required=True, help="a folder with models (repeatable)")
    parser.add_argument("--only", default="", help="regular expression on the model's name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="per model")
    parser.add_argument("--profile", action="store_true", help="name the slow operators of slow models")
    arguments = parser.parse_args()
    paths = sorted(path for folder in arguments.models for path in folder.rglob("model.onnx"))
    ratios = []
    print(f"| model | distort ms | onnxruntime ms | speed ratio at {arguments.threads} thread(s) | time goes to |")
    print("|---|---|---|---|---|")
    for path in paths:
        name = path.parent.name
        if not re.search(arguments.only, name) or not (path.parent / "inputs.npz").exists():
            continue
        with np.load(path.parent / "inputs.npz", allow_pickle=True) as file:
            feeds = {key: file[key] for key in file.files}
        medians = measure(sessions(path, arguments.threads), feeds, arguments.seconds)
        own, rival = medians["distort"], medians.get("onnxruntime")
        ratio = "–" if rival is None else f"{rival / own:.2f}"
        slow = rival is not None and rival / own < 0.2
        where = slowest_operators(path, feeds) if slow or arguments.profile else ""
        print(f"| {name} | {own:.3f} | {'–' if rival is None else f'{rival:.3f}'} | {ratio} | {where} |", flush=True)
        if rival is not None:
            ratios.append(rival / own)
    if ratios:
        print(f"\ngeometric mean {statistics.geometric_mean(ratios):.2f}, lowest {min(ratios):.2f}, n={len(ratios)}")


if __name__ == "__main__":
    main()
