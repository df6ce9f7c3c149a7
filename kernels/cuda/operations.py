"""Operations that only a GPU has kernels of its own for, beside those of ``compiler.ir`` and ``compiler.rows``.

They say what is done, in shapes and strides; ``codegen`` prints how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distort.kernels.compiler.codegen.gates import Activation
from distort.kernels.compiler.ir import Operation, Tensor
from distort.kernels.windows import Windows


@dataclass(eq=False)
class CudaPool(Operation):
    """Windows over planes of x [N, C, …]. Outputs: the results, and of ``max`` the places, if wanted.

    Both are contiguous; or, without places, channels are their last dimension in memory. Places count elements of all
    of x; ``by_columns``: the first axis of a plane fastest.
    """

    windows: Windows
    mode: str  # max, sum, mean (of what is inside), or mean_padded (padding counts)
    by_columns: bool = False
    kind: ClassVar[str] = "cuda_pool"


@dataclass(eq=False)
class CudaPatches(Operation):
    """What windows see of int8 images, as rows of a product: [N, *out, *kernel, C'], zeros beyond ``channels``.

    Inputs: x [N, *size, C'], lines of whole words, contiguous, and what lies around it (int8, one number), if not 0.
    """

    windows: Windows
    channels: int
    kind: ClassVar[str] = "cuda_patches"


@dataclass(eq=False)
class CudaByteConv(Operation):
    """Exact sums, int32 [N, F, *out], of 8-bit images x [N, C, *size] and weights [F, C / groups, *kernel]; contiguous.

    Further inputs: zero points of x (one number) and of w (one, or one a filter), of their dtypes, where there are.
    """

    windows: Windows
    groups: int
    has_zero: bool
    has_w_zero: bool
    kind: ClassVar[str] = "cuda_byte_conv"


@dataclass(eq=False)
class CudaGather(Operation):
    """y = x at places that indices say. Inputs: x and indices, as views of the result's shape (stride 0 where repeated,
    and where x is indexed).

    ``axes``: size and stride in x of each axis that is indexed; index j of an element lies ``index_step · j`` further.
    """

    axes: tuple[tuple[int, int], ...]
    index_step: int = 0
    kind: ClassVar[str] = "cuda_gather"


@dataclass(eq=False)
class CudaScatter(Operation):
    """Writing by index, in place: ``phase`` says what is done.

    ``claim``: of indices and winners (int32, -1 before), winners become the number of each place's last update.
    ``put``: of the result, indices, updates and winners (or none, where no place comes twice), the result is changed
    where an update has won. ``reduce``: likewise, with all updates, by ``reduction``.

    Operands are views of one shape, with the stride 0 where repeated, and where the result or winners are indexed.
    ``axes``: size and stride in the result of each axis that is indexed, ``winner_steps``: strides in winners;
    ``n_repeated`` elements of the shape belong to one index.
    """

    axes: tuple[tuple[int, int], ...]
    index_step: int
    winner_steps: tuple[int, ...]
    phase: str
    reduction: str = "none"
    n_repeated: int = 1
    kind: ClassVar[str] = "cuda_scatter"


@dataclass(eq=False)
class CudaTopK(Operation):
    """The first k of each row of x [rows, n], and where they are (int64): both [rows, k]; lower places first.

    Inputs may have any strides.
    """

    largest: bool
    kind: ClassVar[str] = "cuda_top_k"


@dataclass(eq=False)
class CudaScan(Operation):
    """Running sums or products along the middle axis of x [outer, n, inner], contiguous."""

    product: bool
    exclusive: bool
    reverse: bool
    kind: ClassVar[str] = "cuda_scan"


@dataclass(eq=False)
class CudaNBits(Operation):
    """y [rows, N] = a [rows, K] · weights of 4 or 8 bits, a row of which is one of y's columns; for few rows.

    Inputs: a, codes [N, blocks, bytes], scales [N, blocks], zero points where there are (of as many bits as weights,
    packed by rows [N, bytes], or as scales are), and a bias [N] if ``has_bias``. All contiguous.
    """

    bits: int
    block_size: int
    has_zeros: bool
    has_bias: bool
    kind: ClassVar[str] = "cuda_n_bits"


@dataclass(eq=False)
class CudaSample(Operation):
    """x [N, C, …] between its pixels, at grid [N, …, rank], to [N, C, …]; all contiguous. See GridSample.

    ``points``: as of the CPU's ``codegen.sampling``; where places are in pixels, the grid is [N, rank, …]. A third
    input says of which image each grid is, int32, where that isn't the next one.
    """

    mode: str  # nearest, linear or cubic
    padding: str  # zeros, border or reflection
    points: str
    kind: ClassVar[str] = "cuda_sample"


@dataclass(eq=False)
class CudaUnpack(Operation):
    """Weights [N, K], contiguous, of 4 or 8 bits made numbers of. Inputs: as of :class:`CudaNBits`, from codes on."""

    bits: int
    block_size: int
    has_zeros: bool
    kind: ClassVar[str] = "cuda_unpack"


@dataclass(eq=False)
class CudaResize(Operation):
    """Elements of x, or weighted sums of some, at places along ``axes`` that tables hold; the result is contiguous.

    Inputs: x, then for each axis the places [taps, n] (int32, in elements of x), and if ``weighs`` their weights
    [taps, n], float32 (float64 where x is).
    """

    axes: tuple[int, ...]
    weighs: bool
    kind: ClassVar[str] = "cuda_resize"


@dataclass(eq=False)
class CudaExpect(Operation):
    """``same``: given numbers are what the second or the third input has in their place (all int64, contiguous).
    ``counting``: start, limit, delta make as many numbers as the result has. Else the run is refused.
    """

    what: str
    kind: ClassVar[str] = "cuda_expect"


@dataclass(eq=False)
class CudaPlaces(Operation):
    """Where contiguous x isn't 0, int64 [rank, count], and how often each ``chunk`` of its elements isn't, int32.

    A run in which there aren't as many is refused.
    """

    chunk: int
    kind: ClassVar[str] = "cuda_places"


@dataclass(eq=False)
class CudaSuppress(Operation):
    """Boxes [B, N, 4] by falling scores [B, C, N], without those that a better one overlaps too much.

    Then inputs are: the most of a class (int64), the overlap, and the least score if there is one. Outputs: places
    [B · C, capacity] and how many of them are [B · C], int32; bytes [B · C, N] to work with.
    """

    centred: bool
    kind: ClassVar[str] = "cuda_suppress"


@dataclass(eq=False)
class CudaSelected(Operation):
    """Image, class and place of each box that was kept, one after another [B · C · capacity, 3], and their number [1].

    Inputs: places and numbers, as of :class:`CudaSuppress`.
    """

    n_classes: int
    kind: ClassVar[str] = "cuda_selected"


@dataclass(eq=False)
class CudaCells(Operation):
    """Steps of an LSTM, GRU or RNN: ``count`` of them from ``first`` on, of ``n_steps``.

    ``names_of_operands``: what inputs, then outputs are. Inputs: "gates", what they take from the inputs
    [T, B, D, gates, H]; "r" [D, gates · H, H]; "h0" and "c0" [D, B, H]; and where there are, the state's own "bias"
    [D, H] of a GRU, "peepholes" [D, 3, H], "lengths" [B], and "products" of the state with "r" [D, B, gates · H],
    which else the kernel makes; of an LSTM whose state is in 8 bits at each step, "scales" of its products [D, 4 · H],
    "r" being whole numbers. Outputs: "h", "c" and "states" [2, D, B, H] between steps; "inner" [2, D, B, H] (of a
    GRU of two phases); and "y" [T, D, B, H], if wanted. Elements along H lie next to each other.

    A GRU that resets its state before the product has two ``phases``, "gates" and "hidden"; else there is "whole".
    """

    names_of_operands: tuple[str, ...]
    kind_of_cell: str
    phases: tuple[str, ...]
    backwards: tuple[bool, ...]
    #: of each direction
    activations: tuple[tuple[Activation, ...], ...]
    n_steps: int
    first: int
    count: int
    clip: float = 0.0
    flags: tuple[str, ...] = ()
    kind: ClassVar[str] = "cuda_cells"

    @property
    def operands(self) -> dict[str, Tensor]:
        return dict(zip(self.names_of_operands, (*self.inputs, *self.outputs), strict=True))


__all__ = [
    "Activation",
    "CudaByteConv",
    "CudaCells",
    "CudaExpect",
    "CudaGather",
    "CudaNBits",
    "CudaPatches",
    "CudaPlaces",
    "CudaPool",
    "CudaResize",
    "CudaSample",
    "CudaScan",
    "CudaScatter",
    "CudaSelected",
    "CudaSuppress",
    "CudaTopK",
    "CudaUnpack",
]
