"""One run with a large batch as several with parts of it, where the graph is proved to keep samples apart.

Parts follow one another through the stages, so that all of them work at once. More parts fill the pipeline better, and
each costs its calls, a start of every kernel, and reading the weights once more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from distort.graph.batch import Axes, BatchProof, Refusal, Shapes, find_batch, guesses, prove
from distort.graph.ir import Graph
from distort.graph.passes.context import Evaluate
from distort.graph.types import TensorType

if TYPE_CHECKING:
    from distort.scheduler.plan import Plan

#: parts that the choice considers; more of them gain little where stages are few
MOST_PARTS = 32
#: the predicted time must fall below this part of the whole batch's: predictions aren't exact
WORTH = 0.8
#: fewer parts are chosen up to this time relative to the best: kernels work better on more samples, and costs don't
#: tell (measured: parts of 2 instead of 16 cost bert_base 12 % of its time)
ABOUT = 1.08
#: feeds of so many integers may decide how a graph runs, such as a sampling rate
_DECIDING = 4
#: proofs kept by shapes of the feeds; a decoder's grow with every step
_KEPT = 64

_Kept = TypeVar("_Kept")
#: samples -> µs of each stage, in the plan's order
StageCosts = Callable[[int], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Parts:
    """A batch of ``batch`` samples as parts of ``sizes``; one part is the whole batch, as it is."""

    proof: BatchProof
    batch: int
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a run is split. ``reason`` is a sentence; ``refusal`` says why the graph can't be, where it can't."""

    parts: Parts | None
    reason: str
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """How many parts, and what is predicted of them and of the whole."""

    n_parts: int
    parts_us: float
    whole_us: float


def part_sizes(batch: int, n_parts: int) -> tuple[int, ...]:
    """Samples of each part; they differ by at most one. No part is empty."""
    n_parts = max(1, min(n_parts, batch))
    least, more = divmod(batch, n_parts)
    return tuple(least + (i < more) for i in range(n_parts))


def batch_size(proof: BatchProof, feeds: Mapping[str, Any]) -> int:
    """Samples in the feeds. Raises ValueError where they disagree."""
    sizes = {feeds[name].shape[axis] for name, axis in proof.inputs.items() if axis is not None and name in feeds}
    if len(sizes) != 1:
        raise ValueError(f"feeds have {sorted(sizes)} samples: they must have as many as one another")
    return int(sizes.pop())


def split(proof: BatchProof, feeds: Mapping[str, Any], n_parts: int) -> list[dict[str, Any]]:
    """The feeds of each part, as views. Those that are the same for every part are in each."""
    parts = []
    first = 0
    for size in part_sizes(batch_size(proof, feeds), n_parts):
        taken = slice(first, first + size)
        parts.append({name: _taken(value, proof.inputs.get(name), taken) for name, value in feeds.items()})
        first += size
    return parts


def _taken(value: Any, axis: int | None, taken: slice) -> Any:
    return value if axis is None or value is None else value[(slice(None),) * axis + (taken,)]


def merge(proof: BatchProof, fetches: Sequence[str], parts: Sequence[Sequence[Any]]) -> list[Any]:
    """The values of ``fetches`` for the whole batch, from those of each part in order. One part is as it is."""
    if len(parts) == 1:
        return list(parts[0])
    return [_merged([part[i] for part in parts], proof.outputs[name]) for i, name in enumerate(fetches)]


def _merged(values: Sequence[Any], axis: int | None) -> Any:
    if axis is None:
        return values[0]
    if isinstance(values[0], list):  # a sequence with an item for each row
        return [item for value in values for item in value]
    return np.concatenate(values, axis)


def plan_parts(batch: int, stage_us: StageCosts, elapsed: Callable[[Sequence[Sequence[float]]], float]) -> Choice:
    """The fewest parts that are predicted to end about first; 1 where none is clearly faster than the whole.

    ``elapsed`` is the time that parts take one after the other, from the costs of each on each stage.
    """
    costs: dict[int, Sequence[float]] = {}
    times: dict[int, float] = {}
    for n_parts in range(1, min(batch, MOST_PARTS) + 1):
        sizes = part_sizes(batch, n_parts)
        for size in sizes:
            if size not in costs:
                costs[size] = stage_us(size)
        times[n_parts] = elapsed([costs[size] for size in sizes])
    best_us = min(times.values())
    n_parts = next(n for n, time_us in times.items() if time_us <= ABOUT * best_us)
    if times[n_parts] >= WORTH * times[1]:
        n_parts = 1
    return Choice(n_parts, times[n_parts], times[1])


@dataclass(slots=True)
class MicroBatches:
    """A session's answer to how each of its runs is split.

    ``setting`` is the value of ``distort.micro_batch``: "0" never, "auto" where it is predicted to gain, or a number of
    parts. ``measured`` is what a run took, where one was measured: its samples, and µs of each stage.
    """

    graph: Graph
    plan: Plan
    setting: str = "auto"
    evaluate: Evaluate | None = None
    measured: tuple[int, Sequence[float]] | None = None
    _proofs: dict[Any, BatchProof | Refusal] = field(default_factory=dict)
    _choices: dict[Any, Choice] = field(default_factory=dict)

    def decide(self, feeds: Mapping[str, Any], fetches: Sequence[str]) -> Decision:
        """Whether, and how, a run is split. It is not where that would change an answer, or isn't predicted to gain."""
        if self.setting == "0":
            return Decision(None, "distort.micro_batch is 0")
        auto = self.setting == "auto"
        if auto and sum(len(stage.devices) for stage in self.plan.stages) < 2:
            return Decision(None, "a single stage has nothing to work on beside its part")
        away = next((name for name, value in feeds.items() if not _is_here(value)), None)
        if away is not None:
            return _refused(Refusal("", "", f"the input '{away}' is no array of this process"))
        proof = self.proof(feeds, fetches)
        if isinstance(proof, Refusal):
            return _refused(proof)
        batch = batch_size(proof, feeds)
        if auto:
            choice = self._choice(proof, batch, feeds, fetches)
            n_parts = choice.n_parts
            reason = _explained(batch, choice)
        else:
            n_parts = int(self.setting)
            reason = f"distort.micro_batch asks for {n_parts} parts"
            if n_parts > batch:
                reason += f", and a batch of {batch} has no more than {batch}"
        if n_parts < 2:
            return Decision(None, reason)
        return Decision(Parts(proof, batch, part_sizes(batch, n_parts)), reason)

    def proof(self, feeds: Mapping[str, Any], fetches: Sequence[str]) -> BatchProof | Refusal:
        """The proof for such feeds. One that holds whatever size open dimensions have serves all of them."""
        shapes = {name: _shape(value) for name, value in feeds.items() if value is not None}
        found: BatchProof | Refusal
        for axes in guesses(self.graph, shapes):
            opened = open_shapes(self.graph, shapes, axes)
            found = self._proved(axes, opened, fetches)
            if isinstance(found, BatchProof):
                return found
        key: Any = (tuple(shapes.items()), tuple(fetches))
        known = self._proofs.get(key)
        if known is None:
            known = _remember(self._proofs, key, find_batch(self.graph, shapes, fetches, self.evaluate))
        deciding = {name: value for name, value in feeds.items() if _decides(value)}
        if isinstance(known, BatchProof) or not deciding:
            return known
        # what those values decide may be what stands in the way
        key = (key, tuple((name, value.tobytes()) for name, value in deciding.items()))
        if key not in self._proofs:
            found = find_batch(self.graph, shapes, fetches, self.evaluate, deciding)
            _remember(self._proofs, key, found if isinstance(found, BatchProof) else known)
        return self._proofs[key]

    def _proved(self, axes: Axes, shapes: Shapes, fetches: Sequence[str]) -> BatchProof | Refusal:
        key = (tuple(axes.items()), tuple(shapes.items()), tuple(fetches))
        known = self._proofs.get(key)
        if known is None:
            known = _remember(self._proofs, key, prove(self.graph, axes, shapes, fetches, self.evaluate))
        return known

    def _choice(self, proof: BatchProof, batch: int, feeds: Mapping[str, Any], fetches: Sequence[str]) -> Choice:
        """Sizes of about the same magnitude have the same choice: costs are estimates."""
        shapes = {name: _shape(value) for name, value in feeds.items() if value is not None}
        magnitudes = tuple((name, shape and tuple(dim.bit_length() for dim in shape)) for name, shape in shapes.items())
        key = (tuple(proof.inputs.items()), batch, magnitudes, tuple(fetches))
        known = self._choices.get(key)
        if known is None:
            # a proof that leaves dimensions open doesn't know what things cost
            exact = prove(self.graph, proof.inputs, shapes, fetches, self.evaluate)
            layouts = exact if isinstance(exact, BatchProof) else proof
            known = _remember(self._choices, key, self._chosen(layouts, batch))
        return known

    def _chosen(self, proof: BatchProof, batch: int) -> Choice:
        from distort.scheduler.microbatch import PartCosts

        costs = PartCosts(sized(self.graph, proof), self.plan, self.measured, len(os.sched_getaffinity(0)))
        return plan_parts(batch, costs.stage_us, costs.elapsed_us)


def decide(
    graph: Graph,
    feeds: Mapping[str, Any],
    setting: str,
    plan: Plan,
    fetches: Sequence[str] | None = None,
    evaluate: Evaluate | None = None,
) -> Decision:
    """As :meth:`MicroBatches.decide`, for one run."""
    return MicroBatches(graph, plan, setting, evaluate).decide(feeds, graph.outputs if fetches is None else fetches)


def sized(graph: Graph, proof: BatchProof) -> Callable[[int], Graph]:
    """The graph with all sizes that the proof knows of its values, for a number of samples."""

    def of(n_samples: int) -> Graph:
        types = dict(graph.types)
        for name, layout in proof.layouts.items():
            known = types.get(name)
            element = known.element if isinstance(known, TensorType) else 1
            types[name] = TensorType(element, layout.of(n_samples))
        return Graph(graph.name, graph.inputs, graph.outputs, graph.nodes, graph.initializers, types)

    return of


def _explained(batch: int, choice: Choice) -> str:
    from distort.scheduler.device import format_us

    if choice.n_parts < 2:
        return f"a batch of {batch} is not split: no number of parts is predicted to be clearly faster"
    return (
        f"a batch of {batch} runs as {choice.n_parts} parts: predicted {format_us(choice.parts_us)}, "
        f"the whole {format_us(choice.whole_us)}"
    )


def open_shapes(graph: Graph, shapes: Shapes, axes: Axes) -> Shapes:
    """Shapes of feeds without the sizes that the model leaves open, other than of the batch."""
    opened: dict[str, Sequence[int | None] | None] = {}
    for name, shape in shapes.items():
        declared = graph.types.get(name)
        dims = declared.shape if isinstance(declared, TensorType) else None
        if shape is None or dims is None or len(dims) != len(shape):
            opened[name] = shape
            continue
        fixed = [isinstance(dim, int) or i == axes.get(name) for i, dim in enumerate(dims)]
        opened[name] = tuple(size if stays else None for size, stays in zip(shape, fixed, strict=True))
    return opened


def _refused(refusal: Refusal) -> Decision:
    return Decision(None, f"a batch is not split: {refusal}", refusal)


def _is_here(value: Any) -> bool:
    return value is None or isinstance(value, (np.ndarray, np.generic, list, dict))


def _shape(value: Any) -> tuple[int, ...] | None:
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


def _decides(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iub" and value.ndim < 2 and value.size <= _DECIDING


def _remember(kept: dict[Any, _Kept], key: Any, value: _Kept) -> _Kept:
    """Keep what is new; the oldest goes."""
    while len(kept) >= _KEPT:
        del kept[next(iter(kept))]
    kept[key] = value
    return value


__all__ = ["Choice", "Decision", "MicroBatches", "Parts", "decide", "merge", "part_sizes", "plan_parts", "split"]
