"""distort under onnxruntime's name; each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def _run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, cwd=cwd, check=False
    )


def test_modules_and_their_classes() -> None:
    done = _run(
        "-W",
        "error",
        "-c",
        """
import distort, distort.compat, importlib.util, importlib.metadata
distort.compat.install()
distort.compat.install()
assert importlib.util.find_spec("onnxruntime") is not None
import onnxruntime as ort
import onnxruntime.capi.onnxruntime_pybind11_state as C
from onnxruntime.capi import _pybind_state, onnxruntime_inference_collection
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from onnxruntime import InferenceSession, SessionOptions, backend
import onnxruntime.backend.backend, onnxruntime.datasets
assert InferenceSession is distort.InferenceSession
assert C.InvalidArgument is distort.capi.onnxruntime_pybind11_state.InvalidArgument
assert ort.capi.onnxruntime_pybind11_state is C
assert ort.__version__ == "1.32.0" and importlib.metadata.version("onnxruntime") == "1.32.0"
assert importlib.metadata.version("numpy")
assert "InferenceSession" in dir(ort) and ort.datasets.get_example("mul_1.onnx")
assert distort.capi.__spec__.name == "distort.capi" and distort.capi.__name__ == "distort.capi"
try:
    import onnxruntime.quantization
except ModuleNotFoundError as error:
    assert error.name == "onnxruntime.quantization"
try:
    ort.nothing
except AttributeError as error:
    assert "it is distort here" in str(error)
session = ort.InferenceSession(ort.datasets.get_example("sigmoid.onnx"))
import numpy
assert session.run(None, {"x": numpy.zeros((3, 4, 5), "f")})[0][0, 0, 0] == 0.5
distort.compat.uninstall()
import sys
assert not [name for name in sys.modules if name.startswith("onnxruntime")]
""",
    )
    assert done.returncode == 0, done.stderr


def test_a_script_and_a_module(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("NAME = 'beside'\n")
    (tmp_path / "script.py").write_text(
        "import sys, onnxruntime, beside\nprint(onnxruntime.InferenceSession.__module__, sys.argv[1:], beside.NAME)\n"
        "if __name__ == '__main__': sys.exit(3)\n"
    )
    for arguments in (("script.py", "a", "-b"), ("-m", "script", "a", "-b")):
        done = _run("-m", "distort.compat", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (
            3,
            "distort.capi.onnxruntime_inference_collection ['a', '-b'] beside\n",
        ), done.stderr


@pytest.mark.parametrize("arguments", [(), ("-m",), ("nowhere.py",)])
def test_usage(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = _run("-m", "distort.compat", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "usage" in done.stdout or "there is no file nowhere.py" in done.stderr


def test_too_late(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("")
    done = _run("-c", "import onnxruntime, distort.compat; distort.compat.install()", cwd=tmp_path)
    assert "was imported before" in done.stderr
    assert "RuntimeError" in done.stderr
