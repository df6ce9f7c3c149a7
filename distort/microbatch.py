"""One run with a large batch as several with parts of it, where the graph is proved to keep samples apart.

Parts follow one another through the stages, so that all of them work at once. More parts fill the pipeline better, and
each costs its calls, a start of every kernel, and reading the weights once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.graph.batch import BatchProof, Refusal, find_batch
from distort.graph.ir import Graph
from distort.graph.passes.context import Evaluate
from distort.graph.types import TensorType

if TYPE_CHECKING:
    from distort.scheduler.plan import Plan

#: parts that the choice considers; more of them gain little where stages are few
MOST_PARTS = 32
#: the predicted time must fall below this part of the whole batch's: predictions aren't exact
WORTH = 0.95
#: feeds of so many integers may decide how a graph runs, such as a sampling rate
_DECIDING = 4
#: proofs kept by shapes of the feeds; a decoder's grow with every step
_KEPT = 64

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


def plan_parts(batch: int, stage_us: StageCosts, elapsed: Callable[[Sequence[float], int], float]) -> Choice:
    """The number of parts that is predicted to end first; 1 where none is clearly faster than the whole.

    ``elapsed`` is the time of so many parts through stages of such costs.
    """
    whole_us = elapsed(stage_us(batch), 1)
    best = Choice(1, whole_us, whole_us)
    costs: dict[int, Sequence[float]] = {}
    for n_parts in range(2, min(batch, MOST_PARTS) + 1):
        size = -(-batch // n_parts)
        if size not in costs:
            costs[size] = stage_us(size)
        # the largest part counts for each; the last ones may be smaller
        parts_us = elapsed(costs[size], n_parts)
        if parts_us < min(best.parts_us, WORTH * whole_us):
            best = Choice(n_parts, parts_us, whole_us)
    return best


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
        if auto and len(self.plan.stages) < 2:
            return Decision(None, "a single stage has nothing to work on beside its part")
        proof, key = self.proof(feeds, fetches)
        if isinstance(proof, Refusal):
            return Decision(None, f"a batch is not split: {proof}", proof)
        away = [n for n, axis in proof.inputs.items() if axis is not None and not isinstance(feeds.get(n), np.ndarray)]
        if away:
            refusal = Refusal("", "", f"the input '{away[0]}' is no array of this process")
            return Decision(None, f"a batch is not split: {refusal}", refusal)
        batch = batch_size(proof, feeds)
        if auto:
            choice = self._choices.get(key)
            if choice is None:
                choice = _remember(self._choices, key, self._chosen(proof, batch))
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

    def proof(self, feeds: Mapping[str, Any], fetches: Sequence[str]) -> tuple[BatchProof | Refusal, Any]:
        """The proof for feeds of these shapes, and the key that it is kept by."""
        shapes = {name: _shape(value) for name, value in feeds.items() if value is not None}
        key: Any = (tuple(shapes.items()), tuple(fetches))
        found = self._proofs.get(key)
        if found is None:
            found = _remember(self._proofs, key, find_batch(self.graph, shapes, fetches, self.evaluate))
        deciding = {name: value for name, value in feeds.items() if _decides(value)}
        if isinstance(found, BatchProof) or not deciding:
            return found, key
        # what those values decide may be what stands in the way
        key = (key, tuple((name, value.tobytes()) for name, value in deciding.items()))
        known = self._proofs.get(key)
        if known is None:
            known = find_batch(self.graph, shapes, fetches, self.evaluate, deciding)
            _remember(self._proofs, key, known if isinstance(known, BatchProof) else found)
        return self._proofs[key], key

    def _chosen(self, proof: BatchProof, batch: int) -> Choice:
        from distort.scheduler.microbatch import PartCosts

        costs = PartCosts(sized(self.graph, proof), self.plan, self.measured)
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


def _shape(value: Any) -> tuple[int, ...] | None:
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


def _decides(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "iub" and value.ndim < 2 and value.size <= _DECIDING


def _remember(kept: dict[Any, Any], key: Any, value: Any) -> Any:
    """Keep what is new; the oldest goes."""
    while len(kept) >= _KEPT:
        del kept[next(iter(kept))]
    kept[key] = value
    return value


__all__ = ["Choice", "Decision", "MicroBatches", "Parts", "decide", "merge", "part_sizes", "plan_parts", "split"]
