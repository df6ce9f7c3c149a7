"""How the values of a run go, for wirings of stages and hosts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest

from distort.cluster.routes import Leg, RunKind, make_route
from distort.scheduler.device import cpu
from distort.scheduler.needs import NeedsOfPlan
from distort.scheduler.plan import CALLER, Edge, Plan, Prediction, Stage

Wiring = Sequence[tuple[Sequence[str], Sequence[str]]]
#: stages 0 and 1 both feed stage 2, which also reads the caller's z
JOIN: Wiring = [(["x"], ["a"]), (["a"], ["b"]), (["a", "b", "z"], ["y"])]


def plan_of(wiring: Wiring, fetched: Sequence[str]) -> Plan:
    made_by = {name: i for i, (_, outputs) in enumerate(wiring) for name in outputs}
    stages = tuple(
        Stage(f"stage{i}", i, (i,), (f"n{i}",), cpu(i), tuple(ins), tuple(outs), 1.0, 0, 0)
        for i, (ins, outs) in enumerate(wiring)
    )
    edges = [Edge(name, made_by.get(name, CALLER), i, 8, "shm") for i, (ins, _) in enumerate(wiring) for name in ins]
    edges += [Edge(name, made_by[name], CALLER, 8, "shm") for name in fetched]
    return Plan("wired", "latency", stages, tuple(edges), (), Prediction(1.0, 1.0, 1.0, 1.0))


def route(
    wiring: Wiring,
    fetches: Sequence[str],
    linked: Callable[[int, int], bool] = lambda one, other: True,
    *,
    keep: Sequence[str] = (),
    resident: dict[str, int] | None = None,
    profile: bool = False,
    far: Callable[[int, int], bool] = lambda producer, consumer: False,
) -> dict[int, Leg]:
    plan = plan_of(wiring, fetches)
    needs = NeedsOfPlan(plan).of(frozenset(fetches))
    kind = RunKind(
        frozenset(fetches),
        tuple(fetches),
        frozenset(keep),
        frozenset({"x", "z"}),
        resident or {},
        profile,
        False,
    )
    inputs = [stage.inputs for stage in plan.stages]
    outputs = [stage.outputs for stage in plan.stages]
    units = {stage: stage for stage in needs.stages}
    return make_route(kind, units, needs, inputs, outputs, linked, itertools.count(1), far)


def test_on_one_host_all_goes_by_mail() -> None:
    legs = route(JOIN, ["y"])
    assert all(leg.direct for leg in legs.values())
    assert legs[0].order.sends == ((1, ("a",)), (2, ("a",)))
    assert legs[1].order.mail == ("a",) and legs[1].order.inputs == ()
    assert legs[2].order.mail == ("a", "b") and legs[2].order.inputs == ("z",)
    assert legs[2].order.results == ("y",)
    assert not any(leg.order.returns for leg in legs.values())


def test_an_order_without_feeds_goes_with_a_stage_before() -> None:
    legs = route(JOIN, ["y"])
    assert [leg.forwarded for leg in legs.values()] == [False, True, False]
    assert legs[0].order.forwards == ((1, legs[1].number),)


def test_only_who_has_something_to_tell_reports() -> None:
    assert [leg.order.silent for leg in route(JOIN, ["y"]).values()] == [True, True, False]
    assert [leg.order.silent for leg in route(JOIN, ["y", "a"]).values()] == [False, True, False]
    assert [leg.order.silent for leg in route(JOIN, ["y", "b"], keep=["b"]).values()] == [True, False, False]
    assert not any(leg.order.silent for leg in route(JOIN, ["y"], profile=True).values())


def test_only_needed_stages_have_a_leg() -> None:
    legs = route(JOIN, ["b"])
    assert sorted(legs) == [0, 1]
    assert legs[0].order.sends == ((1, ("a",)),)


def test_kept_values_stay() -> None:
    legs = route(JOIN, ["y", "a"], keep=["a", "y"])
    assert legs[0].order.keep == ("a",) and legs[0].order.results == ()
    assert legs[2].order.keep == ("y",) and legs[2].order.results == ()


def test_without_links_all_goes_by_reference() -> None:
    legs = route(JOIN, ["y"], lambda one, other: False)
    assert not any(leg.direct or leg.order.mail or leg.order.sends for leg in legs.values())
    assert legs[0].order.returns == ("a",)
    assert legs[2].order.inputs == ("a", "b", "z") and legs[2].order.returns == ("y",)


def hosts(**of: str) -> Callable[[int, int], bool]:
    """The caller is on host a."""
    names = {CALLER: "a", **{int(unit[1:]): host for unit, host in of.items()}}
    return lambda one, other: names[one] == names[other]


def test_across_hosts_values_go_by_reference_and_inside_one_by_mail() -> None:
    legs = route(JOIN, ["y"], hosts(u0="a", u1="b", u2="b"))
    # stage 0 shares this host, and hands references to another: it is called
    assert [leg.direct for leg in legs.values()] == [False, False, False]
    assert legs[0].order.returns == ("a",) and legs[0].order.sends == ()
    assert legs[1].order.inputs == ("a",) and legs[1].order.sends == ((2, ("b",)),)
    assert legs[2].order.inputs == ("a", "z") and legs[2].order.mail == ("b",)
    assert legs[2].order.returns == ("y",)


def test_a_branch_on_this_host_is_direct_though_another_is_not() -> None:
    wiring: Wiring = [(["x"], ["a"]), (["z"], ["b"])]
    legs = route(wiring, ["a", "b"], hosts(u0="a", u1="b"))
    assert legs[0].direct and legs[0].order.results == ("a",)
    assert not legs[1].direct and legs[1].order.returns == ("b",)


@pytest.mark.parametrize(("holder", "direct"), [(0, True), (2, False)])
def test_a_feed_that_lies_on_another_actor_needs_a_call(holder: int, direct: bool) -> None:
    legs = route(JOIN, ["y"], resident={"x": holder})
    assert legs[0].direct is direct


def test_orders_have_numbers_of_their_own() -> None:
    legs = route(JOIN, ["y"])
    assert sorted(leg.number for leg in legs.values()) == [1, 2, 3]


def test_from_a_gpu_to_one_of_another_host_values_are_announced() -> None:
    """Stages 0 and 2 are on one host; who is told of a value is told once, and what is fetched comes by itself."""
    linked = hosts(u0="b", u1="c", u2="b")

    def far(producer: int, consumer: int) -> bool:
        return producer != CALLER and not linked(producer, consumer)

    legs = route(JOIN, ["y", "a"], linked, far=far)
    assert legs[0].order.announces == (("a", (1,)),) and legs[0].order.sends == ((2, ("a",)),)
    assert legs[0].order.returns == ("a",)  # for the caller
    assert legs[1].far == {"a"} and legs[1].order.inputs == ("a",)
    assert legs[1].order.announces == (("b", (2,)),) and legs[1].order.returns == ()
    assert legs[2].far == {"b"} and legs[2].order.mail == ("a",)
    assert not any(leg.direct for leg in legs.values())
    assert set(legs[1].order.outputs) == {"b"}


def test_a_value_for_several_hosts_is_announced_to_all_that_have_a_link() -> None:
    wiring: Wiring = [(["x"], ["a"]), (["a"], ["b"]), (["a"], ["c"]), (["a", "b", "c"], ["y"])]
    legs = route(wiring, ["y"], lambda one, other: False, far=lambda producer, consumer: consumer != 3)
    assert legs[0].order.announces == (("a", (1, 2)),)
    assert legs[0].order.returns == ("a",) and legs[3].far == frozenset()
