"""Functions of NVIDIA's libraries that CuPy's modules are linked to, and that no source here defines.

CuPy's modules can't be loaded without them. Called, they say on stderr that they are not there, and fail. They are
weak: where a source of the library defines the same function, the linker takes that one.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

#: the library's name, and what a function that is not there returns: the library's status for what is not supported
_LIBRARIES = {
    "libcublas.so.12": ("cublas", 15),
    "libcufft.so.11": ("cufft", 16),
    "libcusolver.so.11": ("cusolver", 9),
    "libcurand.so.10": ("curand", 999),
    "libcusparse.so.12": ("cusparse", 10),
}

_HEADER = """// Made by prepare.py: functions of {name} that CuPy is linked to, see there.
#include "driver.h"

static int absent(const char* function) {{
    cuda_on_cpu::report("{name}", function, "is not there");
    return {status};
}}

"""


def prepare(headers: Sequence[Path], into: Path) -> None:
    """Writes ``NAME_absent.cc`` for each library."""
    wanted = _wanted_functions()
    for soname, (name, status) in _LIBRARIES.items():
        lines = [
            f"EXPORT __attribute__((weak)) int {function}() {{ return absent(__func__); }}\n"
            for function in sorted(wanted[soname])
        ]
        (into / f"{name}_absent.cc").write_text(_HEADER.format(name=name, status=status) + "".join(lines))


def _wanted_functions() -> dict[str, set[str]]:
    """By the library's soname: undefined symbols of CuPy's modules bear it as their version."""
    wanted: dict[str, set[str]] = {soname: set() for soname in _LIBRARIES}
    modules = [str(path) for package in _cupy() for path in sorted(package.rglob("*.so"))]
    command = ["nm", "--dynamic", "--undefined-only", "--no-sort", *modules]
    symbols = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for function, soname in re.findall(r" U (\w+)@+(\S+)", symbols):
        if soname in wanted:
            wanted[soname].add(function)
    return wanted


def _cupy() -> list[Path]:
    found: list[Path] = []
    for package in ("cupy", "cupy_backends", "cupyx"):
        spec = importlib.util.find_spec(package)  # imports nothing
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"{package} isn't installed: its modules say what they are linked to")
        found.extend(Path(place) for place in spec.submodule_search_locations)
    return found
