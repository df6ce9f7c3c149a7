"""Which units are linked by NCCL, and what is said where they are not."""

from __future__ import annotations

import pickle
from dataclasses import replace

from distort.cluster.errors import SenderLost
from distort.cluster.orders import ActorFacts, NcclFacts, StagePayload
from distort.cluster.resources import Connection
from distort.cluster.shm.outgoing import picklable
from distort.cluster.transport import far
from distort.cluster.transport.actors import ActorTransport
from distort.graph.ir import Graph


def payload(unit: int, inputs: list[str], outputs: tuple[str, ...]) -> StagePayload:
    return StagePayload("s", unit, Graph("g", inputs, list(outputs)), outputs, 1, unit=unit)


def fact(node: str, gpu: str = "0000:01:00.0", network: str = "n") -> ActorFacts:
    return ActorFacts(1, node, f"ip of {node}", network, "endpoint", 1, gpu)


PAYLOADS = [payload(0, ["x"], ("a",)), payload(1, ["a"], ("b",)), payload(2, ["a", "b"], ("y",))]


def test_pairs_are_gpus_of_different_hosts_of_which_one_reads_the_other() -> None:
    one, other = fact("one"), fact("other")
    assert far.pairs_of(PAYLOADS, [one, other, one], range(3)) == [(0, 1), (1, 2)]
    assert far.pairs_of(PAYLOADS, [one, other, one], [2]) == [(1, 2)]
    assert far.pairs_of(PAYLOADS, [one, one, one], range(3)) == []
    assert far.pairs_of(PAYLOADS, [one, replace(one, network="other"), one], range(3)) == [(0, 1), (1, 2)]
    assert far.pairs_of(PAYLOADS, [one, replace(other, gpu=""), one], range(3)) == []
    assert far.pairs_of(PAYLOADS, [one, None, other], range(3)) == [(0, 2)]


def test_in_a_round_a_unit_is_at_most_once() -> None:
    pairs = [(0, 1), (0, 2), (1, 2), (3, 4), (2, 3)]
    rounds = far.rounds_of(pairs)
    assert sorted(pair for some in rounds for pair in some) == sorted(pairs)
    for some in rounds:
        units = [unit for pair in some for unit in pair]
        assert len(units) == len(set(units))
    assert rounds[0] == [(0, 1), (3, 4)]


def test_what_can_be_told_before_anything_is_tried() -> None:
    there = NcclFacts("2.32.3", "", b"1")
    facts, names = [fact("one"), fact("other")], ["stage0", "stage1"]

    def why(one: NcclFacts | str, other: NcclFacts | str) -> str:
        return far._obstacle((0, 1), {0: one, 1: other}, facts, names)

    assert why(there, replace(there, uuid=b"2")) == ""
    assert "stage0 and stage1 are on one GPU" in why(there, there)
    assert why(there, NcclFacts("", "NCCL is not installed", b"2")) == "stage1 at ip of other: NCCL is not installed"
    assert why("no answer within 30 s", there) == "stage0 at ip of one: no answer within 30 s"


def test_that_a_value_can_not_come_travels_and_says_of_nobody_that_he_is_lost() -> None:
    error = SenderLost("A value can't come.", 3)
    for copy in (pickle.loads(pickle.dumps(error)), picklable(error)):
        assert type(copy) is SenderLost and str(copy) == "A value can't come." and copy.unit == 3
    transport = ActorTransport(Connection("", "embedded", 1.0))
    assert transport.lost_unit(error, 1) is None
    transport.close()
