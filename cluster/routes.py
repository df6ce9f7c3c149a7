"""How the values of a run go: by mail between actors of one host, with the call, or by reference. Pure.

A route depends on what is fetched and kept, on what is fed and where it lies, and on the units chosen. Runs of one
kind share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from distort.cluster.orders import ExecuteOrder
from distort.scheduler.needs import Needs
from distort.scheduler.plan import CALLER


@dataclass(frozen=True, slots=True)
class Leg:
    """One stage's part of a route."""

    order: ExecuteOrder
    #: the order's number among all that a session gives
    number: int
    #: the order goes over the socket; else it is a call
    direct: bool
    #: a stage before it passes the order on, with its values
    forwarded: bool = False
    #: of its inputs, those that come as FarValue
    far: frozenset[str] = frozenset()
    #: stages before it that say nothing by themselves: done, where this one is
    implied: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class RunKind:
    """What runs that share a route on the same units have in common. There is one of each kind: two are never equal."""

    wanted: frozenset[str]
    fetches: tuple[str, ...]
    keep: frozenset[str]
    fed: frozenset[str]
    resident: Mapping[str, int]  # feeds that lie on units
    profile: bool
    path_only: bool


def make_route(
    kind: RunKind,
    unit_of: Mapping[int, int],
    needs: Needs,
    inputs: Sequence[Sequence[str]],
    outputs: Sequence[Sequence[str]],
    linked: Callable[[int, int], bool],
    numbers: Iterator[int],
    far: Callable[[int, int], bool] = lambda producer, consumer: False,
) -> dict[int, Leg]:
    """The legs of the stages that a run needs, on the units chosen.

    ``linked`` tells whether two units (-1: the caller) share memory, ``far`` whether one unit's values go
    to another by NCCL.
    """
    held = kind.resident
    producer = {name: stage for stage in needs.stages for name in outputs[stage]}
    readers: dict[str, list[int]] = {}
    for stage in needs.stages:
        for name in inputs[stage]:
            readers.setdefault(name, []).append(stage)
    crossing = {name for name in readers if name in producer}
    fetched = frozenset(kind.fetches)

    def by_mail(name: str, reader: int) -> bool:
        """Whether a value that another stage makes comes by itself."""
        return linked(unit_of[producer[name]], unit_of[reader])

    def by_nccl(name: str, reader: int) -> bool:
        return far(unit_of[producer[name]], unit_of[reader])

    legs: dict[int, Leg] = {}
    for stage in needs.stages:
        unit = unit_of[stage]
        outgoing = [(name, reader) for name in outputs[stage] if name in crossing for reader in readers[name]]
        mail = tuple(name for name in inputs[stage] if name in producer and by_mail(name, stage))
        others = tuple(name for name in inputs[stage] if name not in mail and (name in producer or name in kind.fed))
        direct = (
            linked(CALLER, unit)
            and not any(name in producer for name in others)
            and all(held.get(name, unit) == unit for name in others)
            and all(by_mail(name, reader) for name, reader in outgoing)
        )
        given = tuple(name for name in outputs[stage] if name in fetched and name not in kind.keep)
        sends: dict[int, dict[str, None]] = {}
        referred: dict[str, None] = {}
        announced: dict[str, dict[int, None]] = {}
        for name, reader in outgoing:
            if by_mail(name, reader):
                sends.setdefault(unit_of[reader], {})[name] = None
            elif by_nccl(name, reader):
                announced.setdefault(name, {})[unit_of[reader]] = None
            else:
                referred[name] = None
        if not direct:
            referred.update(dict.fromkeys(given))
        keep = tuple(name for name in outputs[stage] if name in kind.keep and name in fetched)
        results = given if direct else ()
        legs[stage] = Leg(
            ExecuteOrder(
                inputs=others,
                returns=tuple(referred),
                keep=keep,
                mail=mail,
                sends=tuple((to, tuple(names)) for to, names in sends.items()),
                announces=tuple((name, tuple(units)) for name, units in announced.items()),
                results=results,
                profile=kind.profile,
                path_only=kind.path_only,
                report=not direct or bool(keep) or kind.profile,
                silent=direct and bool(outgoing) and not (results or keep or kind.profile),
            ),
            next(numbers),
            direct,
            far=frozenset(
                name for name in others if name in producer and not by_mail(name, stage) and by_nccl(name, stage)
            ),
        )
    _forward(legs, needs, unit_of)
    for stage, leg in legs.items():
        silent = tuple(other for other in needs.ancestors[stage] if legs[other].order.silent)
        legs[stage] = replace(leg, implied=silent)
    return legs


def _forward(legs: dict[int, Leg], needs: Needs, unit_of: Mapping[int, int]) -> None:
    """An order that brings no values of the caller's goes with those of a stage before: one message less, each run."""
    passed_on: dict[int, list[tuple[int, int]]] = {}
    for stage, leg in legs.items():
        before = [other for other in needs.producers[stage] if legs[other].direct]
        if leg.direct and before and not leg.order.inputs:
            legs[stage] = replace(leg, forwarded=True)
            passed_on.setdefault(before[0], []).append((unit_of[stage], leg.number))
    for stage, orders in passed_on.items():
        legs[stage] = replace(legs[stage], order=replace(legs[stage].order, forwards=tuple(orders)))
