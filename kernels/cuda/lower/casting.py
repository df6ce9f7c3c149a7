"""Cast and CastLike to and from elements of fewer than 8 bits and floating point numbers of 8; others are the CPU's."""

from __future__ import annotations

from distort.graph.ir import Node
from distort.graph.types import DTYPE_OF
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.expression import name_of
from distort.kernels.compiler.ir import Tensor
from distort.kernels.cuda.codegen.dtypes import is_real
from distort.kernels.cuda.codegen.narrow import FLOATS, NARROW
from distort.kernels.cuda.lower import lowers_cuda

Result = list[Tensor | None] | None
#: float32 holds what these have
_SHORT = frozenset(["bool", "int8", "uint8", "int16", "uint16", "float16", "bfloat16", "float32"])


@lowers_cuda("Cast", "CastLike")
def _cast(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    x = inputs[0]
    if x is None:
        return None
    if node.op_type == "CastLike":
        dtype = None if inputs[1] is None else inputs[1].dtype
    else:
        dtype = DTYPE_OF.get(node.attributes.get("to", 0))
    if dtype is None or name_of(dtype) not in b.dtypes or dtype == x.dtype:
        return None
    to, saturates = name_of(dtype), bool(node.attributes.get("saturate", 1))
    if x.element in ("float16", "bfloat16") and dtype.kind in "iu":
        return [b.map("cast", [x], dtype)]
    if x.element not in NARROW and to not in NARROW:
        return None
    # two roundings, by float32 on the way, are not always one
    is_long = x.element not in NARROW and x.element not in _SHORT
    if to in FLOATS and is_long and (is_real(x.element) or not saturates):
        return None
    return [b.map("cast", [x], dtype, (saturates,) if to in FLOATS else ())]
