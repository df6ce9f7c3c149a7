"""Time steps of LSTM, GRU and RNN, each one launch (two for a GRU whose state is reset before its product).

Where the state's products are not made by a library, a warp has a hidden unit and a few rows of the batch: its lanes go
along the rows of R that belong to the unit's gates, and their sums meet in all of them; a lane for each row of the
batch then has the cell. Else a thread has a hidden unit of a row. States before and after a step lie apart, so nobody
waits for others within one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from distort.kernels.compiler.ir import ErrorWord, Tensor
from distort.kernels.cuda.codegen.cells import Structure, cell
from distort.kernels.cuda.codegen.device_functions import with_helpers
from distort.kernels.cuda.codegen.dtypes import COMPUTED, NBYTES
from distort.kernels.cuda.codegen.gathering import INDEX
from distort.kernels.cuda.codegen.grids import grid_kernel
from distort.kernels.cuda.launch import NAME, Argument, Kernel, Launch, kernel_of
from distort.kernels.cuda.operations import CudaCells

_BLOCK, _WARP, _PACK_NBYTES = 128, 32, 16
#: rows of the batch that a warp has at once, at most
_MOST_TILE = 4
N_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
#: axes of memory along which a launch steps, where they aren't a state's
_AXES = {"gates": ("time", "row", "direction"), "y": ("time", "direction", "row")}
#: gates of each phase
_GATES = {"gates": (0, 1), "hidden": (2,)}
#: what kernels read and write, in the order of their parameters
_MEMORY = (
    *("gates", "r", "products", "bias", "peepholes", "scales", "lengths"),
    *("h", "c", "h_after", "c_after", "z", "reset", "y"),
)
#: statements: the state of all the batch in 8 bits, its scale, and how far up its zero point leaves room
_RANGE = (
    "float low = 0, high = 0;",
    "for (long long k = lane; k < batch * n_hidden; k += lanes) {",
    "    const float x = h[direction * h_direction + k / n_hidden * h_row + k % n_hidden];",
    "    low = x < low ? x : low;",
    "    high = x > high ? x : high;",
    "}",
    "for (int bits = lanes / 2; bits; bits /= 2) {",
    "    const float other_low = other_lane<float>(low, bits), other_high = other_lane<float>(high, bits);",
    "    low = other_low < low ? other_low : low;",
    "    high = other_high > high ? other_high : high;",
    "}",
    "const float scale = low == high ? 1.0f : (high - low) / 255.0f;",
    "const float room = 255.0f - rintf(at_most<float>(-low / scale, 255.0f));",
)


def cell_launches(operation: CudaCells) -> list[Launch]:
    of = operation.operands
    gates = of["gates"]
    _, batch, n_directions, _, hidden = gates.shape
    multiplies = "products" not in of
    tile = min(_MOST_TILE, batch)
    width = _PACK_NBYTES // NBYTES[gates.element] if hidden % (_PACK_NBYTES // NBYTES[gates.element]) == 0 else 1
    flags = [*operation.flags, *(name for name in ("bias", "peepholes", "scales", "lengths", "y") if name in of)]
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
    found |= {name: of[name] for name in ("bias", "peepholes", "scales", "lengths") if name in of}
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
    return [
        (name, f"{'' if name in written else 'const '}{element}* {name}")
        for name in _MEMORY
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
        *cell(s),
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
    quantizes = "scales" in s.flags
    before = _RANGE if quantizes else ()
    x = "at_most<float>(rintf(x.at[e] / scale), room)" if quantizes else "x.at[e]"
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
        *[f"        sums[t][{k}] += w{k}.at[e] * {x};" for k in range(n)],
        "    }",
        "}",
    ]
    scaled = [f" * (scales[(direction * {n} + {k}) * n_hidden + unit] * scale)" if quantizes else "" for k in range(n)]
    own = [f"const {kind} sum_{k} = sums[t][{k}]{scaled[k]};" for k in range(n)] + cell(s)

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
{block(before, 8)}        for (long long k = lane * {s.width}; k < n_hidden; k += lanes * {s.width}) {{
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
{block(own, 12)}        }}
    }}
}}
"""
    return kernel_of("recurrent", with_helpers(text))


__all__ = ["N_GATES", "cell_launches"]
