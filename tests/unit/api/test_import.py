"""What importing costs, and which names there are."""

from __future__ import annotations

import subprocess
import sys

import pytest

import distort

_HEAVY = ("ray", "cupy", "rich", "onnxruntime", "torch")


def _modules_after(code: str) -> set[str]:
    """Top-level packages, and onnx's modules, that a fresh interpreter has after running some code."""
    report = "\nimport sys; print(' '.join(m for m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True, timeout=60)
    return set(run.stdout.split())


def test_importing_distort_imports_what_a_session_needs_and_nothing_heavy() -> None:
    """Protobuf, LLVM and others take longer to import than a small model's session to make, and are mostly not used."""
    loaded = _modules_after("import distort")
    assert {"distort.session", "distort.native.session", "distort.kernels.compiler.program", "numpy"} <= loaded
    heavy = (*_HEAVY, "llvmlite", "onnx", "google.protobuf", "ml_dtypes", "hashlib", "numpy.ma", "numpy.typing")
    assert not loaded.intersection((*heavy, "distort.cluster", "distort.scheduler"))


def test_imports_leave_the_collector_as_it_was() -> None:
    for was in ("enable", "disable"):
        code = f"import gc, sys; gc.{was}(); import distort; assert gc.isenabled() == (gc.{was} is gc.enable)"
        _modules_after(code)
    frozen = "import gc; gc.freeze(); import distort; assert gc.get_freeze_count()"
    _modules_after(frozen)


def test_a_sequential_run_needs_no_actors(mul: bytes) -> None:
    code = (
        f"import distort, numpy; s = distort.InferenceSession({mul!r}); "
        "s.run(None, {'X': numpy.ones((3, 2), numpy.float32)}); s.get_outputs()"
    )
    loaded = _modules_after(code)
    assert "distort.session" in loaded
    assert not loaded.intersection((*_HEAVY, "onnx", "distort.cluster", "distort.scheduler"))


def test_every_name_of_the_package_is_there() -> None:
    for name in distort.__all__:
        assert getattr(distort, name) is not None
        assert name in dir(distort)
    with pytest.raises(AttributeError, match="module 'distort' has no attribute 'nosuch'"):
        _ = distort.nosuch


def test_the_modules_of_capi() -> None:
    from distort.capi import _pybind_state, onnxruntime_inference_collection, onnxruntime_pybind11_state

    assert _pybind_state.Fail is onnxruntime_pybind11_state.Fail
    assert onnxruntime_inference_collection.InferenceSession is distort.InferenceSession
    assert distort.capi.onnxruntime_pybind11_state is onnxruntime_pybind11_state


def test_facts_of_the_process() -> None:
    assert distort.get_available_providers()[-1] == "CPUExecutionProvider"
    assert set(distort.get_available_providers()) <= set(distort.get_all_providers())
    assert distort.get_device() in ("CPU", "GPU")
    assert distort.get_version_string() == distort.__version__
