"""Start in fresh processes: import, session, first answer, tenth; kernels compiled anew, and found on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from gpu_checks import architectures, sketch
from gpu_checks.report import FIGURE, Report

_CODE = """
import importlib, json, sys, time
if sys.argv[3] == "small":
    importlib.import_module("cupy")  # what stands in for it has no driver to be found
began = time.perf_counter()
import numpy as np
import distort
told = {"import": time.perf_counter() - began}
def lap(name, since=[time.perf_counter()]):
    now = time.perf_counter(); told[name] = now - since[0]; since[0] = now
session = distort.InferenceSession(sys.argv[1], providers=["CUDAExecutionProvider"], enable_fallback=0)
lap("session")
assert "CUDAExecutionProvider" in session.get_providers(), "the session isn't on the GPU"
feeds = dict(np.load(sys.argv[2]))
lap("feeds")
session.run(None, feeds); lap("first run")
session.run(None, feeds); lap("second run")
for _ in range(8): session.run(None, feeds)
lap("eight more")
print(json.dumps(told))
"""


def run(report: Report) -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for name, (path, feeds) in _models(report, folder).items():
            cache = folder / f"cache_{name}"
            for way in ("cold", "warm"):
                with report.part(f"{name}, {way}"):
                    report.add(f"{name}, {way}", FIGURE, _timed(path, feeds, cache, report))


def _models(report: Report, folder: Path) -> dict[str, tuple[Path, Path]]:
    import numpy as np

    small = {"size": 16, "heads": 2, "layers": 1, "image": 32} if report.small else {}
    model = sketch.vit(**small)
    onnx.save(model, folder / "vit.onnx")
    side = small.get("image", 224)
    np.savez(folder / "vit.npz", pixels=np.random.default_rng(0).standard_normal((1, 3, side, side), np.float32))
    found = {"vit": (folder / "vit.onnx", folder / "vit.npz")}
    for name in ("resnet50",) if report.arch is not None and not report.small else ():
        path = architectures.materialize(report.arch / name, folder) if report.arch else None
        if path is not None:
            found[name] = path, path.parent / "inputs.npz"
    return found


def _timed(model: Path, feeds: Path, cache: Path, report: Report) -> str:
    environment = {**os.environ, "CUPY_CACHE_DIR": str(cache), "CUDA_CACHE_PATH": str(cache / "driver")}
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(model), str(feeds), "small" if report.small else ""],
        capture_output=True,
        text=True,
        timeout=max(5.0, report.left_s),
        check=False,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [str(done.returncode)])[-1])
    told = json.loads(done.stdout.strip().splitlines()[-1])
    told.pop("feeds")
    return ", ".join(f"{name} {1e3 * taken:.0f} ms" for name, taken in told.items())
