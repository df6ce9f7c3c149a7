"""The headers that kernels are compiled behind: our own, and NVIDIA's that NVRTC has built in.

``include`` goes before a program's own folders; ``include_last`` behind all, for programs that have none.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent

#: as NVIDIA has them
FIRST = (
    "builtin_types.h",
    "channel_descriptor.h",
    "cuComplex.h",
    "cuda_device_runtime_api.h",
    "cuda_runtime_api.h",
    "device_types.h",
    "driver_types.h",
    "host_defines.h",
    "library_types.h",
    "math_constants.h",
    "surface_types.h",
    "texture_types.h",
    "vector_functions.h",
    "vector_functions.hpp",
    "vector_types.h",
)
#: as for a host, whatever ``__CUDA_ARCH__`` is: what they have for devices is assembly
NARROW_FLOATS = tuple(f"cuda_{name}.{kind}" for name in ("bf16", "fp16", "fp4", "fp6", "fp8") for kind in ("h", "hpp"))
#: ours, at the end of NVIDIA's: functions that these have for devices only
ENDS = {"cuda_fp16.h": "cuda_on_cpu/half.h", "cuda_bf16.h": "cuda_on_cpu/bfloat16.h"}
LAST = ("crt/host_defines.h", "nv/target", "nv/detail/__preprocessor", "nv/detail/__target_macros")
#: names of CUB's and of cooperative groups' headers, and which of ours has what they have
FORWARDED = {
    **{f"cub/{name}.cuh": "cuda_on_cpu/cub.h" for name in ("cub", "warp/warp_reduce")},
    **{f"cub/block/block_{name}.cuh": "cuda_on_cpu/cub.h" for name in ("load", "reduce", "scan", "store")},
    **{f"cooperative_groups/{name}.h": "cooperative_groups.h" for name in ("memcpy_async", "reduce", "scan")},
}


def prepare(headers: Sequence[Path], into: Path) -> None:
    # new folders: libnvrtc.so.12 takes their times for the headers' version
    for name in ("include", "include_last"):
        shutil.rmtree(into / name, ignore_errors=True)
    first, last = into / "include", into / "include_last"
    shutil.copytree(HERE / "include", first)
    for name in FIRST:
        _write(first / name, _find(name, headers))
    for name in NARROW_FLOATS:
        text = _find(name, headers).replace("__CUDA_ARCH__", "__CUDA_ON_CPU_NO_ARCH__")
        end = f"\n#include <{ENDS[name]}>\n" if name in ENDS else ""
        _write(first / name, text + end)
    for name, ours in FORWARDED.items():
        _write(first / name, f"#include <{ours}>\n")
    for name in LAST:
        _write(last / name, _find(name, [*headers, _cccl_of_cupy()]))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _find(name: str, folders: Sequence[Path]) -> str:
    for folder in folders:
        if (folder / name).exists():
            return (folder / name).read_text()
    raise FileNotFoundError(f"{name} is in none of {', '.join(map(str, folders))}: which wheel of NVIDIA's has it?")


def _cccl_of_cupy() -> Path:
    spec = importlib.util.find_spec("cupy")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("CuPy isn't installed")
    return Path(spec.origin).parent / "_core" / "include" / "cupy" / "_cccl" / "libcudacxx"
