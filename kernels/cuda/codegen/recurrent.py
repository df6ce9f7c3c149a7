"""Time steps of LSTM, GRU and RNN, each one launch (two for a GRU whose state is reset before its product).

Where the state's products are not made by a library, a warp has a hidden unit and a few rows of the batch: its lanes go
along the rows of R that belong to the unit's gates, and their sums meet in all of them; a lane for each row of the
batch then has the cell. Else a thread has a hidden unit of a row. States before and after a step lie apart, so nobody
waits for others within one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distort.kernels.compiler.ir import ErrorWord, Tensor
from distort.kernels.cuda.codegen.dtypes import COMPUTED, NBYTES, literal
from distort.kernels.cuda.codegen.gathering import INDEX
from distort.kernels.cuda.codegen.grids import grid_kernel
from distort.kernels.cuda.codegen.helpers import with_helpers
from distort.kernels.cuda.launch import NAME, Argument, Kernel, Launch, kernel_of
from distort.kernels.cuda.operations import Activation, CudaCells

_BLOCK, _WARP, _PACK_NBYTES = 128, 32, 16
#: rows of the batch that a warp has at once, at most
_MOST_TILE = 4
N_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
#: axes of memory along which a launch steps, where they aren't a state's
_AXES = {"gates": ("time", "row", "direction"), "y": ("time", "direction", "row")}
#: gates of each phase
_GATES = {"gates": (0, 1), "hidden": (2,)}


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


def cell_launches(operation: CudaCells) -> list[Launch]:
    of = operation.operands
    gates = of["gates"]
    _, batch, n_directions, _, hidden = gates.shape
    multiplies = "products" not in of
    tile = min(_MOST_TILE, batch)
    width = _PACK_NBYTES // NBYTES[gates.element] if hidden % (_PACK_NBYTES // NBYTES[gates.element]) == 0 else 1
    flags = [*operation.flags, *(name for name in ("bias", "peepholes", "lengths", "y") if name in of)]
    index = INDEX[of["lengths"].element] if "lengths" in of else ""
    made = []
    for step in range(operation.first, operation.first + operation.count):
        for phase in operation.phases:
            structure = Structure(
                *(operation.kind_of_cell, phase, gates.element, operation.activations, operation.clip),
                *(tuple(flags), index, multiplies, tile if multiplies else 1, width if multiplies else 1),
            )
            tensors = _places(operation, step, phase)
            arguments: list[Argument] = [t.address() for t in tensors.values()]
            if "lengths" in of:
                arguments.append(ErrorWord())
            last = operation.n_steps - 1
            times = [last - step if backwards else step for backwards in operation.backwards]
            arguments += [times[0], times[-1], operation.n_steps, int(step == last), n_directions, batch, hidden]
            for name in ("gates", "h", "c", "h_after", "c_after", "y"):
                if name in tensors:
                    arguments += _steps(name, tensors[name])
            if multiplies:
                n_items = n_directions * -(-batch // tile) * hidden
                arguments.append(n_items)
                made.append(Launch(_warp_kernel(structure), arguments, n_items * _WARP, _BLOCK))
            else:
                n_items = n_directions * batch * hidden
                arguments.append(n_items)
                made.append(Launch(_thread_kernel(structure), arguments, n_items))
    return made


def _places(operation: CudaCells, step: int, phase: str) -> dict[str, Tensor]:
    """What a launch reads and writes, in the order of its kernel's parameters."""
    of = operation.operands
    found = {"gates": of["gates"]}
    product = "products" if "products" in of else "r"
    found[product] = of[product]
    found |= {name: of[name] for name in ("bias", "peepholes", "lengths") if name in of}
    last = operation.n_steps - 1

    def half(tensor: Tensor, number: int) -> Tensor:
        return tensor.view(tensor.shape[1:], tensor.strides[1:], number * tensor.strides[0])

    found["h"] = of["h0"] if step == 0 else half(of["states"], (step - 1) % 2)
    found["h_after"] = of["h"] if step == last else half(of["states"], step % 2)
    if "c" in of:
        found |= {"c": of["c"] if step else of["c0"], "c_after": of["c"]}
    if "inner" in of:
        found |= {"z": half(of["inner"], 0), "reset": half(of["inner"], 1)}
    if "y" in of:
        found["y"] = of["y"]
    return {name: found[name] for name, _ in _pointers(phase, list(found), "")}


def _pointers(phase: str, names: Sequence[str], element: str) -> list[tuple[str, str]]:
    """Parameters that are memory: names, and how they are declared."""
    written = {"h_after", "c_after", "y"} | ({"z", "reset"} if phase == "gates" else set())
    skipped = {"h_after", "y"} if phase == "gates" else set()
    order = (
        "gates",
        "r",
        "products",
        "bias",
        "peepholes",
        "lengths",
        "h",
        "c",
        "h_after",
        "c_after",
        "z",
        "reset",
        "y",
    )
    return [
        (name, f"{'' if name in written else 'const '}{element}* {name}")
        for name in order
        if name in names and name not in skipped
    ]


def _steps(name: str, tensor: Tensor) -> list[Argument]:
    """Strides: of all axes but those of one direction's elements."""
    strides = [0 if size == 1 else step for size, step in zip(tensor.shape, tensor.strides, strict=True)]
    return [*strides[: len(_AXES.get(name, "dr"))]]


def _parameters(s: Structure) -> list[str]:
    names = ["gates", "r" if s.multiplies else "products", *s.flags, "h", "h_after"]
    if s.kind == "LSTM":
        names += ["c", "c_after"]
    if s.phase != "whole":
        names += ["z", "reset"]
    found = _pointers(s.phase, names, COMPUTED[s.dtype])
    made = [f"const {s.length_type}* lengths" if name == "lengths" else text for name, text in found]
    if "lengths" in s.flags:
        made.append("long long* error")
    made += [f"long long {name}" for name in ("time_0", "time_1", "n_steps", "is_last", "n_directions", "batch")]
    made.append("long long n_hidden")
    given = [name for name, _ in found]
    for name in ("gates", "h", "c", "h_after", "c_after", "y"):
        if name in given:
            made += [f"long long {name}_{axis}" for axis in _AXES.get(name, ("direction", "row"))]
    return made


# -- text


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


def _cell(s: Structure) -> list[str]:
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


def _sums(s: Structure) -> tuple[int, ...]:
    """The gates that the state adds to in this launch."""
    return _GATES.get(s.phase, tuple(range(N_GATES[s.kind])))


@functools.lru_cache(256)
def _thread_kernel(s: Structure) -> Kernel:
    """A library has made the products."""
    kind, n = COMPUTED[s.dtype], len(_sums(s))
    lines = [
        "const long long unit = item % n_hidden, row = item / n_hidden % batch;",
        "const long long direction = item / n_hidden / batch;",
        f"const {kind}* const of_state = products + (direction * batch + row) * {n} * n_hidden + unit;",
        *[f"const {kind} sum_{k} = of_state[{k} * n_hidden];" for k in range(n)],
        *_cell(s),
    ]
    return grid_kernel("cells", _parameters(s), lines, True)


@functools.lru_cache(256)
def _warp_kernel(s: Structure) -> Kernel:
    kind, sums = COMPUTED[s.dtype], _sums(s)
    n, gates = len(sums), N_GATES[s.kind]
    state = "reset + (direction * batch + first) * n_hidden"
    state_row = "n_hidden"
    if s.phase != "hidden":
        state, state_row = "h + direction * h_direction + first * h_row", "h_row"
    pack = f"Pack<{kind}, {s.width}>"
    inner = [
        f"const {pack} w{k} = load_pack<{kind}, {s.width}>(weights + {gate} * n_hidden * n_hidden + k);"
        for k, gate in enumerate(sums)
    ]
    inner += [
        "#pragma unroll",
        f"for (int t = 0; t < {s.tile}; ++t) {{",
        "    if (first + t >= batch) break;",
        f"    const {pack} x = load_pack<{kind}, {s.width}>(state + t * {state_row} + k);",
        "#pragma unroll",
        f"    for (int e = 0; e < {s.width}; ++e) {{",
        *[f"        sums[t][{k}] += w{k}.at[e] * x.at[e];" for k in range(n)],
        "    }",
        "}",
    ]
    cell = [f"const {kind} sum_{k} = sums[t][{k}];" for k in range(n)] + _cell(s)

    def block(lines: Sequence[str], indent: int) -> str:
        return "".join([f"{' ' * indent}{line}\n" for line in lines])

    text = f"""extern "C" __global__ void __launch_bounds__({_BLOCK})
{NAME}({", ".join([*_parameters(s), "long long n_items"])}) {{
    const int lanes = blockDim.x < 32 ? (int)blockDim.x : 32;
    const int lane = (int)threadIdx.x % lanes;
    const long long n_groups = (long long)gridDim.x * (blockDim.x / lanes);
    const long long n_tiles = (batch + {s.tile - 1}) / {s.tile};
    long long item = (long long)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
    for (; item < n_items; item += n_groups) {{
        const long long unit = item % n_hidden, first = item / n_hidden % n_tiles * {s.tile};
        const long long direction = item / n_hidden / n_tiles;
        const {kind}* const weights = r + (direction * {gates} * n_hidden + unit) * n_hidden;
        const {kind}* const state = {state};
        {kind} sums[{s.tile}][{n}] = {{}};
        for (long long k = lane * {s.width}; k < n_hidden; k += lanes * {s.width}) {{
{block(inner, 12)}        }}
        for (int bits = lanes / 2; bits; bits /= 2) {{
#pragma unroll
            for (int t = 0; t < {s.tile}; ++t) {{
#pragma unroll
                for (int g = 0; g < {n}; ++g) sums[t][g] += other_lane<{kind}>(sums[t][g], bits);
            }}
        }}
#pragma unroll
        for (int t = 0; t < {s.tile}; ++t) {{
            const long long row = first + t;
            if (t % lanes != lane || row >= batch) continue;
{block(cell, 12)}        }}
    }}
}}
"""
    return kernel_of("recurrent", with_helpers(text))


__all__ = ["N_GATES", "cell_launches"]
