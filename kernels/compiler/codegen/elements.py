"""Expressions as LLVM IR: on vectors of any number of lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import (
    NUMBER_OF_BITS,
    Function,
    Index,
    Value,
    lanes_of,
    vector,
    with_element,
)
from distort.kernels.compiler.expression import COMPUTED, STORED, Expression, Instruction

#: op -> how it is printed: (function, expression, instruction, operands) -> result
Emitter = Callable[[Function, Expression, Instruction, Sequence[Value]], Value]
EMITTERS: dict[str, Emitter] = {}
#: computed with in float32
NARROW = ("float16", "bfloat16")
#: instructions whose results need no rounding where their operands are rounded
_EXACT = {"constant", "max", "min", "maximum", "minimum", "clip", "neg", "abs", "sign", "floor", "ceil", "round"}
_EXACT |= {"relu", "where", "row_max", "row_min"}


def evaluate(f: Function, expression: Expression, inputs: Sequence[Value]) -> list[Value]:
    """Print the expression's body. ``inputs`` and results are in the types that are computed with."""
    from distort.kernels.compiler.codegen import operators

    operators.register()
    values = list(inputs)
    for number, instruction in enumerate(expression.body, len(inputs)):
        values.append(emit(f, expression, number, [values[operand] for operand in instruction.operands]))
    return [values[number] for number in expression.results]


def emit(f: Function, expression: Expression, number: int, operands: Sequence[Value]) -> Value:
    """Print one instruction, by its number among operands."""
    instruction = expression.body[number - len(expression.inputs)]
    return rounded(f, expression, number, EMITTERS[instruction.op](f, expression, instruction, operands))


def rounded(f: Function, expression: Expression, number: int, value: Value) -> Value:
    """What an instruction makes, as others see it: half precision as if it had been stored between two operators."""
    instruction = expression.body[number - len(expression.inputs)]
    if instruction.dtype not in NARROW or instruction.op in _EXACT:
        return value
    if not any(number in other.operands for other in expression.body):
        return value  # it is only stored
    return computed(f, stored(f, value, instruction.dtype), instruction.dtype)


def computed(f: Function, value: Value, dtype: str) -> Value:
    """A stored value as it is computed with."""
    if dtype == "bool":
        return f.icmp("ne", value, f.const(value.type, 0))
    if dtype == "bfloat16":
        bits = f.cast("zext", f.cast("bitcast", value, "i16"), "i32")
        return f.cast("bitcast", f.binary("shl", bits, f.const(bits.type, 16)), "float")
    if dtype == "float16":
        return f.cast("fpext", value, "float") if _has_half(f) else _from_half(f, value)
    return value


def stored(f: Function, value: Value, dtype: str) -> Value:
    """A computed value as it is stored."""
    if dtype == "bool":
        return f.cast("zext", value, "i8")
    if dtype == "bfloat16":
        return _to_bfloat(f, value)
    if dtype == "float16":
        return f.cast("fptrunc", value, "half") if _has_half(f) else _to_half(f, value)
    return value


def _has_half(f: Function) -> bool:
    """Whether the machine converts float16; else LLVM would call a function that nobody has."""
    return f.target is None or "+f16c" in f.target.features or f.target.triple.startswith(("aarch64", "arm64"))


def _shifted(f: Function, name: str, value: Value, places: int) -> Value:
    return f.binary(name, value, f.const(value.type, places))


def _to_bfloat(f: Function, value: Value) -> Value:
    """Rounded to even; NaN stays one."""
    bits = f.cast("bitcast", value, "i32")
    upper = _shifted(f, "lshr", bits, 16)
    odd = f.binary("and", upper, f.const(bits.type, 1))
    rounded = f.binary("add", f.binary("add", bits, f.const(bits.type, 0x7FFF)), odd)
    quiet = f.binary("or", upper, f.const(bits.type, 0x40))
    bits = f.select(f.fcmp("uno", value, value), quiet, _shifted(f, "lshr", rounded, 16))
    return f.cast("bitcast", f.cast("trunc", bits, "i16"), "bfloat")


def _from_half(f: Function, value: Value) -> Value:
    bits = f.cast("zext", f.cast("bitcast", value, "i16"), "i32")
    number = partial(f.const, bits.type)
    sign = _shifted(f, "shl", f.binary("and", bits, number(0x8000)), 16)
    rest = _shifted(f, "shl", f.binary("and", bits, number(0x7FFF)), 13)
    scaled = f.fmul(f.cast("bitcast", rest, "float"), f.const(with_element(rest.type, "float"), 2.0**112))
    beyond = f.icmp("uge", rest, number(0x7C00 << 13))
    size = f.select(beyond, f.binary("or", rest, number(0x7F800000)), f.cast("bitcast", scaled, "i32"))
    return f.cast("bitcast", f.binary("or", size, sign), "float")


def _to_half(f: Function, value: Value) -> Value:
    """Rounded to even (F. Giesen, float_to_half_fast3_rtne)."""
    bits = f.cast("bitcast", value, "i32")
    number = partial(f.const, bits.type)
    size = f.binary("and", bits, number(0x7FFFFFFF))
    sign = f.binary("and", _shifted(f, "lshr", bits, 16), number(0x8000))
    magic = 126 << 23  # a half's last subnormal place is this number's last
    shifted = f.fadd(f.cast("bitcast", size, "float"), f.cast("bitcast", number(magic), "float"))
    subnormal = f.binary("sub", f.cast("bitcast", shifted, "i32"), number(magic))
    odd = f.binary("and", _shifted(f, "lshr", size, 13), number(1))
    normal = f.binary("add", f.binary("add", size, number(((15 - 127) << 23) + 0xFFF)), odd)
    normal = _shifted(f, "lshr", normal, 13)
    result = f.select(f.icmp("ult", size, number(113 << 23)), subnormal, normal)
    nan = f.select(f.icmp("ugt", size, number(0x7F800000)), number(0x7E00), number(0x7C00))
    result = f.select(f.icmp("uge", size, number(143 << 23)), nan, result)
    return f.cast("bitcast", f.cast("trunc", f.binary("or", result, sign), "i16"), "half")


def load(f: Function, address: Value, dtype: str, lanes: int, mask: Value | None = None) -> Value:
    """Elements next to each other, ready to be computed with. Lanes that ``mask`` leaves out are 0."""
    type_ = vector(STORED[dtype], lanes)
    if mask is None:
        return computed(f, f.load(type_, address), dtype)
    plain = vector(_PLAIN.get(dtype, STORED[dtype]), lanes)
    value = f.masked_load(plain, address, mask, f.const(plain, 0))
    return computed(f, f.bitcast(value, type_), dtype)


def store(f: Function, value: Value, address: Value, dtype: str, mask: Value | None = None) -> None:
    """Elements next to each other; those that ``mask`` leaves out stay as they are."""
    value = stored(f, value, dtype)
    if mask is None:
        f.store(value, address)
    else:
        f.masked_store(f.cast("bitcast", value, _PLAIN.get(dtype, STORED[dtype])), address, mask)


#: masked memory of these is of integers
_PLAIN = {"float16": "i16", "bfloat16": "i16"}


def has_masks(target: Target) -> bool:
    """Whether vectors of any element are read and written in part at no cost."""
    return target.vector_nbytes == 64


def mask_of(f: Function, lanes: int, count: Index) -> Value:
    """The first ``count`` of so many lanes; ``count`` may be more than there are."""
    element = {64: "i8", 32: "i16", 16: "i32"}.get(lanes, "i64")
    numbers = ", ".join(f"{element} {lane}" for lane in range(lanes))
    few = f.min(count, lanes)
    short = few if element == "i64" else f.op(element, f"trunc {f.i64(few)} to {element}")
    limit = f.splat(f.i64(short, element), lanes)
    return f.op(vector("i1", lanes), f"icmp slt <{lanes} x {element}> <{numbers}>, {limit.text}")


def lanes_for(target: Target, expression: Expression) -> int:
    """Lanes of vectors on which the expression's largest values fill one register."""
    elements = {COMPUTED[dtype] for dtype in (*expression.inputs, *(i.dtype for i in expression.body))}
    return max(1, min(target.lanes(element) if element != "i1" else target.vector_nbytes for element in elements))


#: instructions that are worth about so many of the others
_COSTS = dict.fromkeys(("exp", "exp_to_one", "expm1", "log", "tanh", "erf", "sigmoid", "asin", "acos", "atan"), 12)
_COSTS |= dict.fromkeys(("gelu", "swish", "mish", "elu", "selu"), 14)
_COSTS |= dict.fromkeys(("log1p", "softplus", "celu", "mod"), 25)
_COSTS |= dict.fromkeys(("sin", "cos", "tan", "sinh", "cosh", "asinh", "acosh", "atanh"), 40)
_COSTS |= {"pow": 60, "constant": 0, "div": 2, "sqrt": 2}


def cost_of(body: Iterable[Instruction]) -> int:
    """About how many simple instructions a body is worth, for each vector."""
    return sum(_COSTS.get(instruction.op, 1) for instruction in body)


def nbytes(dtype: str) -> int:
    """Of an element as it is stored."""
    bits = NUMBER_OF_BITS.get(STORED[dtype]) or int(STORED[dtype][1:])
    return bits // 8


def type_of(dtype: str, lanes: int) -> str:
    return vector(COMPUTED[dtype], lanes)


__all__ = [
    "EMITTERS",
    "Emitter",
    "computed",
    "cost_of",
    "evaluate",
    "has_masks",
    "lanes_for",
    "lanes_of",
    "load",
    "mask_of",
    "nbytes",
    "store",
    "stored",
    "type_of",
]
