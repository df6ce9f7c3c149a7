"""Lowering for a GPU: its own lowerings first, then the CPU's where all that they make can be printed as CUDA C."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowering_of
from distort.kernels.compiler.constants import Form
from distort.kernels.compiler.ir import Buffer, Host, Map, Operation, Tensor
from distort.kernels.cuda import byte_convolutions, fallback, lower
from distort.kernels.cuda.attention import attend
from distort.kernels.cuda.byte_products import multiply_bytes
from distort.kernels.cuda.codegen import prints
from distort.kernels.cuda.codegen.narrow import NARROW
from distort.kernels.cuda.convolutions import channels_last, is_channels_last
from distort.kernels.cuda.device_libraries import Libraries
from distort.kernels.cuda.library_call import has_library_call
from distort.kernels.cuda.lower import caches, expecting, gathering
from distort.kernels.cuda.operations import CudaExpect, CudaSample, CudaSelected, CudaSuppress
from distort.kernels.cuda.packed_weights import Packed
from distort.kernels.cuda.products import multiply
from distort.kernels.registry import custom_of, find
from distort.kernels.windows import Windows


class CudaBuilder(Builder):
    """As :class:`Builder`; what it adds are operations that :func:`runs` on a GPU."""

    takes_native = False
    dtypes = Builder.dtypes | NARROW
    #: of the device: see :meth:`use`
    libraries: Libraries | None = None

    @functools.cached_property
    def packed_weights(self) -> dict[Buffer, Packed]:
        """Weights that are unpacked in the run: see ``packed_weights``."""
        return {}

    def use(self, libraries: Libraries) -> None:
        """Let a device's libraries make products and attention, and what else there are lowerings for."""
        self.libraries = libraries
        self.multiplies, self.multiplies_bytes, self.attends = multiply, multiply_bytes, attend

    def _lower_compiled(self, form: Form, node: Node, inputs: list[Tensor | None]) -> bool:
        n_operations = len(self.operations)
        done = self._lower_here(form, node, inputs)
        if done and self.libraries is not None and self.libraries.options.prefer_nhwc:
            self._keep_channels_last(node, self.operations[n_operations:])
        return done

    def _keep_channels_last(self, node: Node, added: Sequence[Operation]) -> None:
        """Element-wise work on what lies with channels last makes such."""
        if len(added) != 1 or not isinstance(added[0], Map) or len(added[0].outputs) != 1:
            return
        (made,) = added[0].outputs
        if self._tensors.get(node.outputs[0]) is not made or not made.whole:
            return
        if any(tensor.shape == made.shape and is_channels_last(tensor) for tensor in added[0].inputs):
            turned = made.view(made.shape, channels_last(made.shape))
            added[0].outputs[0] = self._tensors[node.outputs[0]] = turned

    def _lower_here(self, form: Form, node: Node, inputs: list[Tensor | None]) -> bool:
        if custom_of(node.domain, node.op_type):
            return False
        if any(t is not None and t.element in NARROW for t in inputs) and not _moves_codes(node):
            return False
        own = lower.lowering_of(node.domain, node.op_type)
        if own is not None and self._try(own, node, inputs):
            return True
        if lower.HOME.get((node.domain, node.op_type)) in lower.INSTEAD:
            return False
        common = lowering_of(node.domain, node.op_type)
        if common is not None and self._try(common, node, inputs):
            return True
        return self._of_nothing(form, inputs)

    def _of_nothing(self, form: Form, inputs: list[Tensor | None]) -> bool:
        """Enter what a node makes of values without elements and of known ones. False where it has others."""
        if form.has_bodies or any(t is not None and t.size and t.value is None for t in inputs):
            return False
        known = [t if t is None or t.value is not None else self.constant(np.empty(t.shape, t.dtype)) for t in inputs]
        return self._evaluate(form, known)

    def gathered(self, x: Tensor, axis: int, indices: Tensor) -> Tensor:
        return gathering.gathered(self, x, axis, indices)

    def gathered_elements(self, x: Tensor, axis: int, indices: Tensor) -> Tensor:
        return gathering.gathered_elements(self, x, axis, indices)

    def cached(self, past: Tensor | None, new: Tensor, limits: Tensor, keys: int) -> Tensor:
        return caches.cached(self, past, new, limits, keys)

    def places(self, x: Tensor, count: int) -> Tensor:
        return expecting.places(self, x, count)

    def counting(self, parts: list[Tensor], count: int) -> Tensor:
        return expecting.counting(self, parts, count)

    def refuse_others(self, given: Tensor, wanted: Tensor, other: Tensor) -> None:
        self.add(CudaExpect([given, wanted, other], [], "same"))

    def first(self, tensor: Tensor, number: Tensor, name: str) -> Tensor | None:
        """As many as there were, of which a run is told; else the host says how many."""
        shape = self.expected(name)
        if shape is None or shape[1:] != tensor.shape[1:] or shape[0] > tensor.shape[0]:
            return super().first(tensor, number, name)
        self.refuse_others(number, *[self.constant(np.array(shape[:1], np.int64))] * 2)
        return tensor.view(shape, tensor.strides)

    def suppressed(
        self,
        boxes: Tensor,
        scores: Tensor,
        most: Tensor,
        overlap: Tensor,
        least: Tensor | None,
        capacity: int,
        centred: bool,
    ) -> tuple[Tensor, Tensor]:
        (n_images, n_boxes, _), n_classes = boxes.shape, scores.shape[1]
        n_pairs = n_images * n_classes
        kept, counts = self.new(np.int32, (n_pairs, capacity)), self.new(np.int32, (n_pairs,))
        dead = self.new(np.uint8, (n_pairs, n_boxes))
        reads = [boxes, scores, most, overlap, *([] if least is None else [least])]
        self.add(CudaSuppress(reads, [kept, counts, dead], centred))
        selected, number = self.new(np.int64, (n_pairs * capacity, 3)), self.new(np.int64, (1,))
        self.add(CudaSelected([kept, counts], [selected, number], n_classes))
        return selected, number

    def convolved_bytes(
        self, x: Tensor, w: Tensor, zero: Tensor | None, w_zero: Tensor | None, windows: Windows, groups: int
    ) -> Tensor | None:
        return byte_convolutions.convolved_bytes(self, x, w, zero, w_zero, windows, groups)

    def by_channels(self, x: Tensor) -> Tensor:
        x = self.contiguous(self.plain(x))
        return x.view((*x.shape, 1), (*x.strides, 1))

    def room_by_channels(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        made = self.new(np.float32, shape)
        return made, made.view((*shape, 1), (*made.strides, 1))

    def scattered_elements(self, node: Node, inputs: list[Tensor | None]) -> list[Tensor | None] | None:
        scatter = lower.lowering_of("", "ScatterElements")
        assert scatter is not None
        return scatter(self, node, inputs)

    def sampled(
        self, x: Tensor, grid: Tensor, mode: str, padding: str, points: str, result: Tensor, images: Tensor | None
    ) -> None:
        reads = [x, grid, *([] if images is None else [images])]
        self.add(CudaSample(reads, [result], mode, padding, points))

    def _takes(self, added: Sequence[Operation]) -> bool:
        return all(runs(operation) for operation in added)


#: which take elements of narrow types, that other kernels know no arithmetic of
_NAMES_OF_CODES = (
    "Cast CastLike Concat DepthToSpace DequantizeLinear Expand Flatten Gather GatherElements GatherND Identity Loop If "
    "QuantizeLinear Reshape Scan Shape Size Slice SpaceToDepth Split Squeeze TensorScatter Tile Transpose Unsqueeze"
)
_OF_CODES = frozenset(_NAMES_OF_CODES.split())


def _moves_codes(node: Node) -> bool:
    return node.op_type in _OF_CODES if node.domain == "" else node.op_type == "GatherBlockQuantized"


def runs(operation: Operation) -> bool:
    """Whether an operation is one that a GPU does."""
    return isinstance(operation, Host) or prints(operation) or has_library_call(operation)


def why_on_cpu(node: Node, *, anywhere: bool = False) -> str | None:
    """Why a node runs on the CPU whatever its inputs are; None where a GPU may run it.

    ``anywhere``: whatever libraries are installed where it runs.
    """
    entry = find(node.domain, node.op_type, node.opset, "cuda")
    if entry is None:
        return fallback.CPU_ALONE
    reason = fallback.reason_anywhere if anywhere else fallback.reason
    why = reason(node.domain, node.op_type) if entry.device == "any" else None
    if why is None or custom_of(node.domain, node.op_type):
        return why
    compiled = lower.lowering_of(node.domain, node.op_type) or lowering_of(node.domain, node.op_type)
    return None if compiled else why


__all__ = ["CudaBuilder", "runs", "why_on_cpu"]
