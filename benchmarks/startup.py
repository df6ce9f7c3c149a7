"""Time to import, and from process start to the first answer of a tiny model, against onnxruntime.

``python benchmarks/startup.py [--repeats N]``. Fresh processes, interleaved; medians of wall time in seconds.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORT = "import {module}"
ANSWER = """
import numpy as np, {module} as runtime
session = runtime.InferenceSession({path!r}, providers=["CPUExecutionProvider"])
session.run(None, {{"x": np.ones((1, 4), np.float32)}})
"""


def tiny_model(path: Path) -> None:
    import onnx

    text = """<ir_version: 9, opset_import: ["" : 17]>
    tiny (float[1,4] x) => (float[1,4] y) { a = Add (x, x) b = Relu (a) y = Softmax (b) }"""
    onnx.save(onnx.parser.parse_model(text), path)


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    modules = ["distort", *(["onnxruntime"] if importlib.util.find_spec("onnxruntime") else [])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.onnx"
        tiny_model(path)
        programs = {
            "import": {m: IMPORT.format(module=m) for m in modules},
            "first answer": {m: ANSWER.format(module=m, path=str(path)) for m in modules},
        }
        bare = statistics.median(seconds("pass") for _ in range(repeats))
        print(f"bare interpreter {bare:.3f} s; medians of {repeats}")
        for name, codes in programs.items():
            times: dict[str, list[float]] = {m: [] for m in modules}
            for code in codes.values():
                seconds(code)  # once for the file cache
            for _ in range(repeats):
                for module, code in codes.items():
                    times[module].append(seconds(code))
            medians = {m: statistics.median(values) for m, values in times.items()}
            row = "  ".join(f"{m} {value:.3f} s" for m, value in medians.items())
            ratio = f"  ratio {medians['distort'] / medians['onnxruntime']:.2f}" if len(medians) == 2 else ""
            print(f"{name:14s} {row}{ratio}")


if __name__ == "__main__":
    main()
