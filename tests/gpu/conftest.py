"""A machine with GPUs, for one test: ``tests/fake_cuda`` on the path, and off it again."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "fake_cuda"


def _modules() -> list[str]:
    """Those that are faked, the real ones where they are installed, and all that lie in the fake's folder."""
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name.partition(".")[0] in ("cupy", "cudnn", "cuda") or file.startswith(str(FOLDER)):
            found.append(name)
    return found


def _take_out() -> dict[str, Any]:
    taken = {name: sys.modules.pop(name) for name in _modules()}
    for name in ("device", "libraries", "modules", "tuning"):
        module = sys.modules.get(f"distort.kernels.cuda.{name}")
        if module is not None:
            module.forget()  # what is known of this machine's GPUs, and compiled for them
    return taken


@contextmanager
def _installed() -> Iterator[Any]:
    before = _take_out()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        paths = [str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))  # for processes that a test starts
        import cupy

        yield cupy
        try:
            cupy.fake.check()
        finally:
            cupy.fake.shutdown()
            if "cublaslt" in sys.modules:
                sys.modules["cublaslt"].library().fake_enqueue_with(None)
                sys.modules["cublaslt"].library().fake_touch_with(None)
            _take_out()
            sys.modules.update(before)


@pytest.fixture
def fake_cuda() -> Iterator[Any]:
    """The fake ``cupy``: two GPUs (FAKE_CUDA_DEVICES, set before this fixture is asked for, says otherwise)."""
    with _installed() as cupy:
        yield cupy


@pytest.fixture(scope="module")
def fake_cuda_for_all() -> Iterator[Any]:
    """The same for all tests of a module."""
    with _installed() as cupy:
        yield cupy
