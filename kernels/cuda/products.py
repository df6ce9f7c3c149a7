"""Matrix products as operations for a GPU: cuBLASLt's, with what its epilogue does."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.ir import Map, Operation, Tensor, broadcast_shape, repeating
from distort.kernels.compiler.loops import merged
from distort.kernels.compiler.lower.views import strides_after
from distort.kernels.cuda.blaslt import ProductPlan, alignment_of
from distort.kernels.cuda.device_libraries import LibraryOperation, libraries_of
from distort.kernels.cuda.epilogues import epilogue_of
from distort.kernels.cuda.library_call import LibraryCall, Withdrawn
from distort.kernels.cuda.packed_weights import by_codes
from distort.kernels.cuda.product_problems import RESULTS, Matrix, ProductProblem

#: element types that are multiplied to their own; see also ``multiply_bytes``
DTYPES = ("float32", "float64", "float16", "bfloat16")
#: calls that products of batches in several loops are cut into, at most: else operands are copied
_MOST_CALLS = 16


@dataclass(eq=False)
class CudaProduct(LibraryOperation):
    """output = activation(alpha · a · b + c + bias).

    ``inputs``: a [*loops, rows, depth], b [*loops, depth, columns], then c [*loops, rows, columns] and bias
    [*loops, rows, columns] where they are. The output has these elements in a shape of its own. The longest loop is the
    library's own, others are calls.
    """

    shape: tuple[int, ...]  # *loops, rows, columns
    alpha: float = 1.0
    has_c: bool = False
    has_bias: bool = False
    activation: str = ""
    is_exact: bool = False  # operands are not rounded, whatever ``use_tf32`` is
    kind: ClassVar[str] = "cuda product"

    def absorb(self, after: Map, position: int, target: Target) -> Operation | None:
        del position, target
        if len(after.outputs) != 1:
            return None
        epilogue = epilogue_of(after, self.outputs[0].buffer, self.activation)
        if epilogue is None or epilogue.activation not in ("", "relu", "gelu_tanh"):
            return None
        result = after.outputs[0]
        if self._viewed(result) is None:
            return None
        if epilogue.scale != 1.0 and (self.has_c or self.has_bias or result.dtype.kind == "i"):
            return None
        if result.dtype != self.outputs[0].dtype and (self.has_c or self.has_bias):
            return None  # these are of the result's type
        changed = replace(self, outputs=[result], alpha=self.alpha * epilogue.scale, activation=epilogue.activation)
        for tensor in epilogue.added:
            if not changed._add(tensor):
                return None
        problem = changed.problem()
        products = self.libraries.products
        return changed if problem is not None and products is not None and products.plan(problem) is not None else None

    def _viewed(self, tensor: Tensor) -> Tensor | None:
        """In the shape of the result; None where no strides go that way."""
        strides = None if tensor.block else strides_after(tensor, self.shape)
        return None if strides is None else tensor.view(self.shape, strides)

    def _add(self, tensor: Tensor) -> bool:
        """Another operand: the bias, if it is one number a column, else c. False where it is neither."""
        view = self._viewed(tensor)
        if view is None or view.dtype != self.outputs[0].dtype:
            return False
        steps = [0 if n == 1 else step for n, step in zip(view.shape, view.strides, strict=True)]
        if not self.has_bias and not any(steps[:-1]) and (steps[-1] == 1 or view.shape[-1] == 1):
            self.inputs, self.has_bias = [*self.inputs, view], True
            return True
        if self.has_c or matrix_of(view) is None:
            return False
        self.inputs, self.has_c = [*self.inputs[:2], view, *self.inputs[2:]], True
        return True

    @property
    def _batch_axis(self) -> int | None:
        loops = self.shape[:-2]
        return loops.index(max(loops)) if loops else None

    def problem(self) -> ProductProblem | None:
        """Of one call; None where an operand doesn't lie as the library reads it."""
        a, b, *others = self.inputs
        out = self._viewed(self.outputs[0])
        if out is None:
            return None
        rows, columns = self.shape[-2:]
        axis = self._batch_axis
        of_a, of_b, of_out = matrix_of(a, axis), matrix_of(b, axis), matrix_of(out, axis)
        of_c = matrix_of(others[0], axis) if self.has_c else None
        if (
            out.element not in RESULTS.get(a.element, ())
            or of_a is None
            or of_b is None
            or of_out is None
            or of_out.transposed
            or (self.has_c and of_c is None)
        ):
            return None
        if of_c is not None and of_c.transposed:
            return None
        return ProductProblem(
            a.element,
            rows,
            columns,
            a.shape[-1],
            of_a,
            of_b,
            of_out,
            1 if axis is None else self.shape[axis],
            out.element,
            self.alpha,
            1.0 if self.has_c else 0.0,
            of_c,
            self.has_bias,
            self.activation,
            self.libraries.options.use_tf32 and a.element == "float32" and not self.is_exact,
        )

    def library_call(self, context: object = None) -> LibraryCall:
        del context
        problem, products = self.problem(), self.libraries.products
        plan = None if problem is None or products is None else products.plan(problem)
        if problem is None or products is None or plan is None:
            raise Withdrawn(str(problem))  # it was there when the operation was made
        self.libraries.tune(plan)
        out = self._viewed(self.outputs[0])
        assert out is not None
        tensors = [*self.inputs, out]
        loops = [1 if axis == self._batch_axis else n for axis, n in enumerate(self.shape[:-2])]
        shifts = [
            [sum(n * step for n, step in zip(index, t.strides, strict=False)) * t.dtype.itemsize for t in tensors]
            for index in itertools.product(*map(range, loops))
        ]
        # memory begins at multiples of what algorithms care for; where operands begin in it is known
        begins = [t.offset * t.dtype.itemsize for t in tensors]
        for alignment in {alignment_of(*map(operator.add, begins, shift)) for shift in shifts}:
            if not plan.can_run(alignment):
                why = f"cuBLASLt has no algorithm for operands that are aligned to {alignment} bytes: {problem}"
                products.withdraw(problem, why)
                raise Withdrawn(why)
        return _Call(plan, shifts, self.has_c, self.has_bias)


@dataclass(slots=True)
class _Call:
    """``shifts``: for each product, or batch of them, how many bytes each operand begins later."""

    plan: ProductPlan
    shifts: list[list[int]]
    has_c: bool
    has_bias: bool

    @property
    def workspace_nbytes(self) -> int:
        return self.plan.workspace_nbytes

    def run(self, addresses: Sequence[int], workspace: int, stream: int) -> None:
        for shift in self.shifts:
            a, b, *others, out = (address + more for address, more in zip(addresses, shift, strict=True))
            c = others.pop(0) if self.has_c else 0
            bias = others.pop(0) if self.has_bias else 0
            self.plan.run(a, b, out, bias, stream, c, workspace)


def matrix_of(tensor: Tensor, axis: int | None = None) -> Matrix | None:
    """How matrices [..., rows, columns] lie, in a batch along ``axis``; None where the library reads no such."""
    (rows, columns), (by_row, by_column) = tensor.shape[-2:], tensor.strides[-2:]
    stride = 0 if axis is None or tensor.shape[axis] == 1 else tensor.strides[axis]
    if stride < 0:
        return None
    if columns == 1 or by_column == 1:
        leading = by_row if rows > 1 else max(columns, by_row)
        return Matrix(leading, False, stride) if leading >= columns else None
    if rows == 1 or by_row == 1:
        return Matrix(by_column, True, stride) if by_column >= rows else None
    return None


def multiply(
    b: Builder, left: Tensor, right: Tensor, result: str = "", to: Tensor | None = None, *, exact: bool = False
) -> Tensor | None:
    """left [..., rows, depth] · right [..., depth, columns], batches broadcast. None where the library has no such.

    ``result``: dtype of what is made, if it isn't the operands'. ``to``: where it is made, if not in memory of its own.
    ``exact``: operands aren't rounded, whatever ``use_tf32`` is: it is no product to the user.
    """
    libraries, dtype = libraries_of(b), left.element
    if libraries is None:
        return None
    few = by_codes(b, left, right) if not result and to is None else None
    if few is not None:
        return few
    result = result or ("int32" if dtype == "int8" else dtype)
    if left.dtype != right.dtype or left.shape[-1] != right.shape[-2] or result not in RESULTS.get(dtype, ()):
        return None
    try:
        batch = broadcast_shape(left.shape[:-2], right.shape[:-2])
    except ValueError:
        return None
    rows, depth, columns = left.shape[-2], left.shape[-1], right.shape[-1]
    shape = (*batch, rows, columns)
    if not math.prod(shape) * depth:
        return b.constant(np.zeros(shape, np.dtype(result))) if to is None else None
    left, right = _readable(b, b.plain(left)), _readable(b, b.plain(right))
    made = b.new(left.dtype if result == dtype else np.dtype(result), shape) if to is None else to
    assert made.shape == shape and made.element == result
    operands = _in_loops(b, left, right, made)
    operation = CudaProduct(list(operands[:2]), [made], libraries, operands[2].shape, is_exact=exact)
    problem, products = operation.problem(), libraries.products
    if problem is None or products is None or products.plan(problem) is None:
        return None
    b.add(operation)
    return made


def _readable(b: Builder, tensor: Tensor) -> Tensor:
    """The matrices as the library reads them: where they are, or copied."""
    return tensor if matrix_of(tensor) is not None and min(tensor.strides) >= 0 else b.contiguous(tensor)


def _in_loops(b: Builder, left: Tensor, right: Tensor, made: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views [*loops, ...] of both operands and of the result."""
    batch, (rows, columns), depth = made.shape[:-2], made.shape[-2:], left.shape[-1]
    if math.prod(right.shape[:-2]) == 1 and math.prod(batch) > 1 and left.shape[:-2] == batch:
        # one matrix on the right: all rows of all products are those of one
        folded, whole = _folded(left), _folded(made)
        if folded is not None and whole is not None:
            return folded, right.view(right.shape[-2:], right.strides[-2:]), whole
    rank = len(made.shape)

    def looped() -> tuple[list[int], list[Tensor]]:
        steps = [repeating(t.shape, t.strides, rank)[:-2] for t in (left, right, made)]
        loops, strides = merged(batch, steps)
        pairs = zip((left, right, made), strides, strict=True)
        return loops, [t.view((*loops, *t.shape[-2:]), (*own, *t.strides[-2:])) for t, own in pairs]

    loops, views = looped()
    if math.prod(loops) > _MOST_CALLS * max(loops):
        # too many calls: what is repeated is written out, so that fewer loops do
        left = b.contiguous(left.broadcast((*batch, rows, depth)))
        right = b.contiguous(right.broadcast((*batch, depth, columns)))
        loops, views = looped()
    return views[0], views[1], views[2]


def _folded(tensor: Tensor) -> Tensor | None:
    """All rows of all matrices as those of one; None where they don't lie so."""
    shape = (math.prod(tensor.shape[:-1]), tensor.shape[-1])
    strides = strides_after(tensor, shape)
    view = None if strides is None else tensor.view(shape, strides)
    return view if view is not None and matrix_of(view) is not None else None


__all__ = ["DTYPES", "CudaProduct", "matrix_of", "multiply"]
