"""What all plans of a program share, since it doesn't depend on shapes: weights and what is made of them, nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distort.graph import digests
from distort.graph.ir import Graph, Node
from distort.kernels import adapters
from distort.kernels.compiler.expression import STORED, name_of
from distort.kernels.compiler.ir import Array, Buffer, Place, Tensor, strides_of
from distort.kernels.compiler.model_files import ModelFiles, aligned, is_aligned
from distort.kernels.errors import KernelError
from distort.kernels.program import Program, RunScope

#: arrays up to so many bytes are named by what they hold
NAMED_NBYTES = 1 << 16
#: and from so many on they are worth sharing
_SHARED_NBYTES = 1 << 20
Share = Callable[[Array], Array]
_MANY = object()
_RANDOM = ("Random", "Bernoulli", "Multinomial", "Dropout")


@dataclass(slots=True, eq=False)
class Form:
    """A node in its newest form, and what lowering looks up in it each time."""

    node: Node
    label: str
    constants: list[tuple[str, Tensor]]  # that were attributes
    has_bodies: bool
    is_random: bool
    program: Program | None = None  # of this node alone, once it was evaluated
    lowering: Any = None  # see ``builder``, once it was lowered


class Constants:
    """Not thread-safe: a program makes one plan at a time. ``share``: another array for a large one that was made."""

    def __init__(self, share: Share | None = None) -> None:
        self._share_made = share
        self.files = ModelFiles()
        self._made: dict[Any, Any] = {}
        #: by ``id`` of their arrays, which they keep
        self._tensors: dict[int, Tensor] = {}
        self._names: dict[int, tuple[Any, ...]] = {}
        #: ``id`` of each tensor of the above
        self._shared: set[int] = set()
        self._kept: dict[tuple[Any, ...], Array] = {}
        self._forms: dict[int, Form] = {}
        self._folded: dict[tuple[int, ...], list[Tensor | None] | None] = {}
        #: numbers that follow from shapes: what they were in the first plan, or that they are many
        self._numbers: dict[Any, Any] = {}
        #: of the graph's initializers those that plans have asked for; None: one that isn't compiled with
        self.initial: dict[str, Tensor | None] = {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is made at the first call."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def packed(self, key: Any, make: Callable[[], Array]) -> Tensor:
        made: Tensor | None = self._made.get(key)
        if made is None:
            array = make()
            if self._share_made is not None and array.nbytes >= _SHARED_NBYTES:
                array = self._share_made(array)
            made = self._made[key] = self._share(constant(array if is_aligned(array) else aligned(array)))
            self.files.take(array.nbytes)
        return made

    def tensor(self, array: Array) -> Tensor:
        """The tensor of a weight, the same for all plans."""
        made = self._tensors.get(id(array))
        if made is None:
            self.files.enter(array)
            made = self._share(constant(array))
            self._kept["given", id(array)] = array
            self._tensors[id(array)] = made
        return made

    def _share(self, tensor: Tensor) -> Tensor:
        tensor = self._tensors.setdefault(id(tensor.value), tensor)
        self._shared.add(id(tensor))
        return tensor

    def keeps(self, tensor: Tensor) -> bool:
        """Whether a known tensor is the same in all plans."""
        return id(tensor) in self._shared

    def has(self, array: Array) -> bool:
        """Whether an array is that of a tensor that is the same in all plans."""
        known = self._tensors.get(id(array))
        return known is not None and (known.value is array or ("given", id(array)) in self._kept)

    def name(self, array: Array) -> tuple[Any, ...]:
        """See :meth:`Builder.identity`."""
        known = self._names.get(id(array))
        if known is not None:
            return known
        kind = (array.shape, name_of(array.dtype))
        if array.nbytes <= NAMED_NBYTES:
            name: tuple[Any, ...] = (*kind, digests.digest(array.tobytes()))
        else:
            name = (*kind, array.strides, array.__array_interface__["data"][0])
            self._kept.setdefault(name, array)
        if id(array) in self._tensors:
            self._names[id(array)] = name
        return name

    def form(self, node: Node) -> Form:
        form = self._forms.get(id(node))
        if form is None:
            modern, moved = adapters.modern(node)
            constants = [(name, self.tensor(np.asarray(value))) for name, value in moved.items()]
            has_bodies = any(True for _ in node.subgraphs())
            form = Form(modern, node.label(), constants, has_bodies, node.op_type.startswith(_RANDOM))
            self._forms[id(node)] = form
        return form

    def evaluate(
        self,
        form: Form,
        inputs: Sequence[Tensor | None],
        most_nbytes: int,
        dtypes: frozenset[str] = frozenset(STORED),
    ) -> list[Tensor | None] | None:
        """What a node makes of known values, as tensors; None where it fails, or makes something else or too much.

        What follows from weights alone is worked out once.
        """
        if not all(t is None or id(t) in self._shared for t in inputs):
            made = self._evaluated(form, inputs, most_nbytes, dtypes)
            for number, tensor in enumerate(made or ()):
                if tensor is not None and tensor.value is not None and tensor.value.size == 1:
                    tensor.varies = self.varies((id(form), number), tensor.value.item())
            return made
        key = (id(form), *map(id, inputs))
        if key not in self._folded:
            made = self._evaluated(form, inputs, most_nbytes, dtypes)
            self._folded[key] = None if made is None else [None if t is None else self._share(t) for t in made]
        return self._folded[key]

    def varies(self, key: Any, number: Any) -> bool:
        """Whether a number that follows from shapes has been another one before, in a plan for other shapes."""
        known = self._numbers.setdefault(key, number)
        if known is not _MANY and known != number:
            known = self._numbers[key] = _MANY
        return known is _MANY

    def _evaluated(
        self, form: Form, inputs: Sequence[Tensor | None], most_nbytes: int, dtypes: frozenset[str]
    ) -> list[Tensor | None] | None:
        try:
            if form.program is None:
                form.program = _alone(form.node)
            with np.errstate(all="ignore"):
                results = form.program.call(0, [None if t is None else t.value for t in inputs], RunScope())
        except KernelError:
            return None
        made: list[Tensor | None] = []
        for result in results:
            if result is None:
                made.append(None)
                continue
            if not isinstance(result, (np.ndarray, np.generic)):
                return None  # a sequence or a map
            array = np.asarray(result)
            if array.nbytes > most_nbytes or name_of(array.dtype) not in dtypes:
                return None
            made.append(constant(array))
        return made


def constant(array: Array) -> Tensor:
    """A tensor whose value is known."""
    value = np.ascontiguousarray(array)
    if value.shape != array.shape:
        value = value.reshape(array.shape)
    return Tensor(
        value.dtype, value.shape, strides_of(value.shape), Buffer(value.nbytes, Place.CONSTANT, value), value=value
    )


def _alone(node: Node) -> Program:
    """A program of one node."""
    names = [f"in{i}" if name else "" for i, name in enumerate(node.inputs)]
    graph = Graph(inputs=[name for name in names if name], outputs=list(node.outputs))
    graph.nodes = [replace(node, inputs=names)]
    return Program(graph)
