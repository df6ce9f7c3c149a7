"""From a fresh process to answers, against onnxruntime: time and memory, with a cold and a warm cache of kernels.

    python benchmarks/startup.py [--models DIR ...] [--only REGEX] [--threads 1] [--repeats 5] [--sessions] [--publish]

Each figure is a process of its own; the sides take turns, medians of ``--repeats``. Without ``--models`` there is a
tiny model of three operators alone; DIR holds NAME/model.onnx with NAME/inputs.npz. *Cold*: DISTORT_CACHE_DIR is an
empty folder, so every kernel is compiled; *warm*: one that a process has filled before. Files of models are in the page
cache. Memory is the most that the process ever had resident, after ten runs. Both sides import NumPy with themselves,
and have bytecode, as installed packages do. ``--sessions``: a line a model, of import and creation with a warm cache
alone; take more repeats. *CPU*: processor time from before the import to the first
answer, which other processes change less than they change the time on a clock.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from side_by_side import find_models, machine, publish, table

#: argument: the model's folder, threads. Prints seconds and bytes as JSON
PROCESS = """
import json, resource, sys, time
folder, threads = sys.argv[1], int(sys.argv[2])
began, used = time.perf_counter(), time.process_time()
import {module} as runtime
imported = time.perf_counter()
options = runtime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = threads, 4
session = runtime.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
created = time.perf_counter()
import numpy as np
with np.load(folder + "/inputs.npz", allow_pickle=True) as file:
    feeds = {{name: file[name] for name in file.files}}
loaded = time.perf_counter()
session.run(None, feeds)
first, used = time.perf_counter(), time.process_time() - used
for _ in range(9):
    session.run(None, feeds)
print(json.dumps({{
    "import": imported - began,
    "create": created - imported,
    "first run": first - loaded,
    "CPU": used,
    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}}))
"""
STEPS = ("import", "create", "first run")


def tiny_model(folder: Path) -> Path:
    import onnx

    text = """<ir_version: 9, opset_import: ["" : 17]>
    tiny (float[1,4] x) => (float[1,4] y) { a = Add (x, x) b = Relu (a) y = Softmax (b) }"""
    made = folder / "tiny"
    made.mkdir()
    onnx.save(onnx.parser.parse_model(text), made / "model.onnx")
    np.savez(made / "inputs.npz", x=np.ones((1, 4), np.float32))
    return made


def process(module: str, folder: Path, threads: int, cache: Path) -> dict[str, float]:
    """One process: its steps' seconds, the whole's ("process"), bytes of memory."""
    environment = {**os.environ, "DISTORT_CACHE_DIR": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", PROCESS.format(module=module), str(folder), str(threads)]
    begin = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found = json.loads(done.stdout)
    return {**found, "start": found["import"] + found["create"], "process": time.perf_counter() - begin}


def measured(folder: Path, threads: int, repeats: int, is_cold: bool = True) -> dict[str, dict[str, float]]:
    """Medians by side; without ``is_cold`` not with a cold cache."""
    with tempfile.TemporaryDirectory() as place:
        warm, cold = Path(place) / "warm", Path(place) / "cold"
        process("distort", folder, threads, warm)  # fills it
        sides = {"distort, cold": ("distort", cold)} if is_cold else {}
        sides["distort, warm"] = ("distort", warm)
        if find_spec("onnxruntime") is not None:
            sides["onnxruntime"] = ("onnxruntime", warm)
        found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(repeats):
            for side, (module, cache) in sides.items():
                shutil.rmtree(cold, ignore_errors=True)
                found[side].append(process(module, folder, threads, cache))
    return {side: {key: statistics.median(one[key] for one in of) for key in of[0]} for side, of in found.items()}


def rows_of(model: str, sides: dict[str, dict[str, float]]) -> list[list[str]]:
    rows = []
    for side, of in sides.items():
        ready = sum(of[step] for step in STEPS)
        rival = sides.get("onnxruntime")
        against = ["", ""]
        if rival is not None and side != "onnxruntime":
            against = [
                f"{sum(rival[step] for step in STEPS) / ready:.2f}",
                f"{of['memory'] / rival['memory']:.2f}",
            ]
        seconds = [f"{of[step]:.3f}" for step in (*STEPS, "process", "CPU")]
        rows.append([model, side, *seconds, against[0], f"{of['memory'] / 1e6:.0f}", against[1]])
    return rows


def line_of(model: str, sides: dict[str, dict[str, float]]) -> list[str]:
    """Milliseconds of import, creation and both, on both sides, and how many times onnxruntime's the latter two are."""
    ours, theirs = ([of["import"], of["create"], of["start"]] for of in (sides["distort, warm"], sides["onnxruntime"]))
    times = [f"{one / other:.2f}" for one, other in zip(ours[1:], theirs[1:], strict=True)]
    return [model, *(f"{1e3 * seconds:.1f}" for seconds in (*ours, *theirs)), *times]


def tell_sessions(where: str, arguments: argparse.Namespace) -> None:
    columns = ["model", "import ms", "create ms", "both ms"]
    columns += [*(f"onnxruntime {column}" for column in columns[1:]), "create, times", "both, times"]
    lines = []
    with tempfile.TemporaryDirectory() as place:
        for folder in [tiny_model(Path(place)), *find_models(arguments.models, arguments.only)]:
            found = measured(folder, arguments.threads, arguments.repeats, is_cold=False)
            lines.append(line_of(folder.name, found))
            print(*lines[-1], file=sys.stderr, flush=True)
    said = f"{where}. Medians of {arguments.repeats} processes each.\n\n{table(columns, lines)}"
    print(f"\n{said}")
    if arguments.publish:
        publish("docs/benchmarks.md", "sessions", said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, action="append", default=[], help="a folder with models (repeatable)")
    parser.add_argument("--only", default="", help="regular expression on the model's name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sessions", action="store_true", help="import and creation alone, with a warm cache")
    parser.add_argument("--publish", action="store_true", help="write the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    packages = ["distort", "numpy", *(["onnxruntime"] if find_spec("onnxruntime") else [])]
    where = machine(packages)
    print(where, flush=True)
    if arguments.sessions:
        tell_sessions(where, arguments)
        return
    columns = ["model", "side", *(f"{step} s" for step in STEPS), "process s", "CPU s", "speed", "peak MB", "memory"]
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as place:
        for folder in [tiny_model(Path(place)), *find_models(arguments.models, arguments.only)]:
            rows += rows_of(folder.name, measured(folder, arguments.threads, arguments.repeats))
            print(f"measured {folder.name}", file=sys.stderr, flush=True)
    said = (
        "*Speed*: how many times as fast as onnxruntime, from the import to the first answer; *memory*: times as much."
    )
    print(f"\n{table(columns, rows)}\n\n{said}")
    if arguments.publish:
        publish("docs/benchmarks.md", "startup", f"{where}.\n\n{table(columns, rows)}\n\n{said}")


if __name__ == "__main__":
    main()
