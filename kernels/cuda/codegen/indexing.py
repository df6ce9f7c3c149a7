"""From an item's number to loops' indices and to elements' places, in CUDA C.

Sizes and strides are parameters of the kernel. A division by a size below 2³¹ is a product with its reciprocal and a
shift; where places need 64 bits, all index arithmetic has them.
"""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.compiler.ir import Place, Tensor
from distort.kernels.cuda.codegen.dtypes import STORED

#: places and numbers of items beyond this need 64 bits: what a grid's stride is added to does not overflow
MOST = 1 << 30


def is_wide(sizes: Sequence[int], strides: Sequence[Sequence[int]], n_items: int) -> bool:
    """Whether 32 bits are too few for these loops."""
    reach = [sum(abs(step) * (size - 1) for step, size in zip(steps, sizes, strict=True)) for steps in strides]
    return max([n_items, *reach]) >= MOST


def divisor(size: int) -> int:
    """What ``quotient_of`` takes: the reciprocal's bits above, the shift below (Granlund and Montgomery)."""
    shift = (size - 1).bit_length()
    magic = ((1 << 32) * ((1 << shift) - size)) // size + 1
    packed = magic << 32 | shift
    return packed - (1 << 64) if packed >> 63 else packed


def index_type(wide: bool) -> str:
    return "long long" if wide else "int"


def size_parameters(n_loops: int, prefix: str = "size") -> list[str]:
    """Of all loops but the outermost: an item's number says enough of that."""
    return [f"long long {name}" for k in range(1, n_loops) for name in (f"{prefix}_{k}", f"{prefix}_{k}_divisor")]


def size_arguments(sizes: Sequence[int]) -> list[int]:
    return [number for size in sizes[1:] for number in (size, divisor(size) if size < MOST else 0)]


def unravel(item: str, n_loops: int, wide: bool, prefix: str = "size", index: str = "i") -> list[str]:
    """Statements that declare the index of each loop: ``i_0`` is the outermost's."""
    kind = index_type(wide)
    if n_loops == 1:
        return [f"const {kind} {index}_0 = {item};"]
    lines = []
    for k in range(n_loops - 1, 0, -1):
        over = f"{index}_over_{k}"
        quotient = f"{item} / {prefix}_{k}" if wide else f"quotient_of({item}, {prefix}_{k}_divisor)"
        lines.append(f"const {kind} {over} = {quotient};")
        lines.append(f"const {kind} {index}_{k} = {item} - {over} * ({kind}){prefix}_{k};")
        item = over
    return [*lines, f"const {kind} {index}_0 = {item};"]


def place(steps: Sequence[tuple[str, str]], wide: bool) -> str:
    """The sum of indices times strides, which are parameters; "" as a stride stands for 1."""
    kind = index_type(wide)
    return " + ".join([f"{index} * ({kind}){stride}" if stride else index for index, stride in steps]) or "0"


def pointer(number: int, dtype: str, written: bool, restrict: bool) -> str:
    """A parameter: the operand's memory."""
    return f"{'' if written else 'const '}{STORED[dtype]}* {'__restrict__ ' if restrict else ''}p{number}"


def overlap(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    """Whether what is written may lie in memory that is read."""
    read = {tensor.buffer for tensor in inputs}
    return any(tensor.buffer in read for tensor in outputs)


def is_aligned(tensor: Tensor, width: int) -> bool:
    """Whether the first of its packs of so many elements is known to be at a multiple of their bytes.

    Memory of the caller's may be anywhere.
    """
    ours = tensor.buffer.place in (Place.ARENA, Place.CONSTANT)
    return ours and (tensor.offset * tensor.dtype.itemsize) % (width * tensor.dtype.itemsize) == 0


__all__ = [
    "divisor",
    "index_type",
    "is_aligned",
    "is_wide",
    "overlap",
    "place",
    "pointer",
    "size_arguments",
    "size_parameters",
    "unravel",
]
