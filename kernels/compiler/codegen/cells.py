"""What a recurrent cell does with the sums of its gates, for one row's block of hidden units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from distort.kernels.compiler.codegen.gates import Activation, activate, clipped
from distort.kernels.compiler.codegen.text import Function, Value


class Unit(Protocol):
    """Where a row's block of hidden units is read and written."""

    f: Function

    def vectors(self, name: str, count: int) -> list[Value]:
        """Weights of the block: ``bias`` or ``peepholes``."""

    def scratch(self, which: int) -> Value:
        """The address of a vector that the first phase leaves to the second: 0, what is multiplied with, or 1."""

    def state_before(self) -> Value: ...

    def cell_before(self) -> Value: ...

    def store_cell(self, value: Value) -> None: ...

    def make(self, state: Value) -> None: ...


def lstm(
    unit: Unit,
    sums: Sequence[Value],
    inputs: Sequence[Value],
    activations: Sequence[Activation],
    clip: float,
    flags: Sequence[str],
) -> None:
    """sums, inputs: i, o, f, c."""
    f = unit.f
    of_gate, of_input, of_cell = activations
    before = unit.cell_before()
    i, o, forget, c = (f.fadd(a, b) for a, b in zip(sums, inputs, strict=True))
    peepholes = unit.vectors("peepholes", 3) if "peepholes" in flags else None
    if peepholes:
        i, forget = f.fma(peepholes[0], before, i), f.fma(peepholes[2], before, forget)
    i = activate(f, clipped(f, i, clip), of_gate)
    c = activate(f, clipped(f, c, clip), of_input)
    if "input_forget" in flags:
        forget = f.fsub(f.const(i.type, 1), i)
    else:
        forget = activate(f, clipped(f, forget, clip), of_gate)
    after = f.fma(forget, before, f.fmul(i, c))
    unit.store_cell(after)
    if peepholes:
        o = f.fma(peepholes[1], after, o)
    o = activate(f, clipped(f, o, clip), of_gate)
    unit.make(f.fmul(o, activate(f, after, of_cell)))


def rnn(unit: Unit, total: Value, of_input: Value, activation: Activation, clip: float) -> None:
    unit.make(activate(unit.f, clipped(unit.f, unit.f.fadd(total, of_input), clip), activation))


def gru(
    unit: Unit, sums: Sequence[Value], inputs: Sequence[Value], activations: Sequence[Activation], clip: float
) -> None:
    """sums, inputs: z, r, h. The reset is of the product, with its bias."""
    f = unit.f
    z, r = (_gate(f, a, b, activations[0], clip) for a, b in zip(sums[:2], inputs[:2], strict=True))
    (bias,) = unit.vectors("bias", 1)
    _mix(unit, z, f.fma(f.fadd(sums[2], bias), r, inputs[2]), activations[1], clip)


def gru_in_two(
    unit: Unit,
    phase: int,
    sums: Sequence[Value],
    inputs: Sequence[Value],
    activations: Sequence[Activation],
    clip: float,
) -> None:
    """The reset is of the state: all of it must be there before it is multiplied with."""
    f = unit.f
    update = unit.scratch(1)
    if phase == 0:
        z, r = (_gate(f, a, b, activations[0], clip) for a, b in zip(sums, inputs[:2], strict=True))
        f.store(z, update)
        f.store(f.fmul(r, unit.state_before()), unit.scratch(0))
    else:
        _mix(unit, f.load(sums[0].type, update), f.fadd(sums[0], inputs[2]), activations[1], clip)


def _gate(f: Function, a: Value, b: Value, activation: Activation, clip: float) -> Value:
    return activate(f, clipped(f, f.fadd(a, b), clip), activation)


def _mix(unit: Unit, z: Value, total: Value, activation: Activation, clip: float) -> None:
    """h = (1 - z) g(total) + z h"""
    f = unit.f
    fresh = activate(f, clipped(f, total, clip), activation)
    unit.make(f.fma(z, f.fsub(unit.state_before(), fresh), fresh))
