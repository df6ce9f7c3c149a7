"""If, Loop and Scan: the proof goes into their bodies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distort.graph.ir import Graph, Node
from distort.graph.types import TensorType, ValueType

from .rules import Site
from .values import Content, Refused, Sizes, Tensor, Value, joined, normalized, same

#: (body, values of its inputs) -> values of its outputs, with what the body captures
Body = Callable[[Graph, Sequence["Value | None"]], list["Value | None"]]

#: how often a carried value may turn out to be known less than thought
_ROUNDS = 4


def conditional(site: Site, run: Body) -> list[Value | None]:
    """Both branches, or the one that is taken where that is known, must leave samples in the same places."""
    held = site.inputs[0]
    condition = site.tensor()
    if isinstance(held, Sizes) and held.grows:
        site.refuse("its condition depends on the batch size")
    if condition.axis is not None:
        site.refuse("its condition depends on the samples")
    branches = [site.attribute("then_branch"), site.attribute("else_branch")]
    if condition.array is not None and condition.array.size == 1:
        return run(branches[0] if condition.array.reshape(-1)[0] else branches[1], [])
    first, second = (run(branch, []) for branch in branches)
    return [_both(site, a, b) for a, b in zip(first, second, strict=True)]


def _both(site: Site, first: Value | None, second: Value | None) -> Value:
    if first is None or second is None:
        site.refuse("a branch leaves an output out")
    return joined(first, second, "what its branches make")


def loop(site: Site, run: Body) -> list[Value | None]:
    """Carried values must stay what they are from one iteration to the next; outputs by iteration get an axis first."""
    for position, what in ((0, "the number of its iterations"), (1, "its condition")):
        given = site.inputs[position] if site.has(position) else None
        if given is not None and (given.grows if isinstance(given, Sizes) else given.axis is not None):
            site.refuse(f"{what} depends on the samples or their number")
    body = site.attribute("body")
    carried = [_forgotten(value) for value in site.inputs[2:]]

    def iterate(state: Sequence[Value | None]) -> list[Value | None]:
        outputs = run(body, [Tensor(()), Tensor(()), *state])
        condition = outputs[0]
        if isinstance(condition, Sizes) and not condition.grows:
            condition = condition.tensor()
        if not isinstance(condition, Tensor) or condition.axis is not None:
            site.refuse("its condition depends on the samples or their number")
        return outputs[1:]

    outputs, carried = _settled(site, carried, iterate)
    runs = _runs_at_least_once(site)
    names = body.outputs[1 + len(carried) :]
    scanned = zip(names, outputs[len(carried) :], strict=True)
    return [*carried, *(_stacked(site, value, None if runs else body.types.get(name)) for name, value in scanned)]


def _runs_at_least_once(site: Site) -> bool:
    """Of a Loop, as far as its inputs tell."""
    count, condition = site.integers(0), site.integers(1)
    return (count is not None and count[0] > 0) and (not site.has(1) or (condition is not None and bool(condition[0])))


def scan(site: Site, run: Body) -> list[Value | None]:
    if site.node.opset < 9:
        site.refuse("version 8 has a batch axis of its own, and no rule")
    body = site.attribute("body")
    n_scanned = int(site.attribute("num_scan_inputs"))
    n_carried = len(site.inputs) - n_scanned
    axes = site.attribute("scan_input_axes") or [0] * n_scanned
    elements: list[Value | None] = []
    runs = False
    for i in range(n_scanned):
        value = site.tensor(n_carried + i)
        if value.shape is None:
            elements.append(Tensor())
            continue
        if value.content is not Content.SAMPLES:
            site.refuse("it goes over the numbers of the samples")
        axis = normalized(axes[i], value.rank)
        if axis == value.axis:
            site.refuse("it goes over the samples one after the other")
        runs = runs or (value.dims[axis] or 0) > 0
        kept = None if value.axis is None else value.axis - (value.axis > axis)
        elements.append(Tensor((*value.dims[:axis], *value.dims[axis + 1 :]), kept))
    carried = [_forgotten(value) for value in site.inputs[:n_carried]]
    outputs, carried = _settled(site, carried, lambda state: run(body, [*state, *elements]))
    out_axes = site.attribute("scan_output_axes") or [0] * (len(outputs) - n_carried)
    made = zip(body.outputs[n_carried:], outputs[n_carried:], out_axes, strict=True)
    types = {} if runs else body.types
    return [*carried, *(_stacked(site, value, types.get(name), axis) for name, value, axis in made)]


def _settled(
    site: Site, carried: list[Value | None], iterate: Callable[[Sequence[Value | None]], list[Value | None]]
) -> tuple[list[Value | None], list[Value | None]]:
    """Outputs of an iteration, and carried values that no iteration changes in kind."""
    for _ in range(_ROUNDS):
        outputs = iterate(carried)
        after: list[Value | None] = []
        for before, now in zip(carried, outputs, strict=False):
            if before is None or now is None:
                site.refuse("a value that it carries is missing")
            after.append(joined(before, _known(now), "a value that it carries from one iteration to the next"))
        if all(same(before, now) for before, now in zip(carried, after, strict=True)):
            return outputs, carried
        carried = after
    site.refuse("a value that it carries changes with every iteration")


def _forgotten(value: Value | None) -> Value | None:
    """A carried value keeps its kind, not its elements."""
    return None if value is None else _known(value)


def _known(value: Value) -> Tensor:
    if isinstance(value, Tensor):
        return Tensor(value.shape, value.axis, None, value.content)
    if value.grows:
        raise Refused("a value that it carries holds the batch size")
    return value.tensor()


def _stacked(site: Site, value: Value | None, declared: ValueType | None, axis: int = 0) -> Value | None:
    if value is None:
        return None
    element = _known(value)
    if element.shape is None:
        return Tensor()
    dims = declared.shape if isinstance(declared, TensorType) and declared.shape is not None else ()
    if element.axis is not None and element.axis < len(dims) and isinstance(dims[element.axis], int):
        # without any iteration the result has the declared dimensions
        site.refuse("its body declares a fixed batch dimension")
    place = normalized(axis, element.rank + 1)
    stacked = (*element.dims[:place], None, *element.dims[place:])
    moved = None if element.axis is None else element.axis + (element.axis >= place)
    return Tensor(stacked, moved, None, element.content)


RULES: dict[str, Callable[[Site, Body], list[Value | None]]] = {"If": conditional, "Loop": loop, "Scan": scan}


def has_rule(node: Node) -> bool:
    return not node.domain and node.op_type in RULES
