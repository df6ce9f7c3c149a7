"""What LLVM says of itself and of this machine, kept on disk: its import takes longer than a small model's session."""

from __future__ import annotations

import json
import os
from pathlib import Path

from distort.graph import caching, digests

#: machines whose folder this is
_MOST_FILES, _MOST_NBYTES = 64, 1 << 20
_SUFFIX = ".machine"
#: what Linux says of a processor that another of its kind need not have, or that changes
_ITS_OWN = ("processor", "cpu MHz", "bogomips", "physical id", "core id", "apicid", "initial apicid")


def version() -> str:
    """Changes with LLVM."""
    import llvmlite

    binding = Path(llvmlite.__file__).parent / "binding"
    states = [
        f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}"
        for path in sorted(binding.glob("*llvmlite.*"))  # the library: all else of the package is Python
    ]
    return " ".join([llvmlite.__version__, *states])


def machine() -> tuple[str, str, dict[str, bool]]:
    """(triple, processor's name, its features), as LLVM names them."""
    processor = _processor()
    if not processor:
        return _ask()
    system = os.uname()
    named = "\n".join([version(), system.release, system.version, system.machine, processor])
    path = caching.folder("machines") / (digests.name(named.encode()) + _SUFFIX)
    kept = caching.read(path)
    if kept is not None:
        triple, cpu, features = json.loads(kept)
        return triple, cpu, features
    asked = _ask()
    caching.keep(path, json.dumps(asked).encode(), _MOST_FILES, _MOST_NBYTES)
    return asked


def _processor() -> str:
    """What Linux says of the first processor: its model and what it can do. Empty elsewhere."""
    try:
        with open("/proc/cpuinfo", "rb") as file:
            text = file.read(1 << 13).decode(errors="replace")
    except OSError:
        return ""
    lines = text.partition("\n\n")[0].splitlines()
    kept = [line for line in lines if not line.startswith(_ITS_OWN)]
    return "\n".join(kept)


def _ask() -> tuple[str, str, dict[str, bool]]:
    from llvmlite import binding

    return binding.get_default_triple(), binding.get_host_cpu_name(), dict(binding.get_host_cpu_features())


__all__ = ["machine", "version"]
