"""What code is made for: the processor's vectors and instructions, this machine's or another's."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass

from distort.kernels.compiler.llvm import machine


@dataclass(frozen=True, slots=True)
class Target:
    triple: str
    cpu: str
    #: as LLVM writes them: "+avx2,-avx512f"
    features: str
    vector_nbytes: int
    n_vector_registers: int
    has_fma: bool
    has_int8_dot: bool  # VNNI, or the dot products of arm
    has_bf16_dot: bool

    def lanes(self, element: str) -> int:
        """How many elements (LLVM's name of one) a vector has."""
        nbytes = {"double": 8, "i64": 8, "float": 4, "i32": 4, "half": 2, "bfloat": 2, "i16": 2, "i8": 1, "i1": 4}
        return self.vector_nbytes // nbytes[element]


def of_features(triple: str, cpu: str, features: dict[str, bool]) -> Target:
    """A target by what its processor has."""
    arm = triple.startswith(("aarch64", "arm64"))

    def has(name: str) -> bool:
        return features.get(name, False)

    if arm:
        width, registers, fma = 16, 32, True
        dot, bf16 = has("dotprod"), has("bf16")
    else:
        wide = all(has(name) for name in ("avx512f", "avx512bw", "avx512dq", "avx512vl"))
        width = 64 if wide else 32 if has("avx2") else 16
        registers = 32 if wide else 16
        fma = has("fma")
        dot = has("avx512vnni") if wide else has("avxvnni")
        bf16 = wide and has("avx512bf16")
    text = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(features.items()))
    return Target(triple, cpu, text, width, registers, fma, dot, bf16)


#: for tests and to find errors: the machine is taken to be no better than this
LIMIT_VARIABLE = "DISTORT_CPU"
_LIMITS = {"avx2": "x86-64-v3", "sse4.2": "x86-64-v2"}


@functools.cache
def host() -> Target:
    """This machine, or what ``DISTORT_CPU`` (avx2, sse4.2) says that it is at most."""
    triple, cpu, features = machine()
    limit = os.environ.get(LIMIT_VARIABLE, "")
    if limit and limit in _LIMITS and platform.machine() in ("x86_64", "AMD64"):
        cpu = _LIMITS[limit]
        for name in list(features):
            wide = name.startswith(("avx512", "avx10", "amx", "avxvnni", "vaes", "vpclmulqdq"))
            if wide or (limit == "sse4.2" and name.startswith(("avx", "fma", "f16c", "xop"))):
                features[name] = False
    elif limit:
        raise ValueError(f"{LIMIT_VARIABLE}={limit} is not known; it may be {', '.join(_LIMITS)}")
    return of_features(triple, cpu, features)
