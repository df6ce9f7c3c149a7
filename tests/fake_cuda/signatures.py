"""What the real CuPy has, as data: names, parameters, element types. ``python signatures.py`` writes it beside itself.

Run it with CuPy installed (a GPU is not needed) and this folder not on the path.
"""

from __future__ import annotations

import inspect
import json
import re
import warnings
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("signatures.json")
MODULES = ("", "fft", "linalg", "lib.stride_tricks")
CLASSES = {
    "cuda": (
        "Device Stream ExternalStream Event Graph Memory UnownedMemory MemoryPointer MemoryPool MemoryAsyncPool "
        "PinnedMemory PinnedMemoryPool PythonFunctionAllocator CFunctionAllocator"
    ).split(),
    "": ["RawKernel", "RawModule", "ndarray", "ufunc"],
}
NAMESPACES = ("cuda", "cuda.runtime", "cuda.memory", "cuda.stream", "cuda.pinned_memory")
_DOCUMENTED = re.compile(r"^[\w.]*\((?P<inside>.*?)\)(\s*->.*)?$")


def _of_python(function: Any) -> list[str] | None:
    """Parameters as text: "a", "b=", "*", "/", "*c", "**d"."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return None
    kinds = inspect.Parameter
    parts: list[str] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is kinds.KEYWORD_ONLY and not any(p.startswith("*") for p in parts):
            parts.append("*")
        text = {kinds.VAR_POSITIONAL: "*", kinds.VAR_KEYWORD: "**"}.get(parameter.kind, "") + name
        parts.append(text if parameter.default is kinds.empty else f"{name}=")
        if parameter.kind is kinds.POSITIONAL_ONLY:
            later = list(signature.parameters.values())[len([p for p in parts if p not in ("*", "/")]) :]
            if not later or later[0].kind is not kinds.POSITIONAL_ONLY:
                parts.append("/")
    return parts


def _of_docstring(function: Any) -> list[str] | None:
    """The same of what Cython writes into the first line: ``f(self, int axis=-1, *, out=None)``."""
    lines = (function.__doc__ or "").strip().splitlines()
    match = _DOCUMENTED.match(lines[0].strip()) if lines else None
    if match is None:
        return None
    parts: list[str] = []
    for text in re.split(r",\s*(?![^()]*\))", match["inside"]):
        text = text.strip().replace("\\", "")
        if not text or text == "self" or text.endswith(" self"):
            continue
        if text in ("*", "/"):
            parts.append(text)
            continue
        name, equals, _ = text.partition("=")
        parts.append(name.split()[-1] + ("=" if equals else ""))
    return parts


def parameters(function: Any) -> list[str] | None:
    known = _of_python(function)
    return _of_docstring(function) if known is None else known


def _reach(root: Any, path: str) -> Any:
    for part in path.split(".") if path else []:
        root = getattr(root, part)
    return root


def collect() -> dict[str, Any]:
    """All of it, from the CuPy that is installed."""
    import cupy
    from cupy._core import _routines_math
    from cupy._sorting import search

    functions: dict[str, list[str] | None] = {}
    ufuncs: dict[str, Any] = {}
    for module in MODULES:
        there = _reach(cupy, module)
        for name in sorted(vars(there)):
            value = getattr(there, name)
            path = f"{module}.{name}" if module else name
            if name.startswith("_") or inspect.isclass(value) or inspect.ismodule(value) or not callable(value):
                continue
            if isinstance(value, cupy.ufunc):
                ufuncs[path] = {"name": value.name, "types": value.types}
            else:
                functions[path] = parameters(value)
    ufuncs["_clip"] = {"name": "cupy_clip", "types": _routines_math.clip.types}
    ufuncs["_where"] = {"name": "cupy_where", "types": search._where_ufunc.types}
    classes: dict[str, dict[str, list[str] | None]] = {}
    for module, names in CLASSES.items():
        for name in names:
            path = f"{module}.{name}" if module else name
            there = _reach(cupy, path)
            members = {key: parameters(getattr(there, key)) for key in sorted(dir(there)) if not key.startswith("_")}
            members["__init__"] = _of_docstring(there) or _of_python(there)
            classes[path] = members
    names = {path: sorted(n for n in dir(_reach(cupy, path)) if not n.startswith("_")) for path in NAMESPACES}
    runtime = {
        name: parameters(value)
        for name, value in vars(cupy.cuda.runtime).items()
        if not name.startswith("_") and callable(value) and not inspect.isclass(value)
    }
    integers = {
        name: int(value)
        for name, value in sorted(vars(cupy.cuda.runtime).items())
        if isinstance(value, int) and not isinstance(value, bool)
    }
    return {
        "version": cupy.__version__,
        "functions": functions,
        "ufuncs": ufuncs,
        "classes": classes,
        "names": names,
        "runtime": runtime,
        "integers": integers,
        "nccl": collect_nccl(),
    }


def collect_nccl() -> dict[str, Any] | None:
    """Of NCCL's wrapper, which needs the library (nvidia-nccl-cu12); None without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cupy.cuda import nccl

    if not nccl.available:
        return None
    there = vars(nccl)
    communicator = nccl.NcclCommunicator
    members = {key: parameters(getattr(communicator, key)) for key in sorted(dir(communicator)) if key[0] != "_"}
    members["__init__"] = _of_docstring(communicator)
    return {
        "names": sorted(name for name in there if not name.startswith("_")),
        "integers": {name: int(there[name]) for name in sorted(there) if name.startswith("NCCL_")},
        "communicator": {name: known for name, known in members.items() if known is not None},
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(collect(), indent=0, sort_keys=True) + "\n")
