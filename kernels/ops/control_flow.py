"""If, Loop, Scan, SequenceMap. Bodies run as programs of their own on the same device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.ops.shape import axis_of
from distort.kernels.program import Body
from distort.kernels.registry import kernel


def _stacked(xp: Any, values: Sequence[Any]) -> Any:
    """Values of all rounds in one array. On a GPU some are still NumPy's: numbers of rounds, strings."""
    if all(isinstance(value, np.ndarray) for value in values):
        return np.stack(values)
    return xp.stack([xp.asarray(value) for value in values])


@kernel("If", host=(0,))
def if_else(xp: Any, condition: Any, *, then_branch: Body, else_branch: Body) -> Any:
    if condition.size != 1:
        raise InvalidInput(f"the condition of If must be one value, not shape {list(condition.shape)}")
    return tuple((then_branch if condition.reshape(-1)[0] else else_branch)())


@kernel("Loop", host=(0, 1))
def loop(xp: Any, trips: Any, condition: Any, *state: Any, body: Body, n_outputs: int) -> Any:
    """Runs while the condition holds and fewer than ``trips`` rounds are done; either may be absent."""
    limit = None if trips is None else int(trips.reshape(-1)[0])
    going = True if condition is None else bool(condition.reshape(-1)[0])
    carried = list(state)
    scanned: list[list[Any]] = [[] for _ in range(body.n_outputs - 1 - len(carried))]
    round_number = 0
    while going and (limit is None or round_number < limit):
        results = body(np.array(round_number, dtype=np.int64), np.array(going), *carried)
        going = bool(results[0].reshape(-1)[0])
        carried = results[1 : 1 + len(carried)]
        for collected, value in zip(scanned, results[1 + len(carried) :], strict=True):
            collected.append(value)
        round_number += 1
    stacked = [
        _stacked(xp, values) if values else body.empty_output(xp, 1 + len(carried) + position)
        for position, values in enumerate(scanned)
    ]
    return tuple([*carried, *stacked])


def _direction(values: Sequence[int] | None, position: int) -> int:
    return values[position] if values else 0


@kernel("Scan", 9)
def scan(
    xp: Any,
    *inputs: Any,
    body: Body,
    num_scan_inputs: int,
    scan_input_axes: list[int] | None = None,
    scan_input_directions: list[int] | None = None,
    scan_output_axes: list[int] | None = None,
    scan_output_directions: list[int] | None = None,
) -> Any:
    n_state = len(inputs) - num_scan_inputs
    if any(value is None for value in inputs) or n_state < 0:
        raise InvalidInput(f"Scan needs {max(num_scan_inputs, len(inputs))} inputs that are present")
    state, sequences = list(inputs[:n_state]), []
    for position, value in enumerate(inputs[n_state:]):
        moved = xp.moveaxis(value, axis_of(_direction(scan_input_axes, position), value.ndim), 0)
        sequences.append(moved[::-1] if _direction(scan_input_directions, position) else moved)
    state, collected = _scan(body, state, sequences)
    results = []
    for position, values in enumerate(collected):
        if not values:
            results.append(body.empty_output(xp, n_state + position))
            continue
        stacked = _stacked(xp, values[::-1] if _direction(scan_output_directions, position) else values)
        axis = axis_of(_direction(scan_output_axes, position), stacked.ndim)
        results.append(xp.moveaxis(stacked, 0, axis))
    return tuple([*state, *results])


def _scan(body: Body, state: list[Any], sequences: list[Any]) -> tuple[list[Any], list[list[Any]]]:
    lengths = {len(value) for value in sequences}
    if len(lengths) > 1:
        raise InvalidInput(f"the scanned inputs have different lengths {sorted(lengths)}")
    collected: list[list[Any]] = [[] for _ in range(body.n_outputs - len(state))]
    for step in range(lengths.pop() if lengths else 0):
        results = body(*state, *(value[step, ...] for value in sequences))
        state = results[: len(state)]
        for values, value in zip(collected, results[len(state) :], strict=True):
            values.append(value)
    return state, collected


@kernel("Scan", 8)
def scan_batched(
    xp: Any, lengths: Any, *inputs: Any, body: Body, num_scan_inputs: int, directions: list[int] | None = None
) -> Any:
    """Version 8: axis 0 is the batch, axis 1 the sequence; shorter sequences leave zeros behind."""
    n_state = len(inputs) - num_scan_inputs
    n_batch, longest = inputs[-1].shape[:2]
    sizes = [longest] * n_batch if lengths is None else lengths.tolist()
    rows: list[list[Any]] = []
    for row, size in enumerate(sizes):
        sequences = []
        for position, value in enumerate(inputs[n_state:]):
            part = value[row, :size]
            sequences.append(part[::-1] if _direction(directions, position) else part)
        state, collected = _scan(body, [value[row, ...] for value in inputs[:n_state]], sequences)
        padded = []
        for values in collected:
            whole = xp.zeros((longest, *values[0].shape), dtype=values[0].dtype)
            whole[:size] = xp.stack(values)
            padded.append(whole)
        rows.append([*state, *padded])
    return tuple(xp.stack(values) for values in zip(*rows, strict=True))


@kernel("SequenceMap", 17)
def sequence_map(xp: Any, sequence: list[Any], *others: Any, body: Body, n_outputs: int) -> Any:
    """The body on each item; sequences among the other inputs go along item by item."""
    results: list[list[Any]] = [[] for _ in range(n_outputs)]
    for position, item in enumerate(sequence):
        others_here = (value[position] if isinstance(value, list) else value for value in others)
        for collected, value in zip(results, body(item, *others_here), strict=False):
            collected.append(value)
    return tuple(results)
