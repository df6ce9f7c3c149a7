"""Builds CUDA of the CPU: ``python tests/cuda_on_cpu/make.py FOLDER``, then ``. FOLDER/environment``.

In this Python's environment must be distort's extra ``cuda-on-cpu``, on the path g++ and nm. What is missing beside
(NVIDIA's headers, CuPy's sources of the version that is installed) pip downloads.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PARTS = ("driver", "compiler", "libraries", "cudnn")
#: wheels with the headers
HEADERS = (
    "nvidia-cuda-runtime-cu12==12.9.*",
    "nvidia-cuda-nvcc-cu12==12.9.*",
    "nvidia-cuda-cccl-cu12==12.9.*",
    "nvidia-cublas-cu12==12.9.*",
    "nvidia-cudnn-cu12==9.*",
)
#: CuPy's as its build sets them, for CUDA 12.9
_COMPILE_TIME: dict[str, Any] = {
    "CUPY_USE_CUDA_PYTHON": False,
    "CUPY_CUFFT_STATIC": False,
    "CUPY_CUDA_VERSION": 12090,
    "CUPY_HIP_VERSION": 0,
}
#: what the runtime's module includes and no wheel has
_PROFILER = """#pragma once
extern "C" cudaError_t cudaProfilerStart(void);
extern "C" cudaError_t cudaProfilerStop(void);
"""


def main(folder: Path) -> None:
    folder = folder.resolve()
    for name in ("lib", "overlay", "cache"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    headers = headers_of(folder / "headers")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda part: build(part, folder, headers), PARTS))
    build_runtime(folder, headers)
    for file in (HERE / "overlay").glob("*.py"):
        shutil.copy(file, folder / "overlay")
    environment = {
        "CUDA_ON_CPU": folder,
        "CUDA_ON_CPU_CACHE": folder / "cache",
        "CUPY_CACHE_DIR": folder / "cache" / "cupy",
        "CUPY_ACCELERATORS": "",  # CUB's device-wide algorithms are machine code for GPUs
        "CUDNN_FRONTEND_CUDART_LIB_NAME": "libcudart.so.12",  # where the machine has another, too
    }
    lines = [f"export {name}={shlex.quote(str(value))}" for name, value in environment.items()]
    for name, place in (("LD_LIBRARY_PATH", "lib"), ("PYTHONPATH", "overlay")):
        lines.append(f'export {name}={shlex.quote(str(folder / place))}"${{{name}:+:${name}}}"')
    (folder / "environment").write_text("\n".join(lines) + "\n")
    shutil.rmtree(folder / "cache" / "cupy", ignore_errors=True)  # modules of another build
    print(f". {folder / 'environment'}")


def headers_of(folder: Path) -> list[Path]:
    """Folders of NVIDIA's headers, of wheels that are not installed for them."""
    for wheel in HEADERS:
        done = folder / f"{wheel.partition('=')[0]}.done"
        if done.exists():
            continue
        with tempfile.TemporaryDirectory() as place:
            _pip("download", "-q", "--no-deps", "-d", place, wheel)
            for file in Path(place).glob("*.whl"):
                with zipfile.ZipFile(file) as archive:
                    names = [name for name in archive.namelist() if "/include/" in name]
                    archive.extractall(folder, names)
        done.touch()
    return sorted(folder.glob("nvidia/*/include"))


def build(part: str, folder: Path, headers: Sequence[Path]) -> None:
    """One part's libraries into ``folder/lib``."""
    made = folder / "made" / part
    made.mkdir(parents=True, exist_ok=True)
    libraries = json.loads((HERE / part / "build.json").read_text())
    if (HERE / part / "prepare.py").exists():
        _module(HERE / part / "prepare.py").prepare(headers, made)
    include = [f"-I{path}" for path in (made, HERE / part, *headers)]
    for library in libraries:
        target = folder / "lib" / library["soname"]
        sources = [str(made / name if (made / name).exists() else HERE / part / name) for name in library["sources"]]
        # the old one may be in use: it keeps its file
        new = target.with_suffix(f"{target.suffix}.new")
        command = ["g++", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", *library["flags"], *include]
        command += [f"-Wl,-soname,{library['soname']}", "-o", str(new), *sources, *library["needs"]]
        subprocess.run(command, check=True)
        new.replace(target)
        for link in library["links"]:
            (folder / "lib" / link).unlink(missing_ok=True)
            (folder / "lib" / link).symlink_to(library["soname"])


def build_runtime(folder: Path, headers: Sequence[Path]) -> None:
    """CuPy's module of CUDA's runtime, linked to ``libcuda.so.1`` instead of to a copy inside."""
    sources = _sources_of_cupy(folder / "sources")
    script = f"""
import Cython
from Cython.Build import cythonize
from setuptools import Extension
name = "cupy_backends.cuda.api.runtime"
directives = dict(embedsignature=True, c_api_binop_methods=True, binding=False, freethreading_compatible=True)
directives["warn.deprecated.IF"] = False
cythonize(
    [Extension(name, ["cupy_backends/cuda/api/runtime.pyx"], language="c++")], language_level=3, force=True, quiet=True,
    compiler_directives=directives, compile_time_env=dict({_COMPILE_TIME!r}, CUPY_CYTHON_VERSION=Cython.__version__),
)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, cwd=sources, stderr=subprocess.DEVNULL)
    (folder / "made" / "cuda_profiler_api.h").write_text(_PROFILER)
    include = [sources, sources / "cupy_backends", folder / "made", sysconfig.get_paths()["include"], *headers]
    command = ["g++", "-std=c++17", "-O1", "-w", "-fPIC", "-shared", *[f"-I{path}" for path in include]]
    target = folder / "overlay" / f"runtime{sysconfig.get_config_var('EXT_SUFFIX')}"
    command += ["-o", str(target), str(sources / "cupy_backends" / "cuda" / "api" / "runtime.cpp")]
    subprocess.run([*command, f"-L{folder / 'lib'}", "-l:libcuda.so.1"], check=True)


def _sources_of_cupy(folder: Path) -> Path:
    version = metadata.version("cupy-cuda12x")
    place = folder / f"cupy-{version}"
    if not place.exists():
        # as for its documentation, it asks for no CUDA
        _pip(
            "download", "-q", "--no-deps", "--no-binary", "cupy", "-d", str(folder), f"cupy=={version}",
            environment={"CUPY_INSTALL_USE_STUB": "1"},
        )  # fmt: skip
        with tarfile.open(folder / f"cupy-{version}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return place


def _pip(*arguments: str, environment: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, env={**os.environ, **(environment or {})})


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
