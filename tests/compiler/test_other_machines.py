"""Element-wise, row and column kernels compile for machines that are not at hand."""

from __future__ import annotations

import pytest

from distort.kernels.compiler.codegen import operators
from distort.kernels.compiler.codegen.elements import EMITTERS
from distort.kernels.compiler.codegen.target import Target, of_features
from distort.kernels.compiler.expression import Expression, Instruction
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.library import compile_text, module_text

TARGETS = [
    of_features("aarch64-unknown-linux-gnu", "generic", {"neon": True}),
    of_features("arm64-apple-macosx", "apple-m1", {"neon": True, "dotprod": True}),
    of_features("x86_64-pc-windows-msvc", "x86-64-v2", {"sse4.2": True}),
    of_features("x86_64-unknown-linux-gnu", "x86-64-v3", {"avx2": True, "fma": True, "f16c": True}),
]
_FLOAT = "float32"
_BODY = (
    Instruction("row_max", (0,), _FLOAT),
    Instruction("sub", (0, 1), _FLOAT),
    Instruction("exp", (2,), _FLOAT),
    Instruction("row_sum", (3,), _FLOAT),
    Instruction("div", (3, 4), _FLOAT),
    Instruction("row_argmax", (0,), "int64"),
)
_SOFTMAX = Expression((_FLOAT,), _BODY, (5, 6))
_UNARY = ("exp", "expm1", "log", "log1p", "tanh", "erf", "sin", "tan", "asin", "acosh", "gelu", "mish", "softplus")


def _function(op: str, dtype: str) -> Expression:
    return Expression((dtype,), (Instruction(op, (0,), dtype),), (1,))


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.triple)
def test_compiles(target: Target) -> None:
    operators.register()
    assert set(_UNARY) <= set(EMITTERS)
    keys = [Key("map", (_function(op, dtype), 1, (1, 1))) for op in _UNARY for dtype in (_FLOAT, "float64")]
    keys += [Key("map", (_function("relu", dtype), 2, (2, 1))) for dtype in ("float16", "bfloat16", "int8", "int64")]
    power = Instruction("pow", (0, 1), _FLOAT)
    keys.append(Key("map", (Expression((_FLOAT, "int64"), (power,), (2,)), 1, (1, 0, 1))))
    keys += [Key("turned", (_function("abs", dtype), 2, (3, 1))) for dtype in (_FLOAT, "float16", "int8")]
    keys.append(Key("rows", (_SOFTMAX, 1, 2, (1, 1, 0))))
    keys.append(Key("columns", (_SOFTMAX, 1, 1, ((1, True), (1, True), (1, False)))))
    assert compile_text(module_text(keys, target), target)
