"""A program's plans by the types of feeds, and what earlier runs have taught about those."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort.graph.ir import Graph
from distort.kernels.compiler.constants import Constants
from distort.kernels.cuda import faults
from distort.kernels.cuda.context import Context
from distort.kernels.cuda.executable import Executable
from distort.kernels.cuda.modules import NotCompiled
from distort.kernels.cuda.plan import CudaPlan, plan_of
from distort.kernels.cuda.weights import is_planned
from distort.kernels.errors import KernelError

if TYPE_CHECKING:
    from distort.kernels.compiler.specialise import FeedType

#: whether an error in making a plan is raised: for tests
STRICT = False
#: plans that are kept, those used last
MOST_PLANS = 64
Key = tuple["FeedType", ...]


class Plans:
    """Of a graph with these outputs, on one GPU. Not thread-safe."""

    def __init__(
        self, graph: Graph, inputs: Sequence[str], outputs: Sequence[str], context: Context, constants: Constants
    ) -> None:
        self._graph, self._inputs, self._outputs = graph, inputs, outputs
        self._context = context
        self._constants = constants
        self._made: OrderedDict[Key, Executable] = OrderedDict()
        self._learned: dict[Key, dict[str, tuple[np.dtype[Any], tuple[int, ...]]]] = {}
        self._branches: dict[Key, dict[str, bool]] = {}
        self._volatile: set[str] = set()
        self._cautious: set[Key] = set()
        self._unsteady: set[Key] = set()
        #: feeds for which there is no plan, and why; of errors of ours in making one, tracebacks
        self.refused: dict[Key, str] = {}
        self.faults: dict[Key, str] = {}
        #: seconds spent on plans
        self.compile_s = 0.0

    def __iter__(self) -> Iterator[Executable]:
        return iter(self._made.values())

    def clear(self) -> None:
        """Let go of all plans, with what they have of the GPU."""
        self._made.clear()

    def rows(self) -> list[tuple[Key, CudaPlan]]:
        """By types of feeds, in the order of ``inputs``; the one that was made last comes last."""
        return [(key, executable.plan) for key, executable in self._made.items()]

    def of(self, key: Key) -> Executable | None:
        """The plan for feeds; None where there is an error of ours in making it."""
        found = self._made.get(key)
        if found is not None:
            self._made.move_to_end(key)
            return found
        if key in self.refused:
            return None
        for name, kind in zip(self._inputs, key, strict=True):
            if kind is not None and kind[0].kind not in "OUST" and not is_planned(kind[0]):
                # nodes take it by themselves: as bytes in the slab it would be another dtype to them
                self.refused[key] = f"the feed '{name}' is {kind[0]}, of which a GPU has no arrays"
                return None
        began = time.perf_counter()
        try:
            found = Executable(self._plan(key), self._context, self._constants.has)
        except Exception as error:
            if STRICT or (isinstance(error, KernelError) and not isinstance(error, NotCompiled)):
                raise
            self.give_up(key, error)
            return None
        self._made[key] = found
        while len(self._made) > MOST_PLANS:
            self._made.popitem(last=False)
        self.compile_s += time.perf_counter() - began
        return found

    def _plan(self, key: Key) -> CudaPlan:
        return plan_of(
            self._graph,
            self._outputs,
            self._inputs,
            key,
            self._context,
            self._constants,
            self._learned.get(key, {}),
            key in self._cautious,
            key not in self._unsteady,
            self._branches.get(key),
        )

    def give_up(self, key: Key, error: Exception) -> None:
        """There is no plan for these feeds: nodes run one at a time, and ``explain`` says why."""
        self.refused[key], self.faults[key] = faults.told(error), faults.whole(error)
        self._made.pop(key, None)

    # -- what runs teach

    def learns(self, key: Key, plan: CudaPlan) -> bool:
        """Whether what a run with the plan shows is of interest."""
        return bool(plan.unknown) and key not in self._learned

    def learn(self, key: Key, named: Mapping[str, Any], branches: Mapping[str, bool]) -> None:
        """Take note of shapes that nobody could tell: the next run has a plan that goes by them."""
        found = {
            name: (np.dtype(value.dtype), tuple(value.shape))
            for name, value in named.items()
            if name not in self._volatile and hasattr(value, "shape") and is_planned(np.dtype(value.dtype))
        }
        self._branches[key] = dict(branches)
        self._learned[key] = found
        if found:
            self._made.pop(key, None)

    def forget(self, key: Key, name: str) -> None:
        """A value has another shape than was learned: it is not learned again."""
        self._volatile.add(name)
        self._learned.pop(key, None)
        self._made.pop(key, None)

    def take_less_for_likely(self, key: Key, *, expects: bool) -> None:
        """The next plan for such feeds doesn't guess; or, with ``expects``, doesn't expect what earlier runs showed."""
        (self._unsteady if expects else self._cautious).add(key)
        self._made.pop(key, None)


def obstacles(executables: Iterable[Executable]) -> list[str]:
    """Why runs of plans that could be a graph are none."""
    return list(dict.fromkeys(e.obstacle for e in executables if e.obstacle))


__all__ = ["MOST_PLANS", "Key", "Plans", "obstacles"]
