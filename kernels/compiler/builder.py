"""Lowering: nodes become tensor operations, one after another, with the shapes of this run.

A lowering is registered for operators; it gets the node's inputs and returns its outputs, or None where it can't: then
the node's NumPy kernel runs. What is known before the run (weights, shapes, what is computed from them) is a tensor
with a value, and work on it is done at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from distort.graph.ir import Graph, Node, SparseInitializer
from distort.kernels.compiler import half, lower
from distort.kernels.compiler.chains import Chain, Chaining
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.constants import NAMED_NBYTES, Constants, Form, constant
from distort.kernels.compiler.expression import STORED, Expression, Instruction, name_of
from distort.kernels.compiler.ir import Array, Buffer, Host, Map, Operation, Place, Tensor, broadcast_shape, strides_of
from distort.kernels.compiler.layout import arranged, of_work, unblocked
from distort.kernels.compiler.qdq import product_of_bytes, products_of_bytes
from distort.kernels.compiler.texts import made_of_text
from distort.kernels.registry import custom_of
from distort.kernels.windows import Windows

#: (builder, node, inputs) -> outputs, or None
Lowering = Callable[["Builder", Node, "list[Tensor | None]"], "list[Tensor | None] | None"]
#: those whose modules are imported
LOWERINGS: dict[tuple[str, str], Lowering] = {}
#: what is computed at once from known values, at most, in bytes of these and of the result
_KNOWN_NBYTES = NAMED_NBYTES


#: lowerings that take tensors whose channels are in blocks; others get plain ones
TAKE_BLOCKS: set[Lowering] = set()
#: lowerings that get float16 and bfloat16 as float32, and whose results are cast back
TAKE_WIDE: set[Lowering] = set()


def lowers(
    *op_types: str, domain: str = "", blocks: bool = False, wide: bool = False
) -> Callable[[Lowering], Lowering]:
    """Register a lowering, in a module that ``lower.OPERATORS`` names for its operators.

    ``blocks``: it takes tensors whose channels are in blocks, see ``layout``. One that only calls :meth:`Builder.map`
    with its inputs does. ``wide``: it takes float32 where a node has half precision, see ``half``; all its floating
    point results are then of the first input's dtype.
    """

    def register(function: Lowering) -> Lowering:
        for op_type in op_types:
            if (domain, op_type) in LOWERINGS:
                raise ValueError(f"two lowerings of {domain or 'ai.onnx'}:{op_type}")
            LOWERINGS[domain, op_type] = function
        if blocks:
            TAKE_BLOCKS.add(function)
        if wide:
            TAKE_WIDE.add(function)
        return function

    return register


def lowering_of(domain: str, op_type: str) -> Lowering | None:
    """An operator's lowering, whose module is imported now at the latest; None where it has none."""
    name = domain, op_type
    found = LOWERINGS.get(name)
    if found is None and name in lower.HOME:
        import_module(f"{lower.__name__}.{lower.HOME[name]}")
        found = LOWERINGS[name]
    return found


#: kinds of dtypes whose known numbers become instructions
_NUMBERS = frozenset("fiub")
_NO_NODE = Node("", "", [], [])


class Builder:
    """What lowerings work with. ``learned``: what runs have shown of values whose shapes nobody could tell."""

    #: whether kernels of LLVM IR may be added where an operation of another kind would do as well
    takes_native: ClassVar[bool] = True
    #: names of the dtypes that there are kernels for
    dtypes: ClassVar[frozenset[str]] = frozenset(STORED)

    def __init__(
        self,
        graph: Graph,
        target: Target,
        n_threads: int,
        constants: Constants,
        learned: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]],
        precision: str = "float32",
        cautious: bool = False,
        steady: bool = True,
        varied: bool = False,
        chains: dict[int, Chain] | None = None,
        keep_qdq: bool = False,
    ) -> None:
        #: who makes products and attention for another device, see ``products.multiply`` and ``scores.attend``
        self.multiplies: Callable[..., Tensor | None] | None = None
        self.multiplies_bytes: Callable[..., Tensor | None] | None = None
        self.attends: Callable[..., Tensor | None] | None = None
        #: conditions that runs had, by the first result of the If
        self.branches: Mapping[str, bool] = {}
        #: whether runs have many shapes: what they have in common is worth more than the best for each
        self.varied = varied
        #: whether shapes that depend on numbers of a run may be taken for those of earlier runs, and some were
        self._steady, self.expects = steady, False
        #: whether nothing may be taken for likely; whether something was, and a run that finds otherwise is refused
        self.cautious, self.guessed = cautious, False
        self.graph = graph
        #: ``bf16``: products with weights may round their operands to bfloat16
        self.precision = precision
        self.target = target
        self.n_threads = n_threads
        self.operations: list[Operation] = []
        self._learned = learned
        self._texts: dict[str, tuple[int, ...]] = {}  # shapes of feeds that are text
        self._tensors = dict(constants.initial)  # None: not a tensor, or of unknown shape
        self._constants = constants
        self._name, self._origin = "", _NO_NODE
        #: by ``id``: a tensor, and the same in the other layout
        self.layouts: dict[int, tuple[Tensor, Tensor]] = {}
        #: graphs whose nodes are lowered, the innermost last
        self._scopes = [graph]
        self._region = self._n_regions = 0
        #: outputs of branches that are no tensors: the name outside -> the name that the value has in the run
        self.aliases: dict[str, str] = {}
        #: what is done on bytes, and what need not be dequantized for it
        nothing: tuple[Any, Any] = ({}, ())
        self._of_bytes, waiting = constants.once("of bytes", lambda: nothing if keep_qdq else products_of_bytes(graph))
        self._waiting = set(waiting)
        self._chaining = Chaining(chains) if chains else None

    # -- tensors

    def new(self, dtype: Any, shape: Sequence[int]) -> Tensor:
        """Room for a value that an operation makes."""
        dtype, shape = np.dtype(dtype), tuple(shape)
        return Tensor(dtype, shape, strides_of(shape), Buffer(math.prod(shape) * dtype.itemsize))

    def constant(self, array: Array) -> Tensor:
        """A value that is known."""
        return constant(array)

    def number(self, what: str, value: int, dtype: Any = np.int64) -> Tensor:
        """A known number that follows from shapes. ``what`` tells it from others of the same node."""
        made = constant(np.array(value, dtype))
        made.varies = self._constants.varies((self.origin_id, what), value)
        return made

    def packed(self, key: Any, make: Callable[[], Array]) -> Tensor:
        """A constant that is made once for all shapes of runs: ``key`` names what it is made of and how.

        What it is made of is named by :meth:`identity`.
        """
        return self._constants.packed(key, make)

    def identity(self, array: Array) -> tuple[Any, ...]:
        """What names a known array among keys of :meth:`packed`: the same for the same elements, in all shapes of runs.

        Small ones are named by what they hold. Others by their address: they are kept, so that nothing else comes to
        lie there.
        """
        return self._constants.name(array)

    def source(self, tensor: Tensor) -> tuple[Any, ...]:
        """What names a known tensor among keys of :meth:`packed`."""
        assert tensor.value is not None
        return self.identity(tensor.value)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Anything else that is made once for all shapes of runs."""
        return self._constants.once(key, make)

    def packings(self, way: str, weights: Array) -> set[int]:
        """Blocks of the tiles that weights were packed for, in plans for all shapes. See :meth:`settled`."""
        made: set[int] = self._constants.once(("packings", way, self.identity(weights)), set)
        return made

    def settled(self, way: str, weights: Any) -> set[int] | None:
        """The same, where others should not be added without need; None where the best for this shape is wanted."""
        if not self.varied:
            return None
        return self.packings(way, weights) if isinstance(weights, np.ndarray) else set()

    @property
    def origin_id(self) -> int:
        """What names the node that is being lowered, for as long as the model lives."""
        return id(self._origin)

    def feed(self, name: str, dtype: np.dtype[Any], shape: Sequence[int], number: int) -> None:
        nbytes = math.prod(shape) * dtype.itemsize
        self._tensors[name] = Tensor(dtype, tuple(shape), strides_of(shape), Buffer(nbytes, Place.FEED, number=number))

    def unknown(self, name: str, text_shape: tuple[int, ...] | None = None) -> None:
        """A feed that is no tensor for kernels. ``text_shape``: of one of text."""
        self._tensors[name] = None
        if text_shape is not None:
            self._texts[name] = text_shape

    def find(self, name: str) -> Tensor | None:
        """The tensor of a name; None where it isn't one, or its shape isn't known."""
        if name not in self._tensors:
            value = next((s.initializers[name] for s in reversed(self._scopes) if name in s.initializers), None)
            if isinstance(value, SparseInitializer):
                value = self.once(("dense", id(value)), value.dense)
            compiles = isinstance(value, np.ndarray) and name_of(value.dtype) in self.dtypes
            found = self._tensors[name] = self._constants.tensor(value) if compiles and value is not None else None
            if value is not None and len(self._scopes) == 1:
                self._constants.initial[name] = found
        return self._tensors[name]

    def seen(self, name: str) -> tuple[int, ...] | None:
        """The shape that a value had in an earlier run of these feeds; None where nobody knows."""
        known = self._learned.get(name)
        return None if known is None else known[1]

    def expected(self, name: str) -> tuple[int, ...] | None:
        """As :meth:`seen`, for a kernel that refuses the run where it has to make another shape."""
        shape = self.seen(name) if self._steady and len(self._scopes) == 1 and self._region == 0 else None
        self.expects |= shape is not None
        return shape

    def likely(self, name: str) -> bool | None:
        """The condition of the If that makes ``name``, as it was in an earlier run; None where none is expected.

        A run in which it is another has to be refused.
        """
        found = self.branches.get(name) if self._steady and len(self._scopes) == 1 and self._region == 0 else None
        self.expects |= found is not None
        return found

    # -- operations

    def add(self, operation: Operation) -> None:
        operation.names = operation.names or [self._name]
        operation.region = self._region
        self.operations.append(operation)

    def map(
        self,
        op: str,
        inputs: Sequence[Tensor],
        dtype: Any = None,
        attributes: tuple[Any, ...] = (),
        *,
        body: Sequence[Instruction] | None = None,
    ) -> Tensor:
        """Element-wise work with broadcast; scalars that are known become constants of the expression.

        ``body`` instead of ``op``: instructions whose operands are the inputs first; the last is the result.
        """
        dtype = inputs[0].dtype if dtype is None else np.dtype(dtype)
        if body:
            instructions = tuple(body)
        else:
            instructions = (Instruction(op, tuple(range(len(inputs))), name_of(dtype), attributes),)
        numbers = _numbers_of(inputs)
        blocked_shape = None
        if any([t.block for t in inputs]):
            inputs, blocked_shape = arranged(self, inputs, instructions, [place for place, _ in numbers])
        shape = broadcast_shape(*[t.shape for t in inputs])
        expression = _expression_of(tuple([name_of(t.dtype) for t in inputs]), instructions)
        if numbers:
            expression = _with_numbers(expression, numbers)
            inputs = _without(inputs, numbers)
        result = self.new(dtype, shape)
        named = result if blocked_shape is None else of_work(result, blocked_shape)
        self.add(Map([t.broadcast(shape) for t in inputs], [result], expression, names=[self._name]))
        return named

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy elements into a view of the same shape."""
        self.add(Map([source], [target], Expression((source.element,), (), (0,))))

    def gathered(self, x: Tensor, axis: int, indices: Tensor) -> Tensor:
        """x [outer…, n, inner…] at indices: [outer…, number of indices, inner…], contiguous. No size is 0."""
        from distort.kernels.compiler.lower import gathering

        return gathering.gathered(self, x, axis, indices)

    def gathered_elements(self, x: Tensor, axis: int, indices: Tensor) -> Tensor:
        """Along one axis, which has elements; indices are no longer along the others than x."""
        from distort.kernels.compiler.lower import gathering

        return gathering.gathered_elements(self, x, axis, indices)

    def places(self, x: Tensor, count: int) -> Tensor:
        """Where contiguous x isn't 0: int64 [rank, count]. A run in which there are more or fewer is refused."""
        from distort.kernels.compiler.lower import expecting

        return expecting.places_kernel(self, x, count)

    def counting(self, parts: list[Tensor], count: int) -> Tensor:
        """Range of start, limit and delta, integers. A run in which it has another length is refused."""
        from distort.kernels.compiler.lower import expecting

        return expecting.counting_kernel(self, parts, count)

    def refuse_others(self, given: Tensor, wanted: Tensor, other: Tensor) -> None:
        """Refuse a run in which one of ``given`` is neither what it has in ``wanted`` nor in ``other``: int64 all."""
        from distort.kernels.compiler.lower import expecting

        expecting.refuse_kernel(self, given, wanted, other)

    def cached(self, past: Tensor | None, new: Tensor, limits: Tensor, keys: int) -> Tensor:
        """A cache [B, G, keys, D]: the past, zeros behind it, and in place of an entry's last tokens the new ones.

        ``new``: [B, G, S, D]. ``limits``: int64 [B], how many tokens entries have then; of fewer than S, only the first
        of the new ones count.
        """
        from distort.kernels.compiler.lower import grouped_query

        return grouped_query.cached_kernel(self, past, new, limits, keys)

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
        """Of boxes [B, N, 4] and scores [B, C, N] those that NonMaxSuppression leaves, up to ``capacity`` of a class:
        [B · C · capacity, 3], of which the first rows count, and how many these are, [1]; int64."""
        from distort.kernels.compiler.lower import suppression

        return suppression.suppressed_kernel(self, boxes, scores, most, overlap, least, capacity, centred)

    def sampled(
        self, x: Tensor, grid: Tensor, mode: str, padding: str, points: str, result: Tensor, images: Tensor | None
    ) -> None:
        """Images between their pixels: see ``lower.sampling.sample``."""
        from distort.kernels.compiler.lower import sampling

        sampling.sampled_kernel(self, x, grid, mode, padding, points, result, images)

    def by_channels(self, x: Tensor) -> Tensor:
        """float32 x [N, C, H, W] as kernels that go by channels read it: [N, C / block, H, W, block]."""
        from distort.kernels.compiler import layout

        return layout.memory(layout.blocked(self, x))

    def room_by_channels(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Room for a float32 value [N, C, …] that such kernels make, and how they see it."""
        from distort.kernels.compiler import layout

        made = layout.in_blocks(self, shape)
        return made, layout.memory(made)

    def scattered_elements(self, node: Node, inputs: list[Tensor | None]) -> list[Tensor | None] | None:
        """As ScatterElements lowered."""
        from distort.kernels.compiler.lower import scattering

        return scattering.scatter_elements(self, node, inputs)

    def convolved_bytes(
        self, x: Tensor, w: Tensor, zero: Tensor | None, w_zero: Tensor | None, windows: Windows, groups: int
    ) -> Tensor | None:
        """int32 [N, F, *out] of x [N, C, *size] and w [F, C / groups, *kernel], both of bytes, less their zero points:
        one number, that of ``w`` perhaps one a filter. None where there is no such kernel."""
        from distort.kernels.compiler import quantized_conv

        return quantized_conv.convolved_bytes(self, x, w, zero, w_zero, windows, groups)

    def contiguous(self, tensor: Tensor) -> Tensor:
        """The tensor, or a copy of it where its elements don't lie next to each other."""
        if tensor.value is not None and not tensor.contiguous:
            return self.constant(tensor.value)
        if tensor.contiguous:
            return tensor
        made = self.new(tensor.dtype, tensor.shape)
        self.copy(tensor, made)
        return made

    def plain(self, tensor: Tensor) -> Tensor:
        """The tensor with its channels not in blocks."""
        if not tensor.block:
            return tensor
        return unblocked(self, tensor)

    # -- nodes

    @contextmanager
    def region(self) -> Iterator[None]:
        """What is added within is done more often or less often than what is around it."""
        before, layouts = self._region, dict(self.layouts)
        self._n_regions += 1
        self._region = self._n_regions
        try:
            yield
        finally:
            self._region, self.layouts = before, layouts

    def inline(self, graph: Graph, given: Mapping[str, Tensor]) -> list[Tensor | str] | None:
        """The nodes of a subgraph, added here. Returns its outputs: tensors, or names of what is none.

        None where it holds values that only plain kernels know.
        """
        for value in graph.initializers.values():
            if not isinstance(value, np.ndarray) or name_of(value.dtype) not in self.dtypes:
                return None
        around, name, origin = self._tensors, self._name, self._origin
        self._tensors = {n: t for n, t in around.items() if n not in graph.initializers} | dict(given)
        self._scopes.append(graph)
        try:
            for node in graph.nodes:
                self.lower(node)
            found = [(self.find(output), self.aliases.get(output, output)) for output in graph.outputs]
            return [tensor if tensor is not None else output for tensor, output in found]
        finally:
            self._scopes.pop()
            self._tensors, self._name, self._origin = around, name, origin

    def define(self, node: Node, tensor: Tensor) -> None:
        """What the node makes; what is added next is in its name."""
        self._name, self._origin = self._constants.form(node).label, node
        self._tensors[node.outputs[0]] = tensor

    def lower(self, node: Node) -> None:
        """Add what a node does."""
        if self._chaining is None or not self._chaining.lower(self, node):
            self.lower_alone(node)

    def lower_alone(self, node: Node) -> None:
        """Add what a node does, were it in a chain or not."""
        if self._waiting and id(node) in self._waiting:
            return
        if self._of_bytes and id(node) in self._of_bytes:
            self._name, self._origin = node.label(), node
            operands = self._of_bytes[id(node)]
            n_operations, n_layouts = len(self.operations), len(self.layouts)
            made = product_of_bytes(self, node, *operands)
            if made is not None:
                self._tensors[node.outputs[0]] = made
                return
            self._forget(n_operations, n_layouts)
            for waiting in operands:
                if id(waiting) in self._waiting:
                    self._waiting.remove(id(waiting))
                    self.lower(waiting)
        form = self._constants.form(node)
        self._name, self._origin, node = form.label, node, form.node
        tensors = self._tensors
        tensors.update(form.constants)
        inputs = [(tensors[n] if n in tensors else self.find(n)) if n else None for n in node.inputs]
        if None not in inputs or not any(name and t is None for name, t in zip(node.inputs, inputs, strict=True)):
            if not form.has_bodies and self._evaluate(form, inputs):
                return
            if self._lower_compiled(form, node, inputs):
                return
        self._host(node, inputs)

    def _lower_compiled(self, form: Form, node: Node, inputs: list[Tensor | None]) -> bool:
        """Add what a lowering makes of a node. False where there is none, or it can't: then nothing is added."""
        lowering = form.lowering
        if lowering is None:
            lowering = form.lowering = lowering_of(node.domain, node.op_type)
        return lowering is not None and not custom_of(node.domain, node.op_type) and self._try(lowering, node, inputs)

    def _try(self, lowering: Lowering, node: Node, inputs: list[Tensor | None]) -> bool:
        if lowering not in TAKE_BLOCKS:
            inputs = [self.plain(t) if t is not None and t.block else t for t in inputs]
        n_operations, n_layouts = len(self.operations), len(self.layouts)
        results = self._lowered(lowering, node, inputs)
        if results is None or not self._takes(self.operations[n_operations:]):
            self._forget(n_operations, n_layouts)
            return False
        tensors = self._tensors
        for name, tensor in zip(node.outputs, results, strict=False):
            if name:
                tensors[name] = tensor
        return True

    def _takes(self, added: Sequence[Operation]) -> bool:
        """Whether there are kernels for all of these."""
        del added
        return True

    def _forget(self, n_operations: int, n_layouts: int) -> None:
        """What was added beyond these."""
        del self.operations[n_operations:]
        while len(self.layouts) > n_layouts:
            self.layouts.popitem()

    def _lowered(self, lowering: Lowering, node: Node, inputs: list[Tensor | None]) -> list[Tensor | None] | None:
        if lowering not in TAKE_WIDE or not any([t is not None and half.is_narrow(t) for t in inputs]):
            return lowering(self, node, inputs)
        results = lowering(self, node, [None if t is None else half.widened(self, t) for t in inputs])
        first = inputs[0]
        return results if results is None or first is None else half.all_narrowed(self, results, first.dtype)

    def _evaluate(self, form: Form, inputs: Sequence[Tensor | None]) -> bool:
        """Do the work now, where all inputs are known. False where it is large, or fails: the run will say why."""
        nbytes = 0
        for tensor in inputs:
            if tensor is not None:
                if tensor.value is None:
                    return False
                nbytes += tensor.value.nbytes
        if nbytes > _KNOWN_NBYTES or form.is_random:
            return False
        results = self._constants.evaluate(form, inputs, _KNOWN_NBYTES, self.dtypes)
        if results is None:
            return False
        for name, tensor in zip(form.node.outputs, results, strict=False):
            if name:
                self._tensors[name] = tensor
        return True

    def first(self, tensor: Tensor, number: Tensor, name: str) -> Tensor | None:
        """The node's output ``name``: the first rows of a tensor, as many as the run says."""
        zero = self.constant(np.zeros(1, np.int64))
        inputs = ["rows", "begin", "number", "axis"]
        label = self._name
        node = self.once(("first", self.origin_id), lambda: Node("Slice", "", inputs, [name], name=label, opset=13))
        self._host(node, [tensor, zero, number, zero], node)
        return self._tensors[name]

    def _host(self, node: Node, inputs: Sequence[Tensor | None], origin: Node | None = None) -> None:
        """A step for the node's NumPy kernel."""
        arguments: list[Tensor | str | None] = []
        for name, tensor in zip(node.inputs, inputs, strict=True):
            arguments.append(None if not name else tensor if tensor is not None else self.aliases.get(name, name))
        for name in node.captured():
            found = self.find(name)
            arguments.append(found if found is not None else self.aliases.get(name, name))
        plain: list[Tensor | str | None] = []
        for argument in arguments:
            plain.append(self.plain(argument) if isinstance(argument, Tensor) else argument)
        results: list[Tensor | str | None] = []
        for name in node.outputs:
            known = self._learned.get(name)
            if known is None and not results and self._texts:
                known = made_of_text(node, self._texts)
            tensor = self.new(*known) if known is not None else None
            if name:
                self._tensors[name] = tensor
            results.append(None if not name else tensor if tensor is not None else name)
        reads = [a for a in plain if isinstance(a, Tensor)]
        makes = [r for r in results if isinstance(r, Tensor)]
        self.add(Host(reads, makes, node, origin or self._origin, plain, results))


def with_constants(
    operands: Sequence[Tensor], inputs: Sequence[Tensor], expression: Expression
) -> tuple[list[Tensor], Expression]:
    """Without operands that are known numbers: these become instructions. At least one operand stays."""
    numbers = _numbers_of(inputs)
    return (
        (_without(operands, numbers), _with_numbers(expression, numbers)) if numbers else (list(operands), expression)
    )


def _numbers_of(inputs: Sequence[Tensor]) -> tuple[tuple[int, Any], ...]:
    """Which operands become instructions, and their values."""
    numbers: list[tuple[int, Any]] = []
    for place, tensor in enumerate(inputs):
        value = tensor.value
        if value is not None and value.size == 1 and not tensor.varies and _is_number(value.dtype):
            number = value.item()
            if number != 0 or not isinstance(number, float) or math.copysign(1, number) > 0:  # -0.0 is a key like 0.0
                numbers.append((place, number))
    return tuple(numbers if len(numbers) < len(inputs) else numbers[1:])


def _is_number(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in _NUMBERS or name_of(dtype) == "bfloat16"


def _without(operands: Sequence[Tensor], numbers: tuple[tuple[int, Any], ...]) -> list[Tensor]:
    places = [place for place, _ in numbers]
    return [t for place, t in enumerate(operands) if place not in places]


@functools.lru_cache(4096)
def _expression_of(inputs: tuple[str, ...], body: tuple[Instruction, ...]) -> Expression:
    return Expression(inputs, body, (len(inputs) + len(body) - 1,))


@functools.lru_cache(4096)
def _with_numbers(expression: Expression, numbers: tuple[tuple[int, Any], ...]) -> Expression:
    n_inputs = len(expression.inputs)
    known = dict(numbers)
    kept = [i for i in range(n_inputs) if i not in known]
    place = {old: new for new, old in enumerate([*kept, *known])}
    place |= {old: old for old in range(n_inputs, n_inputs + len(expression.body))}  # as many instructions come as go
    body = [Instruction("constant", (0,), expression.inputs[old], (number,)) for old, number in numbers]
    body += [i._replace(operands=tuple([place[o] for o in i.operands])) for i in expression.body]
    return Expression(
        tuple([expression.inputs[i] for i in kept]), tuple(body), tuple([place[r] for r in expression.results])
    )


__all__ = ["LOWERINGS", "Builder", "Lowering", "lowering_of", "lowers", "with_constants"]
