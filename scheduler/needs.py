"""Which stages a run needs for the values that it wants, and who reads what among them."""

from __future__ import annotations

from dataclasses import dataclass

from distort.scheduler.plan import CALLER, Plan

#: sets of wanted values remembered; sessions ask for few
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Needs:
    """Of one set of wanted values. Stages are indices of the plan, ascending, which is a topological order."""

    stages: tuple[int, ...]
    producers: dict[int, tuple[int, ...]]  # stages whose values a stage reads
    ancestors: dict[int, tuple[int, ...]]
    descendants: dict[int, tuple[int, ...]]
    reads: dict[int, frozenset[str]]
    feeds: dict[str, tuple[int, ...]]  # values of the caller -> stages that read them
    fetched: dict[int, tuple[str, ...]]  # wanted values that a stage makes
    #: values to let go when a stage and their other readers are done: (value, producer or -1, readers)
    released: dict[int, tuple[tuple[str, int, tuple[int, ...]], ...]]


class NeedsOfPlan:
    """The needs of a plan's runs, remembered by what they want."""

    def __init__(self, plan: Plan) -> None:
        self._inputs = [stage.inputs for stage in plan.stages]
        self._outputs = [stage.outputs for stage in plan.stages]
        self._made_by = {name: index for index, names in enumerate(self._outputs) for name in names}
        self._known: dict[frozenset[str], Needs] = {}

    def of(self, wanted: frozenset[str]) -> Needs:
        known = self._known.get(wanted)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[wanted] = self._find(wanted)
        return known

    def _find(self, wanted: frozenset[str]) -> Needs:
        needed: set[int] = set()
        open_ends = [self._made_by[name] for name in wanted if name in self._made_by]
        while open_ends:
            stage = open_ends.pop()
            if stage not in needed:
                needed.add(stage)
                open_ends += [self._made_by[name] for name in self._inputs[stage] if name in self._made_by]
        stages = tuple(sorted(needed))
        producers: dict[int, tuple[int, ...]] = {}
        ancestors: dict[int, tuple[int, ...]] = {}
        readers: dict[str, list[int]] = {}
        for stage in stages:
            direct = {self._made_by[name] for name in self._inputs[stage] if name in self._made_by}
            producers[stage] = tuple(sorted(direct))
            ancestors[stage] = tuple(sorted(direct.union(*(ancestors[p] for p in direct))))
            for name in self._inputs[stage]:
                readers.setdefault(name, []).append(stage)
        released: dict[int, list[tuple[str, int, tuple[int, ...]]]] = {stage: [] for stage in stages}
        for name, reading in readers.items():
            if name not in wanted:
                for stage in reading:
                    released[stage].append((name, self._made_by.get(name, CALLER), tuple(reading)))
        for stage in stages:
            unread = [name for name in self._outputs[stage] if name not in readers and name not in wanted]
            released[stage] += [(name, stage, ()) for name in unread]
        return Needs(
            stages=stages,
            producers=producers,
            ancestors=ancestors,
            descendants={s: tuple(other for other in stages if s in ancestors[other]) for s in stages},
            reads={s: frozenset(self._inputs[s]) for s in stages},
            feeds={name: tuple(reading) for name, reading in readers.items() if name not in self._made_by},
            fetched={s: tuple(name for name in self._outputs[s] if name in wanted) for s in stages},
            released={s: tuple(values) for s, values in released.items()},
        )
