"""Which kernel: a family, and the parameters that its code is made for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

_CODEGEN = "distort.kernels.compiler.codegen"
#: family -> where its emitter is: ``emit(function, target, *parameters)`` prints the kernel's body
FAMILIES: dict[str, str] = {
    "map": f"{_CODEGEN}.maps:emit_map",
    "quantized": f"{_CODEGEN}.quantized:emit_product",
    "quantized_conv": f"{_CODEGEN}.quantized_conv:emit_conv",
    "quantized_depthwise": f"{_CODEGEN}.quantized_depthwise:emit_depthwise",
    "interleave": f"{_CODEGEN}.interleave:emit_interleave",
    "range": f"{_CODEGEN}.quantized_elements:emit_range",
    "range_end": f"{_CODEGEN}.quantized_elements:emit_range_end",
}


@dataclass(frozen=True, slots=True)
class Key:
    """``parameters`` are numbers, text and tuples of them: what they are written as names the kernel."""

    family: str
    parameters: tuple[Any, ...]
    symbol: str = field(init=False, compare=False, repr=False, default="")

    def __post_init__(self) -> None:
        digest = hashlib.sha256(repr(self.parameters).encode()).hexdigest()[:20]
        object.__setattr__(self, "symbol", f"{self.family}_{digest}")
