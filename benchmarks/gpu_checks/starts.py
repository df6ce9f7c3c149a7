"""Fresh processes: import, session, first answer, tenth; kernels compiled anew, and found on the disk.

cuDNN's plans are those that its heuristics choose; at the end they are timed once, as they are where nothing is said.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from gpu_checks import architectures, sketch
from gpu_checks.report import FIGURE, Report, Skipped

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
provider = ("CUDAExecutionProvider", {"cudnn_conv_algo_search": sys.argv[4]})
session = distort.InferenceSession(sys.argv[1], providers=[provider], enable_fallback=0)
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
        models = _models(report, folder)
        turns = [(name, way, "HEURISTIC") for name in models for way in ("cold", "warm")]
        for name, way, search in [*turns, (list(models)[-1], "plans timed", "EXHAUSTIVE")]:
            what = f"{name}, {way}"
            with report.part(what):
                if report.left_s < 5:
                    raise Skipped("no time left")
                report.add(what, FIGURE, _timed(*models[name], folder / f"cache_{name}", report, search))


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


def _timed(model: Path, feeds: Path, cache: Path, report: Report, search: str) -> str:
    environment = {**os.environ, "CUPY_CACHE_DIR": str(cache), "CUDA_CACHE_PATH": str(cache / "driver")}
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(model), str(feeds), "small" if report.small else "", search],
        capture_output=True,
        text=True,
        timeout=max(5.0, report.left_s),
        check=False,
        env=environment,
    )
    if done.returncode:
        error = RuntimeError((done.stderr.strip().splitlines() or [str(done.returncode)])[-1])
        error.add_note(done.stderr[-4000:])
        raise error
    told = json.loads(done.stdout.strip().splitlines()[-1])
    told.pop("feeds")
    return ", ".join(f"{name} {1e3 * taken:.0f} ms" for name, taken in told.items())
