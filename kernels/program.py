"""A lowered stage: steps over slots.

Every value of the stage has a slot in a flat list. A step calls one kernel on slots and stores what it returns; a
slot is emptied after its last reader, so that memory is freed as soon as nobody needs it.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from distort.graph.ir import Graph, Node, SparseInitializer
from distort.graph.operators import since_version
from distort.graph.types import DTYPE_OF, SparseTensorType, TensorType, ValueType
from distort.kernels import adapters
from distort.kernels.errors import InvalidGraph, InvalidInput, KernelError, MissingKernel, RunCancelled
from distort.kernels.registry import Kernel, find


@dataclass(slots=True)
class Step:
    call: Callable[..., Any]
    inputs: tuple[int, ...]  # slots; 0 is always None
    outputs: tuple[int, ...]  # slots; 0 swallows what nobody wants
    frees: tuple[int, ...]  # slots without a reader after this step
    node: Node
    single: bool  # the kernel may return its only output bare


#: a program of some kind
P = TypeVar("P")
#: called after each step: (node, start_ns, end_ns, inputs, outputs)
StepObserver = Callable[[Node, int, int, Sequence[Any], Sequence[Any]], None]
#: where a result may be made: its name, shape and element type -> memory, or None
Room = Callable[[str, tuple[int, ...], "np.dtype[Any]"], "np.ndarray[Any, Any] | None"]


#: the text of a cancelled run's error
TERMINATED = "Exiting due to terminate flag being set to true."


class Cancellation:
    """A flag that a run looks at between steps: a byte, so that native code sees it too."""

    __slots__ = ("_flag", "address")

    def __init__(self) -> None:
        self._flag = ctypes.c_uint8()
        self.address: int = ctypes.addressof(self._flag)

    @property
    def requested(self) -> bool:
        return bool(self._flag.value)

    @requested.setter
    def requested(self, value: bool) -> None:
        self._flag.value = value


@dataclass(slots=True)
class RunScope:
    """What steps of one run share with the bodies of control flow inside it."""

    observer: StepObserver | None = None
    cancellation: Cancellation | None = None
    _counts: dict[Any, int] = field(default_factory=dict)

    def count(self, *what: Any) -> int:
        """How often this was asked in the run, this time included."""
        self._counts[what] = n = self._counts.get(what, 0) + 1
        return n


def needs_scope(call: Callable[..., Any]) -> bool:
    """Whether a step's call takes the run's scope before its arguments."""
    return getattr(call, "needs_scope", False)


class BodyProgram(Protocol):
    """What a body needs of a program, compiled or not."""

    n_formal_inputs: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    input_types: tuple[ValueType | None, ...]
    output_types: tuple[ValueType | None, ...]

    def run_values(self, values: Sequence[Any], scope: RunScope) -> list[Any]: ...


class MakesBodies(Protocol):
    def __call__(self, graph: Graph, *, captures: Sequence[str]) -> BodyProgram: ...


class Body:
    """The body of If, Loop, Scan or SequenceMap, bound to what it captured in this run."""

    __slots__ = ("_captured", "_program", "_scope")

    def __init__(self, program: BodyProgram, captured: Sequence[Any], scope: RunScope) -> None:
        self._program = program
        self._captured = captured
        self._scope = scope

    @property
    def n_inputs(self) -> int:
        return self._program.n_formal_inputs

    @property
    def n_outputs(self) -> int:
        return len(self._program.outputs)

    @property
    def inputs(self) -> list[tuple[str, ValueType | None]]:
        """Names and types of what a call takes."""
        return list(zip(self._program.inputs, self._program.input_types, strict=False))

    def empty_output(self, xp: ModuleType, position: int) -> Any:
        """No values of an output, stacked: what a scan output is after zero rounds."""
        known = self._program.output_types[position]
        if not isinstance(known, TensorType) or known.element == 0:
            return xp.zeros(0, dtype=np.float32)
        sizes = [dim if isinstance(dim, int) else 0 for dim in known.shape or ()]
        return xp.zeros((0, *sizes), dtype=DTYPE_OF[known.element])

    def __call__(self, *inputs: Any) -> list[Any]:
        if len(inputs) != self.n_inputs:
            raise InvalidInput(f"the body has {self.n_inputs} inputs, and {len(inputs)} are given to it")
        return self._program.run_values([*inputs, *self._captured], self._scope)


class Program:
    """A graph (one stage's part, or a whole model) ready to run on one device.

    ``inputs`` and ``outputs`` are names in the order that ``run_values`` takes and returns. Raises
    :class:`MissingKernel` for an operator without a kernel, naming node, operator and version.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        device: str = "cpu",
        xp: ModuleType = np,
        outputs: Sequence[str] | None = None,
        captures: Sequence[str] = (),
        bodies: MakesBodies | None = None,
    ) -> None:
        self.device = device
        self.xp = xp
        #: what makes a program of a body and the names that it captures
        self._bodies: MakesBodies = bodies or partial(Program, device=device, xp=xp)
        self.n_formal_inputs = len(graph.inputs)
        self.inputs: tuple[str, ...] = (*graph.inputs, *captures)
        self.outputs: tuple[str, ...] = tuple(graph.outputs if outputs is None else outputs)
        self.input_types = tuple(graph.types.get(name) for name in graph.inputs)
        self.output_types = tuple(graph.types.get(name) for name in self.outputs)
        self._slots: dict[str, int] = {"": 0}
        self._template: list[Any] = [None]
        for name, value in graph.initializers.items():
            # kernels take dense weights; one that the model hands out as a sparse tensor stays one
            handed_out = name in self.outputs and isinstance(graph.types.get(name), SparseTensorType)
            self._template[self._slot(name)] = value if handed_out else self._weight(value)
        self._input_slots = tuple(self._slot(name) for name in self.inputs)
        self._steps = [self._lower(node) for node in graph.nodes]
        self._output_slots = tuple(self._slot(name) for name in self.outputs)
        self._plan_frees()

    def _weight(self, value: Any) -> Any:
        """A weight as kernels take it."""
        if isinstance(value, SparseInitializer):
            value = value.dense()
        return value if self.xp is np else self.xp.asarray(value)

    def _slot(self, name: str) -> int:
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = len(self._template)
            self._template.append(None)
        return slot

    def _lower(self, node: Node) -> Step:
        node, constants = adapters.modern(node)
        entry = self._find(node)
        if entry is None:
            raise MissingKernel(
                f"Could not find an implementation for {node.op_type}({since_version(node)}) "
                f"node with name '{node.name}'",
                node=node.name,
                op_type=node.op_type,
            )
        _check_inputs(node, entry)
        for name, value in constants.items():
            self._template[self._slot(name)] = value
        captured = node.captured()
        if captured or any(True for _ in node.subgraphs()):
            call: Callable[..., Any] = self._control_flow(node, entry, captured)
        else:
            call = self._call_of(node, entry)
        inputs = tuple(self._slot(name) for name in (*node.inputs, *captured))
        outputs = tuple(self._slot(name) for name in node.outputs)
        return Step(call, inputs, outputs, (), node, len(outputs) == 1)

    def _find(self, node: Node) -> Kernel | None:
        return find(node.domain, node.op_type, node.opset, self.device)

    def _call_of(self, node: Node, entry: Kernel) -> Callable[..., Any]:
        """What runs a node without bodies on its inputs."""
        return partial(entry.function, self.xp, **self._keywords(node, entry))

    def _keywords(self, node: Node, entry: Kernel) -> dict[str, Any]:
        keywords = dict(node.attributes)
        if not entry.takes_any_attribute and not entry.parameters.issuperset(keywords):
            unknown = sorted(set(keywords) - entry.parameters)
            raise MissingKernel(
                f"The kernel of {node.op_type}({node.opset}), node '{node.name}', lacks attribute {', '.join(unknown)}",
                node=node.name,
                op_type=node.op_type,
            )
        if entry.prepare is not None:
            keywords = entry.prepare(**keywords)
        for name in entry.special:
            if name == "opset":
                keywords[name] = node.opset
            elif name == "n_outputs":
                keywords[name] = len(node.outputs)
            else:
                keywords[name] = tuple(bool(output) for output in node.outputs)
        return keywords

    def _control_flow(self, node: Node, entry: Kernel, captured: list[str]) -> Callable[..., Any]:
        keywords = self._keywords(node, entry)
        programs: dict[str, tuple[BodyProgram, tuple[int, ...]]] = {}
        for name, value in node.attributes.items():
            if isinstance(value, Graph):
                needed = value.captures()
                program = self._bodies(value, captures=needed)
                programs[name] = (program, tuple(captured.index(c) for c in needed))
        n_inputs = len(node.inputs)
        function, xp = entry.function, self.xp

        def call(scope: RunScope, *values: Any) -> Any:
            around = values[n_inputs:]
            for name, (program, positions) in programs.items():
                keywords[name] = Body(program, [around[p] for p in positions], scope)
            return function(xp, *values[:n_inputs], **keywords)

        call.needs_scope = True  # type: ignore[attr-defined]  # a flag on our own closure
        return call

    def _plan_frees(self) -> None:
        keep = set(self._output_slots) | {0}
        keep.update(slot for slot, value in enumerate(self._template) if value is not None)
        last: dict[int, int] = {}
        for position, step in enumerate(self._steps):
            for slot in (*step.inputs, *step.outputs):
                last[slot] = position
        by_step: dict[int, list[int]] = {}
        for slot, position in last.items():
            if slot not in keep:
                by_step.setdefault(position, []).append(slot)
        for position, slots in by_step.items():
            self._steps[position].frees = tuple(slots)

    def run(
        self,
        feeds: Mapping[str, Any],
        observer: StepObserver | None = None,
        cancellation: Cancellation | None = None,
        room: Room | None = None,
    ) -> list[Any]:
        """Feeds by name; results in the order of ``outputs``. An input without a feed is absent (None).

        ``room`` is for compiled programs: kernels of NumPy have their own memory.
        """
        del room
        scope = RunScope(observer, cancellation)
        return self.run_values([feeds.get(name) for name in self.inputs], scope)

    def run_values(self, values: Sequence[Any], scope: RunScope) -> list[Any]:
        slots = self._template.copy()
        for slot, value in zip(self._input_slots, values, strict=False):
            if value is not None or slots[slot] is None:
                slots[slot] = value
        with np.errstate(all="ignore"):
            for step in self._steps:
                if scope.cancellation is not None and scope.cancellation.requested:
                    raise RunCancelled(TERMINATED, node=step.node.name)
                self._run_step(step, slots, scope)
        return [slots[slot] for slot in self._output_slots]

    def call(self, number: int, arguments: list[Any], scope: RunScope) -> Sequence[Any]:
        """One node alone, by its place in the graph, on values of its inputs and captures. Returns its outputs."""
        return self._call(self._steps[number], arguments, scope)

    def step(self, number: int) -> Step:
        """One node, by its place in the graph."""
        return self._steps[number]

    def _run_step(self, step: Step, slots: list[Any], scope: RunScope) -> None:
        results = self._call(step, [slots[i] for i in step.inputs], scope)
        for slot, value in zip(step.outputs, results, strict=False):
            slots[slot] = value
        slots[0] = None
        for slot in step.frees:
            slots[slot] = None

    def _call(self, step: Step, arguments: list[Any], scope: RunScope) -> Sequence[Any]:
        if needs_scope(step.call):
            arguments.insert(0, scope)
        start_ns = time.time_ns() if scope.observer else 0
        try:
            results = step.call(*arguments)
        except KernelError as error:
            if not error.node:
                raise type(error)(
                    _while_running(step.node, error.text), node=step.node.label(), op_type=step.node.op_type
                ) from error
            raise
        except Exception as error:
            raise KernelError(
                _while_running(step.node, _text_of(error)), node=step.node.label(), op_type=step.node.op_type
            ) from error
        if step.single and not isinstance(results, tuple):
            results = (results,)
        if scope.observer:
            scope.observer(step.node, start_ns, time.time_ns(), arguments, results)
        made: Sequence[Any] = results
        return made


class Paths(Generic[P]):
    """Programs of parts of a graph: of the nodes that some of its outputs depend on. ``make`` makes one of a graph."""

    def __init__(self, graph: Graph, make: Callable[[Graph], P]) -> None:
        self._graph, self._make = graph, make
        self._programs: dict[frozenset[str], P] = {}

    @property
    def made(self) -> list[P]:
        """All that have been asked for."""
        return list(self._programs.values())

    def to(self, outputs: Iterable[str]) -> P:
        """The program that makes these outputs, in the graph's order, and runs nothing else."""
        wanted = frozenset(outputs)
        program = self._programs.get(wanted)
        if program is None:
            whole = self._graph
            nodes = [whole.nodes[i] for i in whole.needed(wanted)]
            part = replace(whole, nodes=nodes, outputs=[name for name in whole.outputs if name in wanted])
            program = self._programs[wanted] = self._make(part)
        return program


def evaluate(node: Node, inputs: Sequence[Any]) -> tuple[Any, ...] | None:
    """One node on constants; None where that fails: the run that reaches it will say why."""
    try:
        return evaluate_node(node, inputs)
    except KernelError:
        return None


def evaluate_node(node: Node, inputs: Sequence[Any]) -> tuple[Any, ...]:
    """One node's outputs, for constant folding. Raises KernelError."""
    graph = Graph(inputs=[f"in{i}" for i in range(len(inputs))], outputs=list(node.outputs))
    names = [f"in{i}" if name else "" for i, name in enumerate(node.inputs)]
    graph.nodes = [replace(node, inputs=names)]
    feeds = {name: value for name, value in zip(names, inputs, strict=True) if name}
    return tuple(Program(graph).run(feeds))


def _check_inputs(node: Node, entry: Kernel) -> None:
    """Operators without a schema (those of other domains) have had nobody count their inputs."""
    least, most = entry.n_inputs
    if not least <= len(node.inputs) <= most or not all(node.inputs[position] for position in entry.present):
        takes = f"{least}" if least == most else f"{least} or more" if most == sys.maxsize else f"{least} to {most}"
        given = ", ".join(name or "(absent)" for name in node.inputs) or "none"
        raise InvalidGraph(
            f"{node.op_type}({node.opset}), node '{node.name}', takes {takes} inputs, given are {given}",
            node=node.name,
            op_type=node.op_type,
        )


#: exceptions whose text says enough: numpy's and Python's own of what an operation can't do with its operands
_PLAIN = (ValueError, TypeError, IndexError, ArithmeticError, AttributeError, MemoryError)


def _text_of(error: Exception) -> str:
    return str(error) if isinstance(error, _PLAIN) and str(error) else f"{type(error).__name__}: {error}"


def _while_running(node: Node, text: str) -> str:
    return f"Non-zero status code returned while running {node.op_type} node. Name:'{node.name}' Status Message: {text}"


__all__ = ["Body", "Cancellation", "Program", "RunScope", "Step", "needs_scope"]
