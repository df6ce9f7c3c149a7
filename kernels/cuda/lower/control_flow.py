"""If, Loop and Scan, where shapes and weights decide what is done: the branch that is taken, and all rounds one after
another, become part of the plan. So does the branch that an earlier run took; a run that takes another is refused.

Rounds see what they scan where it lies, and what they leave is written to its place among that of others, where the
next round reads it too. Elsewhere bodies are programs of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distort.graph.ir import Graph, Node
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.builder import lowering_of as common_lowering_of
from distort.kernels.compiler.ir import Buffer, Host, Tensor, strides_of
from distort.kernels.compiler.lower.control_flow import listed, placed, scanned
from distort.kernels.cuda.lower import lowers_cuda

Result = list[Tensor | None] | None
#: what a loop may become
MOST_ROUNDS, MOST_OPERATIONS = 1024, 8192
#: a limit that says nothing of how many rounds there will be
_NO_LIMIT = 1 << 20
#: of known values that are scanned: smaller ones stay known
_SMALL_NBYTES = 1 << 16


@lowers_cuda("If")
def _if(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (condition,) = inputs
    common = common_lowering_of("", "If")
    if condition is None or common is None or condition.size != 1 or condition.dtype != np.bool_:
        return None
    if condition.value is not None:
        return common(b, node, inputs)
    taken = b.likely(node.outputs[0])
    if taken is None:
        return None
    number = b.contiguous(b.map("cast", [condition], np.int64)).reshaped((1,))
    b.refuse_others(number, *[b.constant(np.array([int(taken)]))] * 2)
    # steps on the host could fail in the branch that isn't the run's, before anybody looks
    found = _round(b, node.attributes["then_branch" if taken else "else_branch"], {})
    return None if found is None else [*found]


class _Stack:
    """Values of all rounds, one behind the other. How many there will be need not be known."""

    def __init__(self, n_rounds: int = 0, backwards: bool = False) -> None:
        self._n_rounds, self._backwards = n_rounds, backwards
        self._buffer = Buffer(0)
        self._first: Tensor | None = None
        self._n_values = 0

    def take(self, b: Builder, value: Tensor) -> Tensor | None:
        """The value where it now lies; None where it doesn't go with others."""
        first = self._first = self._first or value
        if (value.dtype, value.shape) != (first.dtype, first.shape):
            return None
        number = self._n_rounds - 1 - self._n_values if self._backwards else self._n_values
        self._n_values += 1
        place = Tensor(value.dtype, value.shape, strides_of(value.shape), self._buffer, number * value.size)
        if value.size:
            b.copy(value, place)
        return place

    def whole(self) -> Tensor:
        assert self._first is not None
        shape = (self._n_values, *self._first.shape)
        made = Tensor(self._first.dtype, shape, strides_of(shape), self._buffer)
        self._buffer.nbytes = made.nbytes
        return made


def _round(b: Builder, body: Graph, given: dict[str, Tensor], n_rounds: int = 1) -> list[Tensor] | None:
    """What a body makes; None where not all of it is part of the plan, or as many rounds would make that too long."""
    before = len(b.operations)
    found = b.inline(body, given)
    if found is None or (len(b.operations) - before) * n_rounds > MOST_OPERATIONS:
        return None
    if any(isinstance(operation, Host) for operation in b.operations[before:]):
        return None
    made = [b.plain(value) for value in found if isinstance(value, Tensor)]
    return made if len(made) == len(found) else None


def _keep(b: Builder, stacks: Sequence[_Stack], values: Sequence[Tensor], states: list[Tensor]) -> list[Tensor] | None:
    """Put values to those of other rounds. Returns the states, where they lie there if they are among them."""
    places = []
    for stack, value in zip(stacks, values, strict=True):
        place = stack.take(b, value)
        if place is None:
            return None
        places.append((value, place))
    return [next((place for value, place in places if value is state and state.size != 0), state) for state in states]


def _number(b: Builder, value: int) -> Tensor:
    """Of a round: no kernel is made for each."""
    made = b.constant(np.array(value, np.int64))
    made.varies = True
    return made


@lowers_cuda("Loop")
def _loop(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    body: Graph = node.attributes["body"]
    limit, going, *initial = inputs
    states = [t for t in initial if t is not None]
    n_states = len(states)
    n_scans = len(body.outputs) - 1 - n_states
    if n_states != len(initial) or len(body.inputs) != 2 + n_states or n_scans < 0:
        return None
    if any(t is not None and (t.value is None or t.size != 1) for t in (limit, going)):
        return None
    most = _NO_LIMIT if limit is None or limit.value is None else int(limit.value.reshape(-1)[0])
    if MOST_ROUNDS < most < _NO_LIMIT:
        return None
    go = going is None or going.value is None or bool(going.value.reshape(-1)[0])
    n_rounds = 0
    stacks = [_Stack() for _ in range(n_scans)]
    while go and n_rounds < most:
        if n_rounds == MOST_ROUNDS:
            return None
        given = dict(zip(body.inputs, [_number(b, n_rounds), b.constant(np.array(True)), *states], strict=True))
        found = _round(b, body, given, max(n_rounds, most if most < _NO_LIMIT else 0))
        if found is None or found[0].value is None or found[0].size != 1:
            return None
        go = bool(found[0].value.reshape(-1)[0])
        kept = _keep(b, stacks, found[1 + n_states :], found[1 : 1 + n_states])
        if kept is None:
            return None
        states, n_rounds = kept, n_rounds + 1
    if n_scans and not n_rounds:
        return None  # of what shape nothing is
    return [*states, *(stack.whole() for stack in stacks)]


@lowers_cuda("Scan")
def _scan(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    body: Graph = node.attributes["body"]
    known = scanned(node, inputs)
    if known is None:
        return None
    states, sequences, n_rounds = known
    if not 1 <= n_rounds <= MOST_ROUNDS:
        return None
    n_states = len(states)
    n_scans = len(body.outputs) - n_states
    stacks = [_Stack(n_rounds, bool(turned)) for turned in listed(node, "scan_output_directions", n_scans)]
    directions = listed(node, "scan_input_directions", len(sequences))
    for number in range(n_rounds):
        items = [
            _item(b, tensor, n_rounds - 1 - number if turned else number)
            for tensor, turned in zip(sequences, directions, strict=True)
        ]
        found = _round(b, body, dict(zip(body.inputs, [*states, *items], strict=True)), n_rounds)
        kept = None if found is None else _keep(b, stacks, found[n_states:], found[:n_states])
        if kept is None:
            return None
        states = kept
    results = placed(node, [stack.whole() for stack in stacks])
    return None if results is None else [*states, *results]


def _item(b: Builder, tensor: Tensor, number: int) -> Tensor:
    """One of a sequence."""
    if tensor.value is not None and tensor.nbytes <= _SMALL_NBYTES:
        made = b.constant(np.asarray(tensor.value[number]))
        made.varies = True
        return made
    return tensor.view(tensor.shape[1:], tensor.strides[1:], number * tensor.strides[0])


__all__ = ["MOST_OPERATIONS", "MOST_ROUNDS"]
