"""If, Loop and Scan: bodies become part of the plan, with jumps around them.

That goes where all of a body is native and its shapes stay as they are from round to round. Elsewhere the NumPy kernel
runs the bodies, which are compiled programs of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distort.graph.ir import Graph, Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.expression import Expression, Instruction
from distort.kernels.compiler.ir import Call, ErrorWord, Host, Jump, Map, Mark, Native, Tensor, Word
from distort.kernels.compiler.keys import Key

Result = list[Tensor | None] | None
#: what a byte costs that is copied
_BYTE_NS = 0.1


@lowers("If")
def _if(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    (condition,) = inputs
    assert condition is not None
    if condition.size != 1 or condition.dtype != np.bool_:
        return None
    branches = node.attributes["then_branch"], node.attributes["else_branch"]
    if condition.value is None:
        return _either(b, condition, *branches)
    found = b.inline(branches[0] if condition.value.reshape(-1)[0] else branches[1], {})
    if found is None:
        return None
    for outside, inside in zip(node.outputs, found, strict=True):
        if isinstance(inside, str):
            b.aliases[outside] = inside
    return [value if isinstance(value, Tensor) else None for value in found]


def _either(b: Builder, condition: Tensor, *branches: Graph) -> Result:
    """Both branches leave their results in the same places.

    Where one of them can't be part of the plan, often because its nodes refuse these shapes, the other is likely.
    """
    other, end = Mark(), Mark()
    results: list[Tensor] = []
    n_native = 0
    b.add(Jump([condition], [], other, when=False))
    for branch, mark in zip(branches, (other, end), strict=True):
        with b.region():
            before = len(b.operations)
            found = _native(b, branch, {})
            if found is None:
                del b.operations[before:]
                b.add(Native([], [], [Call(Key("refuse", ()), [ErrorWord()], 1.0, most_threads=1)]))
                b.add(Jump([], [], None))
            else:
                n_native += 1
                if not results:
                    results = [b.new(tensor.dtype, tensor.shape) for tensor in found]
                if [(t.dtype, t.shape) for t in found] != [(t.dtype, t.shape) for t in results]:
                    return None
                for tensor, to in zip(found, results, strict=True):
                    to.buffer.changes = True
                    b.copy(tensor, to)
        if mark is other:
            b.add(Jump([], [], end))
        b.add(mark)
    if n_native == 0 or (n_native == 1 and b.cautious):
        return None
    b.guessed |= n_native == 1
    return [*results]


def _native(b: Builder, body: Graph, given: dict[str, Tensor]) -> list[Tensor] | None:
    """A body's results; None where not all of it is native."""
    before = len(b.operations)
    found = b.inline(body, given)
    if found is None or any(isinstance(operation, Host) for operation in b.operations[before:]):
        return None
    made = [b.plain(value) for value in found if isinstance(value, Tensor)]
    return made if len(made) == len(found) else None


class _Rounds:
    """A loop under construction. States are changed in place at the end of each round."""

    def __init__(self, b: Builder, limit: Tensor | None, going: Tensor | None) -> None:
        self.b, self.limit = b, limit
        self.number = self._state(b.constant(np.array(0, np.int64)))
        self.go = b.new(np.bool_, ())
        self.go.buffer.changes = True
        self._decide(going)
        self.begin, self.end = Mark(), Mark()
        self.states: list[Tensor] = []

    def _state(self, initial: Tensor) -> Tensor:
        state = self.b.new(initial.dtype, initial.shape)
        state.buffer.changes = True
        self.b.copy(initial, state)
        return state

    def carry(self, initial: Tensor) -> Tensor:
        self.states.append(self._state(initial))
        return self.states[-1]

    def _decide(self, going: Tensor | None) -> None:
        """Whether there is another round."""
        b = self.b
        if self.limit is None:
            b.copy(going if going is not None else b.constant(np.array(True)), self.go)
            return
        more = b.map("less", [self.number, self.limit.reshaped(())], np.bool_)
        if going is not None and (going.value is None or not going.value.all()):
            more = b.map("and", [more, going.reshaped(())])
        b.copy(more, self.go)

    def enter(self) -> None:
        self.b.add(Jump([self.go], [], self.end, when=False))
        self.b.add(self.begin)

    def stay_below(self, n_rounds: int) -> None:
        """Refuse the run before a round that there is no room for."""
        fits = self.b.map("less", [self.number, self.b.number("room", n_rounds)], np.bool_)
        inside = Mark()
        self.b.add(Jump([fits], [], inside, when=True))
        self.b.add(Native([], [], [Call(Key("refuse", ()), [ErrorWord()], 1.0, most_threads=1)]))
        self.b.add(Jump([], [], None))
        self.b.add(inside)

    def leave(self, results: Sequence[Tensor], going: Tensor | None) -> bool:
        """The end of a round. False where a state's shape changes."""
        b = self.b
        if [(t.dtype, t.shape) for t in results] != [(t.dtype, t.shape) for t in self.states]:
            return False
        changed = {state.buffer for state in self.states}
        kept = []
        for result, state in zip(results, self.states, strict=True):
            if result.buffer in changed and result.buffer is not state.buffer:
                # another state, as it was: that may be changed first
                made = b.new(result.dtype, result.shape)
                b.copy(result, made)
                result = made
            kept.append(result)
        for result, state in zip(kept, self.states, strict=True):
            if result.buffer is state.buffer:
                if not (result.whole and result.shape == state.shape):
                    return False
            else:
                b.copy(result, state)
        one = Instruction("constant", (0,), "int64", (1,))
        following = Expression(("int64",), (one, Instruction("add", (0, 1), "int64")), (2,))
        b.add(Map([self.number], [self.number], following))
        self._decide(going)
        b.add(Jump([self.go], [], self.begin, when=True))
        return True

    def copy_by_round(self, source: Tensor, to: Tensor, source_step: int, step: int, first: int = 0) -> None:
        """Copy ``nbytes`` of the smaller one; each round starts so many elements further in one of them."""
        itemsize = source.dtype.itemsize
        smaller = min(source, to, key=lambda tensor: tensor.nbytes)
        words: list[Word] = [
            self.number.address(),
            source.address(first if source_step else 0),
            source_step * itemsize,
            to.address(first if step else 0),
            step * itemsize,
            smaller.nbytes,
        ]
        call = Call(Key("copy_by_round", ()), words, smaller.nbytes * _BYTE_NS, most_threads=1)
        self.b.add(Native([self.number, source], [to], [call]))


@lowers("Loop")
def _loop(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    body: Graph = node.attributes["body"]
    limit, going, *initial = inputs
    if any(t is None for t in initial) or any(t is not None and t.size != 1 for t in (limit, going)):
        return None
    states = [t for t in initial if t is not None]
    n_states = len(states)
    n_scans = len(body.outputs) - 1 - n_states
    if len(body.inputs) != 2 + n_states or n_scans < 0 or (limit is None and going is None and n_scans):
        return None
    n_rounds, is_seen = None, False
    if limit is not None and limit.value is not None:
        n_rounds = int(limit.value.reshape(-1)[0])
    if n_scans and not b.cautious:
        # as many as there were in an earlier run: another number is noticed
        seen = b.seen(node.outputs[n_states])
        n_rounds, is_seen = (seen[0], True) if seen else (n_rounds, False)
    if n_scans and (n_rounds is None or n_rounds < 1):
        return None  # how many rounds there are is not known before
    if going is not None and going.value is not None and not going.value.all():
        return None
    rounds = _Rounds(b, limit, going)
    same = _unchanged(body)
    given = {body.inputs[0]: rounds.number, body.inputs[1]: b.constant(np.array(True))}
    for position, (name, state) in enumerate(zip(body.inputs[2:], states, strict=True)):
        given[name] = state if position in same else rounds.carry(state)
    rounds.enter()
    with b.region():
        if is_seen:
            rounds.stay_below(n_rounds or 0)
        found = _native(b, body, given)
        if found is None:
            return None
        after, *rest = found
        if after.size != 1:
            return None
        scanned = _collect(rounds, rest[n_states:], n_rounds or 0)
        if not rounds.leave([t for i, t in enumerate(rest[:n_states]) if i not in same], after):
            return None
    b.add(rounds.end)
    known = after.value is not None and after.value.all() and (going is None or going.value is not None)
    if n_scans and not (known and limit is not None and limit.value is not None):
        if b.cautious:
            return None
        b.guessed = True
        _expect(b, rounds.number, n_rounds or 0)
    changed = iter(rounds.states)
    return [*(state if i in same else next(changed) for i, state in enumerate(states)), *scanned]


def _unchanged(body: Graph) -> set[int]:
    """States that no round changes."""
    makers = {node.outputs[0]: node.inputs[0] for node in body.nodes if node.op_type == "Identity" and not node.domain}
    found = set()
    for position, (name, result) in enumerate(zip(body.inputs[2:], body.outputs[1:], strict=False)):
        while result in makers:
            result = makers[result]
        if result == name:
            found.add(position)
    return found


def _collect(rounds: _Rounds, values: Sequence[Tensor], n_rounds: int, backwards: Sequence[bool] = ()) -> list[Tensor]:
    """Values of all rounds, stacked."""
    b, made = rounds.b, []
    for position, value in enumerate(values):
        value = b.contiguous(value)
        stacked = b.new(value.dtype, (n_rounds, *value.shape))
        turned = bool(backwards) and backwards[position]
        first, step = ((n_rounds - 1) * value.size, -value.size) if turned else (0, value.size)
        if value.size:
            rounds.copy_by_round(value, stacked, 0, step, first)
        made.append(stacked)
    return made


def _expect(b: Builder, number: Tensor, n_rounds: int) -> None:
    """Less rounds than were thought of make smaller results: the plain program makes them."""
    words: list[Word] = [number.address(), n_rounds, ErrorWord()]
    b.add(Native([number], [], [Call(Key("expect_rounds", ()), words, 1.0, most_threads=1)]))


@lowers("Scan")
def _scan(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    body: Graph = node.attributes["body"]
    known = scanned(node, inputs)
    if known is None:
        return None
    states, turned, n_rounds = known
    n_states, directions = len(states), listed(node, "scan_input_directions", len(turned))
    if n_rounds < 1 or any(tensor.size == 0 for tensor in turned):
        return None
    sequences = [b.contiguous(tensor) for tensor in turned]
    rounds = _Rounds(b, b.number("rounds", n_rounds), None)
    given = {name: rounds.carry(t) for name, t in zip(body.inputs, states, strict=False)}
    rounds.enter()
    with b.region():
        for name, tensor, backwards in zip(body.inputs[n_states:], sequences, directions, strict=True):
            item = b.new(tensor.dtype, tensor.shape[1:])
            first, step = ((n_rounds - 1) * item.size, -item.size) if backwards else (0, item.size)
            rounds.copy_by_round(tensor, item, step, 0, first)
            given[name] = item
        found = _native(b, body, given)
        if found is None:
            return None
        n_scans = len(found) - n_states
        backwards_out = [bool(n) for n in listed(node, "scan_output_directions", n_scans)]
        stacked = _collect(rounds, found[n_states:], n_rounds, backwards_out)
        if not rounds.leave(found[:n_states], None):
            return None
    b.add(rounds.end)
    made: list[Tensor | None] = [*rounds.states]
    results = placed(node, stacked)
    return None if results is None else [*made, *results]


def scanned(node: Node, inputs: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Tensor], int] | None:
    """Of a Scan: its states, what it scans with the rounds first, and how many these are. None where that isn't known,
    or is wrong."""
    body: Graph = node.attributes["body"]
    n_sequences = node.attributes["num_scan_inputs"]
    tensors = [t for t in inputs if t is not None]
    n_states = len(tensors) - n_sequences
    if node.opset < 9 or len(tensors) != len(inputs) or n_states < 0 or len(body.inputs) != len(inputs):
        return None
    sequences = []
    for tensor, axis in zip(tensors[n_states:], listed(node, "scan_input_axes", n_sequences), strict=True):
        rank = len(tensor.shape)
        if not -rank <= axis < rank:
            return None
        axis %= rank
        sequences.append(tensor.permuted([axis, *(i for i in range(rank) if i != axis)]))
    lengths = {tensor.shape[0] for tensor in sequences}
    n_rounds = lengths.pop() if lengths else 0
    return None if lengths else (tensors[:n_states], sequences, n_rounds)


def placed(node: Node, stacked: Sequence[Tensor]) -> list[Tensor] | None:
    """What the rounds of a Scan made, with these along the axes that the node says; None where there are no such."""
    made = []
    for tensor, axis in zip(stacked, listed(node, "scan_output_axes", len(stacked)), strict=True):
        rank = len(tensor.shape)
        if not -rank <= axis < rank:
            return None
        order = [*range(1, rank)]
        order.insert(axis % rank, 0)
        made.append(tensor.permuted(order))
    return made


def listed(node: Node, name: str, count: int) -> list[int]:
    """An attribute of a number for each; zeros where it isn't one."""
    found = list(node.attributes.get(name) or [])
    return found if len(found) == count else [0] * count
