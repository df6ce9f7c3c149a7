"""Kernels of plans as modules of one device: compiled once, together, and named where one doesn't compile."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distort.kernels.cuda import modules
from distort.kernels.cuda.codegen import launches
from distort.kernels.cuda.launch import Kernel
from distort.kernels.errors import KernelError

from . import corpus


@pytest.fixture(autouse=True)
def _anew(fake_cuda: Any) -> Iterator[None]:
    yield
    modules.forget()


def kernels() -> list[Kernel]:
    some = [*list(corpus.maps())[-3:], *list(corpus.rows())[:4]]
    return [launch.kernel for operation in some for launch in launches(operation) or []]


def test_kernels_of_several_kinds_are_one_module(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = fake_cuda.RawModule
    monkeypatch.setattr(fake_cuda, "RawModule", lambda **given: made.append(given) or original(**given))
    found = modules.modules_of(0).get(kernels())
    assert set(found) == {kernel.name for kernel in kernels()}
    assert len(made) == 1
    again = modules.modules_of(0).get(reversed(kernels()))
    assert again == found and len(made) == 1


def test_a_function_runs(fake_cuda: Any) -> None:
    text = "__global__ void kernel_twice(float* x, long long n) { for (int i = 0; i < n; ++i) x[i] *= 2; }"
    kernel = Kernel("kernel_twice", f'extern "C" {text}\n')
    x = fake_cuda.asarray(np.arange(4, dtype=np.float32))
    modules.modules_of(0).get([kernel])["kernel_twice"]((1,), (1,), (x, 4))
    np.testing.assert_array_equal(x.get(), [0, 2, 4, 6])


def test_what_does_not_compile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Kernel("kernel_bad", 'extern "C" __global__ void kernel_bad(float* x) { x[0] = undeclared; }\n')
    with pytest.raises(KernelError, match=r"(?s)kernel_bad can't be compiled.*DISTORT_DUMP") as caught:
        modules.modules_of(0).get([*kernels()[:1], bad])
    assert "undeclared" in str(caught.value)
    monkeypatch.setenv("DISTORT_DUMP", str(tmp_path))
    with pytest.raises(KernelError, match=str(tmp_path)):
        modules.modules_of(0).get([bad])
    assert (tmp_path / "kernel_bad.cu").read_text() == bad.source


def test_what_cupy_lacks_for_compiling_is_an_error_of_ours(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy wants CUDA's headers, though nothing here includes one."""
    pathfinder = importlib.import_module("cuda.pathfinder")
    monkeypatch.setattr(pathfinder, "headers", None)
    with pytest.raises(KernelError, match="CUDA C can't be compiled: Failed to find CUDA headers"):
        modules.modules_of(0).get(kernels())


def test_a_lost_gpu_keeps_its_class_in_loading(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(self: Any, name: str) -> Any:
        raise fake_cuda.cuda.driver.CUDADriverError(700)

    monkeypatch.setattr(fake_cuda.RawModule, "get_function", lost)
    with pytest.raises(fake_cuda.cuda.driver.CUDADriverError) as caught:
        modules.modules_of(0).get(kernels())
    assert "loading" in caught.value.__notes__[0]
