"""What GPUs there are, and the sentences that say why there are none: with drivers and CuPys that are made up."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

import distort
from distort.cli import doctor
from distort.kernels.cuda import device


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No CuPy is imported yet, and nothing is known; the same afterwards."""
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    device.forget()
    yield
    device.forget()


def here(
    monkeypatch: pytest.MonkeyPatch, *, driver: bool = True, packages: tuple[str, ...] = ("cupy-cuda12x",)
) -> None:
    """A machine with a driver and with packages of CuPy, as far as can be told without importing it."""

    def distribution(name: str) -> object:
        if name not in packages:
            raise metadata.PackageNotFoundError(name)
        return object()

    monkeypatch.setattr(device, "_has_driver", lambda: driver)
    monkeypatch.setattr(device, "_has_headers", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if packages else None)
    monkeypatch.setattr(metadata, "distribution", distribution)


def runtime(n_devices: int = 1, built: int = 12090, driver: int = 12080) -> SimpleNamespace:
    properties = {
        "name": b"Null 9000",
        "totalGlobalMem": 80 * 10**9,
        "major": 9,
        "minor": 0,
        "multiProcessorCount": 132,
    }
    return SimpleNamespace(
        getDeviceCount=lambda: n_devices,
        runtimeGetVersion=lambda: built,
        driverGetVersion=lambda: driver,
        getDeviceProperties=lambda index: properties,
    )


def import_cupy(monkeypatch: pytest.MonkeyPatch, calls: SimpleNamespace, nvrtc: Any = None) -> None:
    """``import cupy`` gives a module with these functions of CUDA."""
    nvrtc = nvrtc or SimpleNamespace(getVersion=lambda: (12, 9))
    module = SimpleNamespace(cuda=SimpleNamespace(runtime=calls, nvrtc=nvrtc), __version__="14.2.0")

    def load(name: str) -> object:
        assert name == "cupy"
        monkeypatch.setitem(sys.modules, "cupy", module)
        return module

    monkeypatch.setattr(device, "importlib", SimpleNamespace(util=importlib.util, import_module=load))


def test_a_gpu_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)
    import_cupy(monkeypatch, runtime(2))
    assert (device.why_not(), device.count(), device.obstacle()) == ("", 2, None)
    found = device.properties(1)
    assert found == ("Null 9000", 80 * 10**9, (9, 0), 132, False)
    with pytest.raises(ValueError, match="there is no GPU 2: they are 0 to 1"):
        device.properties(2)
    assert distort.get_available_providers() == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert distort.get_device() == "GPU"
    (told,) = [finding for finding in doctor._providers() if finding.what == "CUDAExecutionProvider"]
    assert (told.state, told.detail) == (
        "ok",
        "cupy 14.2.0, Null 9000 (compute capability 9.0), Null 9000 (compute capability 9.0)",
    )


def test_without_a_driver_cupy_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, driver=False)
    assert device.why_not() == "There is no NVIDIA driver (libcuda.so.1). Install NVIDIA's driver."
    assert "cupy" not in sys.modules
    assert distort.get_available_providers() == ["CPUExecutionProvider"]
    assert distort.get_device() == "CPU"


def test_without_anything_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, driver=False, packages=())
    assert device.why_not().endswith("CuPy isn't installed either: distort[cuda12] and distort[cuda13] bring it.")


def test_without_cupy_the_extra_is_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, packages=())
    found = device.obstacle()
    assert found is not None
    assert str(found).startswith("CuPy isn't installed. Install distort[cuda12], or distort[cuda13]")
    assert found.command == "pip install 'distort[cuda12]'"
    (told,) = [finding for finding in doctor._providers() if finding.what == "CUDAExecutionProvider"]
    assert (told.state, told.remedy) == ("not here", found.command)


def test_two_cupys_over_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch, packages=("cupy-cuda12x", "cupy-cuda13x"))
    found = device.obstacle()
    assert found is not None
    assert "cupy-cuda12x and cupy-cuda13x are both installed, and own the same files." in str(found)
    assert found.command.startswith("pip uninstall -y cupy-cuda12x cupy-cuda13x && ")


def test_a_cupy_that_can_not_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)

    def load(name: str) -> object:
        raise ImportError("\n=====\nlibfoo.so: cannot open\nmore")

    monkeypatch.setattr(device, "importlib", SimpleNamespace(util=importlib.util, import_module=load))
    assert device.why_not().startswith("CuPy is installed, and can't be imported: libfoo.so: cannot open. Install")


@pytest.mark.parametrize(
    ("built", "driver", "text"),
    [
        (13000, 12080, "it runs CUDA 12.8, and CuPy was built for 13.0. Update the driver, or install distort[cuda12]"),
        (12090, 11040, "it runs CUDA 11.4, and CuPy was built for 12.9. Update the driver."),
    ],
)
def test_an_old_driver(monkeypatch: pytest.MonkeyPatch, built: int, driver: int, text: str) -> None:
    here(monkeypatch)
    import_cupy(monkeypatch, runtime(1, built, driver))
    assert text in device.why_not()
    assert device.count() == 0


@pytest.mark.parametrize("raises", [False, True])
def test_no_gpu_is_visible(monkeypatch: pytest.MonkeyPatch, raises: bool) -> None:
    here(monkeypatch)
    calls = runtime(0)
    if raises:

        def none() -> int:
            raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

        calls.getDeviceCount = none
    import_cupy(monkeypatch, calls)
    assert device.why_not().startswith("The NVIDIA driver shows no GPU.")
    device.forget()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.why_not().startswith("No GPU is visible to this process: CUDA_VISIBLE_DEVICES is ''. Unset it")


def test_other_errors_of_the_driver_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)
    calls = runtime()

    def broken() -> int:
        raise RuntimeError("cudaErrorSystemDriverMismatch: versions differ")

    calls.getDeviceCount = broken
    import_cupy(monkeypatch, calls)
    assert device.why_not().startswith("CuPy can't reach a GPU: cudaErrorSystemDriverMismatch: versions differ.")


def test_without_headers_cupy_compiles_nothing(monkeypatch: pytest.MonkeyPatch, fake_cuda: Any) -> None:
    pathfinder = importlib.import_module("cuda.pathfinder")
    assert device.why_not() == ""
    device.forget()
    monkeypatch.setattr(pathfinder, "headers", None)
    found = device.obstacle()
    assert found is not None and "headers" in found.what and "CUDA_PATH" in found.remedy
    assert found.command.startswith("pip install 'distort[cuda1")


def test_a_cache_that_cannot_be_written_to_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)

    def denied(name: str) -> Any:
        raise PermissionError(13, "Permission denied", "/home/someone/.cupy")

    monkeypatch.setattr(importlib, "import_module", denied)
    found = device.obstacle()
    assert found is not None and "/home/someone/.cupy" in found.what and "CUPY_CACHE_DIR" in found.remedy


def test_without_nvrtc_its_extra_is_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)

    def missing() -> object:
        raise RuntimeError('Failure finding "libnvrtc.so.13 or libnvrtc.so.12"')

    import_cupy(monkeypatch, runtime(), SimpleNamespace(getVersion=missing))
    found = device.obstacle()
    assert found is not None
    assert found.command == "pip install 'distort[cuda12]'"
    assert "NVRTC" in found.what and "libnvrtc" in found.what


def test_this_machine_is_asked_without_raising() -> None:
    assert isinstance(device.why_not(), str)
    assert (device.count() == 0) == bool(device.why_not())


def test_a_session_on_the_cpu_looks_for_no_gpu() -> None:
    """Neither does one that names the CPU: looking starts the driver, where there is one."""
    model = '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    code = (
        "import sys, distort, onnx.parser; "
        f"m = onnx.parser.parse_model({model!r}).SerializeToString(); "
        "distort.InferenceSession(m); distort.InferenceSession(m, providers=['CPUExecutionProvider']); "
        "assert not {'cupy', 'distort.kernels.cuda.device', 'distort.kernels.cuda.options'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
