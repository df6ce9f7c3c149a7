"""Writing by index: a thread has one update. Which of several comes last is settled before anything is written."""

from __future__ import annotations

import functools

from distort.kernels.compiler.ir import ErrorWord
from distort.kernels.compiler.loops import merged
from distort.kernels.cuda.codegen.dtypes import COMPUTED, STORED, computed, is_real, stored
from distort.kernels.cuda.codegen.expressions import extreme, unsigned
from distort.kernels.cuda.codegen.gathering import INDEX, index_parameters, indexed
from distort.kernels.cuda.codegen.grids import BLOCK, grid_kernel
from distort.kernels.cuda.codegen.indexing import index_type, is_wide, place, size_arguments, size_parameters, unravel
from distort.kernels.cuda.launch import Argument, Kernel, Launch
from distort.kernels.cuda.operations import CudaScatter

#: operands by phase
_OPERANDS = {"claim": ("indices", "winners"), "put": ("y", "indices", "updates", "winners")}
_OPERANDS["reduce"] = _OPERANDS["put"][:3]
#: elements that the GPU adds to by itself, and as what: others are compared and swapped until nobody came between
_ADDED = {"float32": "float", "float64": "double", "int32": "int", "uint32": "unsigned"}
_ADDED |= dict.fromkeys(("int64", "uint64"), "unsigned long long")


def scatter_launches(operation: CudaScatter) -> list[Launch]:
    tensors = operation.inputs
    names = _OPERANDS[operation.phase][: len(tensors)]
    indices = tensors[names.index("indices")]
    n_items = indices.size
    if not n_items:
        return []
    sizes, strides = merged(indices.shape, [t.strides for t in tensors])
    reach = sum(size * abs(step) for size, step in operation.axes)
    wide = is_wide([*sizes, 2], [[*steps, reach] for steps in strides], n_items)
    dtype = operation.outputs[0].element
    kernel = _kernel(
        names,
        dtype,
        INDEX[indices.element],
        len(sizes),
        len(operation.axes),
        operation.phase,
        operation.reduction,
        wide,
    )
    arguments: list[Argument] = [*(t.address() for t in tensors), ErrorWord(), operation.index_step]
    arguments += [number for axis in operation.axes for number in axis]
    arguments += operation.winner_steps if "winners" in names else ()
    arguments += [operation.n_repeated, *size_arguments(sizes)]
    arguments += [step for steps in strides for step in steps]
    return [Launch(kernel, [*arguments, n_items], n_items, BLOCK)]


@functools.lru_cache(256)
def _kernel(
    names: tuple[str, ...], dtype: str, index: str, n_loops: int, n_axes: int, phase: str, reduction: str, wide: bool
) -> Kernel:
    kind = index_type(wide)
    element = STORED[dtype]
    types = {"y": f"{element}*", "updates": f"const {element}* __restrict__", "winners": "int*"}
    types["indices"] = f"const {index}* __restrict__"
    parameters = [f"{types[name]} {name}" for name in names]
    parameters += ["long long* error", *index_parameters(n_axes)]
    has_winners = "winners" in names
    parameters += [f"long long winner_along_{j}" for j in range(n_axes)] if has_winners else []
    parameters += ["long long n_repeated", *size_parameters(n_loops, "loop")]
    parameters += [f"long long step_{name}_{k}" for name in names for k in range(n_loops)]
    lines = unravel("item", n_loops, wide, "loop")
    for name in names:
        steps = [(f"i_{k}", f"step_{name}_{k}") for k in range(n_loops)]
        lines.append(f"{kind} at_{name} = {place(steps, wide)};")
    lines += [*indexed(n_axes, "at_indices", kind), "if (!is_inside) continue;"]
    if has_winners:
        lines += [f"at_winners += ({kind})index_{j} * ({kind})winner_along_{j};" for j in range(n_axes)]
    if phase == "claim":
        lines.append("atomicMax(winners + at_winners, (int)item);")
        return grid_kernel("claim", parameters, lines, wide)
    if has_winners:
        lines.append(f"if (winners[at_winners] != (int)(item / ({kind})n_repeated)) continue;")
    if phase == "put":
        lines.append("y[at_y + offset] = updates[at_updates];")
        return grid_kernel("put", parameters, lines, wide)
    lines.append(f"const {COMPUTED[dtype]} update = {computed('updates[at_updates]', dtype)};")
    if reduction == "add" and dtype in _ADDED:
        number = _ADDED[dtype]
        lines.append(f"atomicAdd(reinterpret_cast<{number}*>(y + (at_y + offset)), ({number})update);")
        return grid_kernel("scatter", parameters, lines, wide)
    changed = stored(_reduced(reduction, dtype, computed("old", dtype)), dtype)
    lines.append(f"change_at(y + (at_y + offset), [&]({element} old) {{ return ({element})({changed}); }});")
    return grid_kernel("scatter", parameters, lines, wide)


def _reduced(reduction: str, dtype: str, old: str) -> str:
    if reduction in ("max", "min"):
        return extreme(reduction == "max", dtype, old, "update")
    sign = "+" if reduction == "add" else "*"
    if is_real(dtype):
        return f"{old} {sign} update"
    wide = unsigned(dtype)
    return f"({COMPUTED[dtype]})(({wide}){old} {sign} ({wide})update)"


__all__ = ["scatter_launches"]
