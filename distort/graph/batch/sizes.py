"""Arithmetic on small tensors of integers of which some grow with the batch: shapes, and what is computed of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distort.graph.types import DTYPE_OF

from .movement import sliced_dim
from .rules import Site, rule
from .values import EXACT, FOLLOWED, Element, Refused, Size, Sizes, Tensor, Value, elements_of, shape_elements

_INT64 = np.dtype(np.int64)
_BOOL = np.dtype(np.bool_)


def element(per_sample: int, fixed: int) -> Element:
    return Size(per_sample, fixed) if per_sample else fixed


def parts(value: int | Size) -> tuple[int, int]:
    return (value.per_sample, value.fixed) if isinstance(value, Size) else (0, value)


def _undecided(a: Element, b: Element) -> Element:
    """None for what isn't known; what differs with the batch size in a way that can't be said is refused."""
    if isinstance(a, Size) or isinstance(b, Size):
        raise Refused("what it computes from the batch size can't be followed")
    return None


def _add(a: Element, b: Element) -> Element:
    if a is None or b is None:
        return _undecided(a, b)
    (x, c), (y, d) = parts(a), parts(b)
    return element(x + y, c + d)


def _subtract(a: Element, b: Element) -> Element:
    if a is None or b is None:
        return _undecided(a, b)
    (x, c), (y, d) = parts(a), parts(b)
    return element(x - y, c - d)


def _multiply(a: Element, b: Element) -> Element:
    if a == 0 or b == 0:
        return 0
    if a is None or b is None or (isinstance(a, Size) and isinstance(b, Size)):
        return _undecided(a, b)
    (x, c), (y, d) = parts(a), parts(b)
    return element(x * d + y * c, c * d)


def _divide(a: Element, b: Element) -> Element:
    if a is None or b is None or b == 0:
        return _undecided(a, b)
    if a == b:
        return 1
    if isinstance(b, Size):
        (x, c), (y, d) = parts(a), parts(b)
        ratio, rest = divmod(x, y)
        if rest == 0 and c == ratio * d:
            return ratio
        return _undecided(a, b)
    x, c = parts(a)
    if x % b == 0 and c % b == 0:
        return element(x // b, c // b)
    if x:
        return _undecided(a, b)
    return abs(c) // abs(b) * (1 if (c < 0) == (b < 0) else -1)  # integers divide towards zero


def _divide_floats(a: Element, b: Element) -> Element:
    """What is no whole number isn't followed."""
    quotient = _divide(a, b)
    return quotient if a is None or _multiply(quotient, b) == a else _undecided(a, b)


def _never_below(a: Element, b: Element, by: int = 0) -> bool:
    """Whether ``a >= b + by`` for every N >= 1. What isn't known may be anything."""
    if a is None or b is None:
        return False
    (x, c), (y, d) = parts(a), parts(b)
    return x >= y and x + c >= y + d + by


def _above(by: int) -> Callable[[Element, Element], Element]:
    """``a >= b + by`` as 1 or 0."""

    def compared(a: Element, b: Element) -> Element:
        if _never_below(a, b, by):
            return 1
        return 0 if _never_below(b, a, 1 - by) else _undecided(a, b)

    return compared


def _swapped(function: Callable[[Element, Element], Element]) -> Callable[[Element, Element], Element]:
    return lambda a, b: function(b, a)


def _equal(a: Element, b: Element) -> Element:
    if a is None or b is None:
        return _undecided(a, b)
    (x, c), (y, d) = parts(a), parts(b)
    if x == y:
        return int(c == d)
    n, rest = divmod(d - c, x - y)  # the only N for which they are equal
    return 0 if rest or n < 1 else _undecided(a, b)


def _largest(a: Element, b: Element) -> Element:
    if _never_below(a, b):
        return a
    return b if _never_below(b, a) else _undecided(a, b)


def _smallest(a: Element, b: Element) -> Element:
    if _never_below(a, b):
        return b
    return a if _never_below(b, a) else _undecided(a, b)


_BINARY: dict[str, Callable[[Element, Element], Element]] = {
    "Add": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
    "Max": _largest,
    "Min": _smallest,
    "Equal": _equal,
    "Less": _swapped(_above(1)),
    "LessOrEqual": _swapped(_above(0)),
    "Greater": _above(1),
    "GreaterOrEqual": _above(0),
}
_TRUTHS = frozenset(("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"))
_JOINED = ("Max", "Min", "Sum")


@rule("Shape", sizes=(0,))
def shape_of(site: Site) -> Value:
    value = site.tensor()
    if value.shape is None:
        return Tensor((None,))
    dims = shape_elements(value)[site.attribute("start", 0) : site.attribute("end")]
    return Sizes(dims, 1, _INT64).settled()


@rule("Size", sizes=(0,))
def size_of(site: Site) -> Value:
    total: Element = 1
    for dim in shape_elements(site.tensor()):
        total = _multiply(total, dim)
    return Sizes((total,), 0, _INT64).settled()


def computed(site: Site) -> Sequence[Value] | None:
    """The outputs of a node of followed integers; None where no rule here knows them. Raises Refused."""
    if site.node.domain or not site.inputs:
        return None
    known = [elements_of(value) for value in site.inputs if value is not None]
    if not known or any(elements is None for elements in known):
        return None
    op_type = site.node.op_type
    function = _OPERATORS.get(op_type)
    if function is not None:
        return function(site)
    if op_type in _BINARY or op_type == "Sum":
        return _paired(site)
    return None


def _operand(site: Site, position: int) -> Sizes:
    value = site.inputs[position]
    if isinstance(value, Sizes):
        return value
    assert isinstance(value, Tensor)
    assert value.array is not None  # computed() has asked for its elements
    return Sizes(elements_of(value) or (), value.array.ndim, value.array.dtype)


def _made(elements: Sequence[Element], rank: int, dtype: np.dtype[Any]) -> list[Value]:
    if len(elements) > FOLLOWED:
        raise Refused("it computes more from the batch size than can be followed")
    return [Sizes(tuple(elements), rank, dtype).settled()]


def _paired(site: Site) -> list[Value] | None:
    operands = [_operand(site, i) for i in range(len(site.inputs)) if site.has(i)]
    op_type = site.node.op_type
    if len(operands) > 2 and op_type not in _JOINED:
        return None
    result = operands[0]
    for other in operands[1:]:
        length = max(len(result.elements), len(other.elements))
        if {len(result.elements), len(other.elements)} - {1, length}:
            return None
        left, right = (list(o.elements) * (length if len(o.elements) == 1 else 1) for o in (result, other))
        function = _BINARY["Add" if op_type == "Sum" else op_type]
        if op_type == "Div" and result.dtype.kind == "f":
            function = _divide_floats
        elements = tuple(function(a, b) for a, b in zip(left, right, strict=True))
        dtype = _BOOL if op_type in _TRUTHS else result.dtype
        _check_exact(elements, dtype)
        result = Sizes(elements, max(result.rank, other.rank), dtype)
    return [result.settled()]


def _check_exact(elements: Sequence[Element], dtype: np.dtype[Any]) -> None:
    """Integers are followed exactly; a narrower type would round or wrap them."""
    limit = EXACT if dtype.kind == "f" else 1 << (8 * dtype.itemsize - 2)
    for item in elements:
        if item is not None and dtype != _BOOL and any(abs(part) >= limit for part in parts(item)):
            raise Refused(f"sizes that it computes don't fit {dtype}")


def _same(site: Site) -> list[Value]:
    operand = _operand(site, 0)
    return _made(operand.elements, operand.rank, operand.dtype)


def _cast(site: Site) -> list[Value] | None:
    operand = _operand(site, 0)
    dtype = DTYPE_OF.get(site.attribute("to", 0))
    if dtype is None or dtype not in (np.int32, np.int64, np.float32, np.float64):
        return None
    _check_exact(operand.elements, dtype)
    return _made(operand.elements, operand.rank, dtype)


def _gather(site: Site) -> list[Value] | None:
    data, picked = _operand(site, 0), _operand(site, 1)
    if data.rank != 1 or not all(isinstance(i, int) for i in picked.elements):
        return None
    positions = [i for i in picked.elements if isinstance(i, int)]
    if any(not -len(data.elements) <= i < len(data.elements) for i in positions):
        raise Refused("it picks an element that isn't there")
    return _made([data.elements[i] for i in positions], picked.rank, data.dtype)


def _concat(site: Site) -> list[Value] | None:
    operands = [_operand(site, i) for i in range(len(site.inputs))]
    if any(operand.rank != 1 for operand in operands):
        return None
    return _made([item for operand in operands for item in operand.elements], 1, operands[0].dtype)


def _unsqueeze(site: Site) -> list[Value] | None:
    operand, axes = _operand(site, 0), site.integers(1, "axes")
    if operand.rank != 0 or axes not in ([0], [-1]):
        return None
    return _made(operand.elements, 1, operand.dtype)


def _squeeze(site: Site) -> list[Value] | None:
    operand = _operand(site, 0)
    if len(operand.elements) == 1:
        return _made(operand.elements, 0, operand.dtype)
    return _made(operand.elements, 1, operand.dtype) if not site.has(1) and "axes" not in site.node.attributes else None


def _reshape(site: Site) -> list[Value] | None:
    operand = _operand(site, 0)
    target = site.attribute("shape") if site.node.opset < 5 else site.integers(1)
    if target is None or len(target) > 1:
        return None
    return _made(operand.elements, len(target), operand.dtype)


def _slice(site: Site) -> list[Value] | None:
    operand = _operand(site, 0)
    old = site.node.opset < 10
    bounds = [site.attribute(n) if old else site.integers(i) for i, n in ((1, "starts"), (2, "ends"), (4, "steps"))]
    starts, ends, steps = bounds
    if operand.rank != 1 or starts is None or ends is None or len(starts) != 1 or (steps is None and site.has(4)):
        return None
    step = steps[0] if steps else 1
    start, end = starts[0], ends[0]
    count = sliced_dim(len(operand.elements), start, end, step)
    if count is None:
        return None
    length = len(operand.elements)
    if step > 0:
        taken = operand.elements[start:end:step]
    else:
        first = max(-1, start + length) if start < 0 else min(start, length - 1)
        taken = tuple(operand.elements[first + i * step] for i in range(count))
    return _made(taken, 1, operand.dtype)


def _split(site: Site) -> list[Value] | None:
    operand, sizes = _operand(site, 0), site.integers(1, "split")
    n_parts = len(site.node.outputs)
    if operand.rank != 1:
        return None
    if sizes is None:
        each = -(-len(operand.elements) // n_parts)
        sizes = [max(0, min(each, len(operand.elements) - i * each)) for i in range(n_parts)]
    if sum(sizes) != len(operand.elements):
        return None
    made: list[Value] = []
    first = 0
    for size in sizes:
        made += _made(operand.elements[first : first + size], 1, operand.dtype)
        first += size
    return made


def _where(site: Site) -> list[Value] | None:
    condition, left, right = (_operand(site, i) for i in range(3))
    length = max(len(o.elements) for o in (condition, left, right))
    if any(len(o.elements) not in (1, length) for o in (condition, left, right)):
        return None
    chosen: list[Element] = []
    for i in range(length):
        c, a, b = (o.elements[i if len(o.elements) > 1 else 0] for o in (condition, left, right))
        if isinstance(c, int):
            chosen.append(a if c else b)
        else:
            chosen.append(a if a == b else _undecided(a, b))
    return _made(chosen, max(o.rank for o in (condition, left, right)), left.dtype)


def _not(site: Site) -> list[Value]:
    operand = _operand(site, 0)
    return _made([None if item is None else int(not item) for item in operand.elements], operand.rank, operand.dtype)


def _reduce(combine: Callable[[Element, Element], Element]) -> Callable[[Site], list[Value] | None]:
    def reduced(site: Site) -> list[Value] | None:
        operand, axes = _operand(site, 0), site.integers(1, "axes")
        if operand.rank != 1 or (axes is not None and axes not in ([0], [-1])) or not operand.elements:
            return None
        if (axes is None and site.has(1)) or (not axes and site.attribute("noop_with_empty_axes", 0)):
            return None
        total = operand.elements[0]
        for item in operand.elements[1:]:
            total = combine(total, item)
        return _made([total], 1 if site.attribute("keepdims", 1) else 0, operand.dtype)

    return reduced


def _negate(site: Site) -> list[Value]:
    operand = _operand(site, 0)
    return _made([_subtract(0, item) for item in operand.elements], operand.rank, operand.dtype)


def _modulo(site: Site) -> list[Value] | None:
    left, right = _operand(site, 0), _operand(site, 1)
    if len(left.elements) != 1 or len(right.elements) != 1:
        return None
    a, b = left.elements[0], right.elements[0]
    if isinstance(a, Size) and isinstance(b, int) and b > 0 and a.per_sample % b == 0 and a.fixed % b == 0:
        return _made([0], max(left.rank, right.rank), left.dtype)
    return None


def _expand(site: Site) -> list[Value] | None:
    operand, target = _operand(site, 0), site.integers(1)
    if target is None or len(target) != 1 or len(operand.elements) not in (1, target[0]) or target[0] > FOLLOWED:
        return None
    elements = operand.elements * target[0] if len(operand.elements) == 1 else operand.elements
    return _made(elements, 1, operand.dtype)


_OPERATORS: dict[str, Callable[[Site], list[Value] | None]] = {
    "Identity": _same,
    "Cast": _cast,
    "Ceil": _same,
    "Floor": _same,
    "Round": _same,
    "Gather": _gather,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Where": _where,
    "Not": _not,
    "Neg": _negate,
    "Mod": _modulo,
    "Expand": _expand,
    "ReduceProd": _reduce(_multiply),
    "ReduceSum": _reduce(_add),
    "ReduceMax": _reduce(_largest),
    "ReduceMin": _reduce(_smallest),
}
