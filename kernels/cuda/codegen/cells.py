"""A unit of a recurrent layer in one step, for a row of the batch, as CUDA C; ``recurrent`` prints what is around."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from distort.kernels.compiler.codegen.gates import Activation
from distort.kernels.cuda.codegen.dtypes import COMPUTED, literal


class Structure(NamedTuple):
    """What a kernel's text depends on."""

    kind: str
    phase: str
    dtype: str
    activations: tuple[tuple[Activation, ...], ...]
    clip: float
    flags: tuple[str, ...]
    length_type: str
    multiplies: bool
    tile: int
    width: int


def _activation(dtype: str, of: Activation, x: str) -> str:
    name, alpha, beta = of
    kind, end = COMPUTED[dtype], "" if dtype == "float64" else "f"
    a, b, zero, one = (literal(number, dtype) for number in (alpha, beta, 0, 1))
    texts: dict[str, Callable[[], str]] = {
        "sigmoid": lambda: f"{one} / ({one} + exp{end}(-{x}))",
        "tanh": lambda: f"tanh{end}({x})",
        "relu": lambda: f"at_least<{kind}>({x}, {zero})",
        "affine": lambda: f"{x} * {a} + {b}",
        "leakyrelu": lambda: f"({x} >= {zero} ? {x} : {x} * {a})",
        "thresholdedrelu": lambda: f"({x} >= {a} ? {x} : {zero})",
        "scaledtanh": lambda: f"{a} * tanh{end}({b} * {x})",
        "hardsigmoid": lambda: f"at_most<{kind}>(at_least<{kind}>({x} * {a} + {b}, {zero}), {one})",
        "elu": lambda: f"({x} >= {zero} ? {x} : {a} * expm1{end}({x}))",
        "softsign": lambda: f"{x} / ({one} + fabs{end}({x}))",
        "softplus": lambda: f"at_least<{kind}>({x}, {zero}) + log1p{end}(exp{end}(-fabs{end}({x})))",
    }
    return texts[name]()


def _activated(s: Structure, number: int, target: str, x: str) -> str:
    texts = [_activation(s.dtype, of[number], x) for of in s.activations]
    value = texts[0] if len(set(texts)) == 1 else f"direction ? {texts[1]} : {texts[0]}"
    return f"{target} = {value};"


def _clipped(s: Structure, *names: str) -> list[str]:
    if not s.clip:
        return []
    kind, low, high = COMPUTED[s.dtype], literal(-s.clip, s.dtype), literal(s.clip, s.dtype)
    return [f"{name} = at_most<{kind}>(at_least<{kind}>({name}, {low}), {high});" for name in names]


def cell(s: Structure) -> list[str]:
    """Statements for a unit of a row, ``sum_0`` … being what the state adds to its gates."""
    kind = COMPUTED[s.dtype]
    lengths, zero = "lengths" in s.flags, literal(0, s.dtype)
    lines = [
        "const long long time = direction ? time_1 : time_0;",
        f"const {kind}* const of_x = gates + time * gates_time + row * gates_row + direction * gates_direction + unit;",
        f"const {kind} h_before = h[direction * h_direction + row * h_row + unit];",
        "const long long own = (direction * batch + row) * n_hidden + unit;",
    ]
    if lengths:
        lines += [
            "const long long length = lengths[row];",
            "if (length < 0 || length > n_steps) *error = 1;",
            "const bool is_there = time < length;",
        ]
    lines += {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[s.kind](s, kind)
    if s.phase == "gates":
        return lines
    if lengths:
        lines += [f"{kind} h_kept = is_there ? h_new : h_before;", f"if (is_last && length == 0) h_kept = {zero};"]
    lines.append(
        f"h_after[direction * h_after_direction + row * h_after_row + unit] = {'h_kept' if lengths else 'h_new'};"
    )
    if "y" in s.flags:
        value = f"is_there ? h_new : {zero}" if lengths else "h_new"
        lines.append(f"y[time * y_time + direction * y_direction + row * y_row + unit] = {value};")
    return lines


def _lstm(s: Structure, kind: str) -> list[str]:
    lines = [f"{kind} {name} = of_x[{n} * n_hidden] + sum_{n};" for n, name in enumerate(("i", "o", "f", "g"))]
    lines.append(f"const {kind} c_before = c[direction * c_direction + row * c_row + unit];")
    peeps = "peepholes" in s.flags
    if peeps:
        lines.append(f"const {kind}* const p = peepholes + direction * 3 * n_hidden + unit;")
        lines += ["i += p[0] * c_before;", "f += p[2 * n_hidden] * c_before;"]
    lines += _clipped(s, "i", "f", "g")
    lines += [_activated(s, 0, "i", "i"), _activated(s, 0, "f", "f"), _activated(s, 1, "g", "g")]
    if "input_forget" in s.flags:
        lines.append(f"f = {literal(1, s.dtype)} - i;")
    lines.append(f"const {kind} c_new = f * c_before + g * i;")
    if peeps:
        lines.append("o += p[n_hidden] * c_new;")
    lines += [*_clipped(s, "o"), _activated(s, 0, "o", "o")]
    lines += [f"{kind} h_new;", _activated(s, 2, "h_new", "c_new"), "h_new *= o;"]
    kept = "c_new"
    if "lengths" in s.flags:
        lines += [
            f"{kind} c_kept = is_there ? c_new : c_before;",
            f"if (is_last && length == 0) c_kept = {literal(0, s.dtype)};",
        ]
        kept = "c_kept"
    return [*lines, f"c_after[direction * c_after_direction + row * c_after_row + unit] = {kept};"]


def _gru(s: Structure, kind: str) -> list[str]:
    lines: list[str] = []
    if s.phase != "hidden":
        lines += [f"{kind} update = of_x[0] + sum_0;", f"{kind} reset_by = of_x[n_hidden] + sum_1;"]
        lines += _clipped(s, "update", "reset_by")
        lines += [_activated(s, 0, "update", "update"), _activated(s, 0, "reset_by", "reset_by")]
    if s.phase == "gates":
        return [*lines, "z[own] = update;", "reset[own] = reset_by * h_before;"]
    if s.phase == "hidden":
        lines += [f"const {kind} update = z[own];", f"{kind} inside = of_x[2 * n_hidden] + sum_0;"]
    else:
        bias = " + bias[direction * n_hidden + unit]" if "bias" in s.flags else ""
        lines.append(f"{kind} inside = of_x[2 * n_hidden] + reset_by * (sum_2{bias});")
    lines += [*_clipped(s, "inside"), _activated(s, 1, "inside", "inside")]
    return [*lines, f"const {kind} h_new = (h_before - inside) * update + inside;"]


def _rnn(s: Structure, kind: str) -> list[str]:
    lines = [f"{kind} h_new = of_x[0] + sum_0;", *_clipped(s, "h_new")]
    return [*lines, _activated(s, 0, "h_new", "h_new")]


__all__ = ["Structure", "cell"]
