"""NumPy kernels between native steps, made ready to be called: what is the same in all runs is looked up once.

Values of a run that no kernel of ours makes lie in a list: feeds, then results, then what NumPy kernels made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.kernels.compiler import arrays
from distort.kernels.compiler.ir import Array, Host, Place, Tensor
from distort.kernels.program import RunScope, needs_scope
from distort.kernels.registry import custom_of

if TYPE_CHECKING:
    from distort.kernels.compiler.executable import Compiled, Instance
    from distort.kernels.compiler.program import CompiledProgram

#: operators whose kernels make objects that hold no memory of others, and do no arithmetic
FRESH = frozenset(["ZipMap", "LabelEncoder"])
#: others that do no arithmetic, so that NumPy has nothing to warn of
_SILENT = FRESH | {"Gather", "Tile", "NonZero", "Identity", "Reshape", "Concat", "Unsqueeze", "Squeeze"}
_SILENT |= {"ArrayFeatureExtractor", "OneHotEncoder", "StringNormalizer", "TfIdfVectorizer"}
_SILENT_CONTRIB = frozenset(["Tokenizer"])
_OF_TEXT = frozenset(["one_hot_encoder", "label_encoder", "label_encoder_2"])
_STANDARD = ("", "ai.onnx.ml")

#: on a run's values: whether the run can't go on
Ready = Callable[[list[Any]], Any]


@dataclass(slots=True)
class HostCall:
    """A kernel with an instance's arguments. Called with a run's values, it says whether results are not as expected.

    Raises whatever the kernel raises.
    """

    function: Callable[..., Any]
    arguments: list[Any]
    #: of arguments: positions, and the places of their values
    fills: list[tuple[int, int]]
    #: of arguments that are parts of feeds or results: positions, and the places of what they are parts of
    parts: list[tuple[int, int, Tensor]]
    #: where results go: a view of the arena, or a place among values (-1: nowhere), for a tensor with the part of it
    targets: list[tuple[Any, int, Tensor | None]]
    single: bool
    scoped: bool
    fresh: bool
    memory: Array

    def __call__(self, values: list[Any]) -> bool:
        arguments = self.arguments
        if self.fills or self.parts:
            arguments = arguments.copy()
            for position, place in self.fills:
                arguments[position] = values[place]
            for position, place, tensor in self.parts:
                arguments[position] = arrays.within(tensor, values[place])
        made = self.function(RunScope(), *arguments) if self.scoped else self.function(*arguments)
        if self.single and not isinstance(made, tuple):
            made = (made,)
        for (view, place, part), value in zip(self.targets, made, strict=False):
            if part is not None:
                view = arrays.within(part, values[place])
            if view is not None:
                if not isinstance(value, _ARRAYS) or value.shape != view.shape or value.dtype != view.dtype:
                    return True
                view[...] = value
            elif place >= 0:
                values[place] = value if self.fresh else arrays.apart(value, self.memory)
        return False

    def simplest(self, made: frozenset[int]) -> Ready:
        """The same, where a kernel that makes one array, or object, of one value or two needs less.

        ``made``: places of results that are what such kernels make.
        """
        view, place, part = self.targets[0]
        is_object = self.fresh and place >= 0 and (part is None or place in made)
        if not self.single or self.scoped or self.parts or len(self.fills) > 1 or not (is_object or view is not None):
            return self
        function, arguments = self.function, self.arguments
        if self.fills and len(arguments) == 1:
            source = self.fills[0][1]
            encode = None if view is None else _of_text(function, view)
            if encode is not None:
                return lambda values: encode(values[source])
            made_of: Callable[[list[Any]], Any] = lambda values: function(values[source])  # noqa: E731  # it is one of two
        elif not self.fills:
            made_of = lambda values: function(*arguments)  # noqa: E731
            again = _of_memory(function, arguments) if is_object else None
            if again is not None:

                def look_up(values: list[Any], again: Callable[[], Any] = again) -> None:
                    values[place] = again()

                return look_up
        else:
            return self
        if is_object:

            def keep(values: list[Any]) -> None:
                values[place] = made_of(values)

            return keep
        shape, dtype = view.shape, view.dtype

        def copy(values: list[Any]) -> bool:
            value = made_of(values)
            if type(value) is tuple:
                (value,) = value
            if not isinstance(value, _ARRAYS) or value.shape != shape or value.dtype != dtype:
                return True
            view[...] = value
            return False

        return copy


_ARRAYS = (np.ndarray, np.generic)


def _of_memory(call: Any, arguments: Sequence[Any]) -> Callable[[], Any] | None:
    """The same as a function of what is in its only argument's memory, where there is such a one of the kernel."""
    from distort.kernels.ops import ml_text

    made: dict[Any, Any] = {ml_text.zip_map: ml_text.maps_of_memory, ml_text.label_encoder: ml_text.labels_of_memory}
    if len(arguments) != 1 or not isinstance(call, partial) or not isinstance(arguments[0], np.ndarray):
        return None
    of = made.get(call.func)
    found: Callable[[], Any] | None = None if of is None else of(arguments[0], **call.keywords)
    return found


def _of_text(call: Any, to: Array) -> Callable[[Any], None] | None:
    """The same as a function of one text, whose result it writes, where there is such a one of the kernel."""
    if not isinstance(call, partial) or call.func.__name__ not in _OF_TEXT:
        return None
    from distort.kernels.ops import ml_text

    made: dict[Any, Any] = {
        ml_text.one_hot_encoder: ml_text.one_hot_of_text,
        ml_text.label_encoder: ml_text.label_of_text,
        ml_text.label_encoder_2: ml_text.label_of_text,
    }
    of = made.get(call.func)
    found: Callable[[Any], None] | None = None if of is None else of(to, **call.keywords)
    return found


@dataclass(slots=True)
class Hosts:
    """The NumPy kernels of a plan, and what becomes of their values. See :class:`HostCall`."""

    feeds: dict[int, int]  # numbers of inputs that are given, and their places among values
    n_made: int  # values that NumPy kernels make
    shapes: list[Any]  # of feeds, then of results that are tensors
    steps: list[tuple[Host, Any, list[Any], bool]]  # with the kernel, its constants, and whether what it makes is fresh
    places: dict[str, int]  # of values by name
    quiet: bool  # whether NumPy must be told not to warn
    outputs: list[tuple[int, Any, int]]  # results that are not native: a known value, or where it is among values
    loose: list[int]  # results that may be anybody's, and differ in shape from run to run
    #: places of results that are tensors, and no compiled step's
    made: frozenset[int]

    def calls(self, instance: Instance) -> list[Ready]:
        return [self._call(*step, instance).simplest(self.made) for step in self.steps]

    def _call(self, host: Host, step: Any, known: list[Any], fresh: bool, instance: Instance) -> HostCall:
        memory, base = instance.memory, instance.base
        fills: list[tuple[int, int]] = []
        parts: list[tuple[int, int, Tensor]] = []
        arguments = list(known)
        for position, argument in enumerate(host.arguments):
            if isinstance(argument, str):
                if argument in self.places:
                    fills.append((position, self.places[argument]))
            elif argument is not None:
                arguments[position] = arrays.view(argument, memory, base)
                if arguments[position] is None and self._is_all(argument):
                    fills.append((position, self._outside(argument)))
                elif arguments[position] is None:
                    parts.append((position, self._outside(argument), argument))
        targets: list[tuple[Any, int, Tensor | None]] = []
        for result in host.results:
            if isinstance(result, Tensor):
                view = arrays.view(result, memory, base)
                targets.append((view, -1, None) if view is not None else (None, self._outside(result), result))
            else:
                targets.append((None, self.places[result] if result else -1, None))
        return HostCall(step.call, arguments, fills, parts, targets, step.single, needs_scope(step.call), fresh, memory)

    def _is_all(self, tensor: Tensor) -> bool:
        """Whether a tensor is all of a feed or result."""
        return tensor.whole and tensor.shape == self.shapes[self._outside(tensor)]

    def _outside(self, tensor: Tensor) -> int:
        number = tensor.buffer.number
        return self.feeds[number] if tensor.buffer.place is Place.FEED else len(self.feeds) + number


def hosts_of(program: CompiledProgram, compiled: Compiled, given: Mapping[str, Any]) -> Hosts | None:
    """What of a plan is not native, for feeds that are given; None where a result is neither made nor given."""
    plan = compiled.plan
    names = [name for name in program.inputs if name in given]
    places = {name: number for number, name in enumerate(names)}
    feeds = {program.inputs.index(name): place for name, place in places.items()}
    n_values = n_before = len(feeds) + len(plan.results)
    fresh: set[str] = set()
    steps: list[Any] = []
    quiet = False
    for segment in compiled.segments:
        host = segment.host
        if host is None:
            continue
        known = [program.hosts.weight(a) if isinstance(a, str) and a not in places else None for a in host.arguments]
        is_fresh = _is_fresh(host, given)
        steps.append((host, program.hosts.step_of(host.origin), known, is_fresh))
        quiet |= host.node.op_type not in (_SILENT if host.node.domain in _STANDARD else _SILENT_CONTRIB)
        for result in host.results:
            if isinstance(result, str):
                places[result] = n_values
                n_values += 1
                if is_fresh:
                    fresh.add(result)
    outputs: list[tuple[int, Any, int]] = []
    loose: list[int] = []
    alone = _made_alone(compiled, given)
    for number, output in enumerate(plan.results):
        if number in alone:
            outputs.append((number, None, len(feeds) + number))
        elif output.value is not None:
            outputs.append((number, output.value, -1))
        elif output.name:
            place = places.get(output.name)
            if place is None:
                return None  # a weight, or nothing
            outputs.append((number, None, place))
            if output.name not in fresh:
                loose.append(number)
            fresh.discard(output.name)  # what has two names is nobody's own
    shapes = [given[name].shape for name in names] + [
        None if r.tensor is None else r.tensor.shape for r in plan.results
    ]
    made = frozenset(len(feeds) + number for number in alone)
    return Hosts(feeds, n_values - n_before, shapes, steps, places, quiet, outputs, loose, made)


def _is_fresh(host: Host, given: Mapping[str, Any]) -> bool:
    """Whether a kernel makes objects that hold no memory of others, of the same shapes in all runs."""
    op_type, argument = host.node.op_type, host.arguments[-1]
    if host.node.domain not in _STANDARD or custom_of(host.node.domain, op_type):
        return False
    if op_type not in FRESH and (op_type != "Gather" or not isinstance(argument, Tensor)):
        return False
    shape = argument.shape if isinstance(argument, Tensor) else getattr(given.get(argument or ""), "shape", ())
    return len(shape) > 0


def _made_alone(compiled: Compiled, given: Mapping[str, Any]) -> set[int]:
    """Results that are just what one kernel makes that hands out nothing of others, of an argument of known shape."""
    numbers: set[int] = set()
    for segment in compiled.segments:
        host = segment.host
        if host is None or len(host.results) != 1 or not _is_fresh(host, given):
            continue
        (result,) = host.results
        if isinstance(result, Tensor) and result.buffer.place is Place.RESULT and result.whole:
            numbers.add(result.buffer.number)
    # what compiled steps read or write has its place before the run
    return numbers - {number for number, _ in compiled.results} - _read_by_hosts(compiled)


def _read_by_hosts(compiled: Compiled) -> set[int]:
    tensors = [a for s in compiled.segments if s.host is not None for a in s.host.arguments if isinstance(a, Tensor)]
    return {tensor.buffer.number for tensor in tensors if tensor.buffer.place is Place.RESULT}


__all__ = ["FRESH", "Hosts", "Ready", "hosts_of"]
