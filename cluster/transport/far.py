"""Links by NCCL between units whose GPUs are on different hosts: between which, made by calls of both, and why not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from distort.cluster.errors import ClusterError, first_line
from distort.cluster.gpu.links import JOIN_TIMEOUT_S
from distort.cluster.orders import ActorFacts, NcclFacts, StagePayload

#: how long an actor may take to say what there is, and to say that a link can't be had
_FACTS_TIMEOUT_S = 30.0
_ANSWER_TIMEOUT_S = JOIN_TIMEOUT_S + 10.0
#: producing unit, consuming unit
Pair = tuple[int, int]


def pairs_of(
    payloads: Sequence[StagePayload], facts: Sequence[ActorFacts | None], units: Collection[int]
) -> list[Pair]:
    """Pairs of which one is among ``units``, where values go from a GPU to one of another host."""
    found = []
    for producer, one in enumerate(facts):
        for consumer, other in enumerate(facts):
            if producer == consumer or not {producer, consumer} & set(units):
                continue
            if one is None or other is None or not (one.gpu and other.gpu):
                continue
            apart = (one.node, one.network) != (other.node, other.network)
            if apart and set(payloads[producer].outputs) & set(payloads[consumer].graph.inputs):
                found.append((producer, consumer))
    return found


def rounds_of(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """Pairs in rounds, in each of which a unit is at most once: two communicators are never made at once by one."""
    rounds: list[list[Pair]] = []
    for pair in pairs:
        fitting = (r for r in rounds if not any(set(pair) & set(other) for other in r))
        found = next(fitting, None)
        if found is None:
            rounds.append([pair])
        else:
            found.append(pair)
    return rounds


class FarLinks:
    """Of one session: between which units values go by NCCL."""

    def __init__(self) -> None:
        self._why: dict[Pair, str] = {}  # why they don't, of all pairs that might; nothing where they do

    def works(self, producer: int, consumer: int) -> bool:
        return self._why.get((producer, consumer)) == ""

    def join(
        self,
        units: Collection[int],
        payloads: Sequence[StagePayload],
        facts: Sequence[ActorFacts | None],
        actors: Sequence[Any],
    ) -> None:
        """Make those of some units, in place of what they had."""
        self._why = {pair: why for pair, why in self._why.items() if not {*pair} & {*units}}
        pairs = pairs_of(payloads, facts, units)
        if pairs:
            self._why |= join(pairs, actors, facts, [_name(payload) for payload in payloads])

    def cut(self, producer: int, consumer: int, why: str, payloads: Sequence[StagePayload], actor: Any) -> None:
        """One that worked does no more; ``actor`` is the producer's."""
        if self.works(producer, consumer):
            self._why[producer, consumer] = why
            actor.give_up_far.remote(consumer, _name(payloads[consumer]), why)

    def require(self, payloads: Sequence[StagePayload]) -> None:
        """Raises ClusterError where there is none."""
        for (producer, consumer), why in self._why.items():
            if why:
                raise ClusterError(
                    f"distort.strict_placement: values can't go from the GPU of {_name(payloads[producer])} to that of "
                    f"{_name(payloads[consumer])} by NCCL: {why}. distort.strict_placement=0 lets them go by the "
                    "hosts' memory and Ray."
                )


def _name(payload: StagePayload) -> str:
    """What people call a unit."""
    return f"stage{payload.stage}" if payload.unit == payload.stage else f"stage{payload.stage} (unit {payload.unit})"


def join(
    pairs: Sequence[Pair],
    actors: Sequence[Any],
    facts: Sequence[ActorFacts | None],
    names: Sequence[str],
) -> dict[Pair, str]:
    """Make links between actors of Ray's: why there is none, by pair; nothing where there is one."""
    told = _ask({unit: actors[unit].far_facts.remote() for pair in pairs for unit in pair}, _FACTS_TIMEOUT_S)
    outcome = {pair: _obstacle(pair, told, facts, names) for pair in pairs}
    for some in rounds_of(pair for pair, why in outcome.items() if not why):
        links: dict[Pair, Any] = {}
        for producer, consumer in some:
            fact = facts[producer]
            assert fact is not None, "a unit of a pair has said what it is"
            offer = actors[producer].offer_far.remote(consumer, names[consumer], fact.node_ip)
            links[producer, consumer] = actors[consumer].accept_far.remote(offer, names[producer])
        outcome.update(
            (pair, str(answer))
            for pair, answer in _ask(links, _ANSWER_TIMEOUT_S).items()  # errors say why, too
        )
    for (producer, consumer), why in outcome.items():
        if why and isinstance(told.get(producer), NcclFacts):
            actors[producer].give_up_far.remote(consumer, names[consumer], why)
    return outcome


def _obstacle(
    pair: Pair, told: Mapping[int, NcclFacts | str], facts: Sequence[ActorFacts | None], names: Sequence[str]
) -> str:
    """What can be told before anything is tried."""
    known = []  # a name that is cut short (CuPy ends it at a zero) may be another's: where the GPU is counts too
    for unit in pair:
        fact, nccl = facts[unit], told[unit]
        why = nccl if isinstance(nccl, str) else nccl.obstacle
        if why:
            return f"{names[unit]} at {fact.node_ip if fact is not None else '?'}: {why}"
        assert isinstance(nccl, NcclFacts)
        known.append((nccl.uuid, fact.gpu if fact is not None else ""))
    if known[0] == known[1]:
        return (
            f"{names[pair[0]]} and {names[pair[1]]} are on one GPU, and NCCL has no communicator of a GPU with itself"
        )
    return ""


def _ask(calls: Mapping[Any, Any], timeout_s: float) -> dict[Any, Any]:
    """What calls return, each by its key; of those that fail or take too long, what is wrong as text."""
    import ray

    found: dict[Any, Any] = {}
    ready, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s) if calls else ([], [])
    for key, call in calls.items():
        if call not in ready:
            found[key] = f"no answer within {timeout_s:g} s"
            continue
        try:
            found[key] = ray.get(call)
        except ray.exceptions.RayTaskError as error:
            cause: BaseException = error
            while isinstance(cause, ray.exceptions.RayTaskError) and cause.cause is not None:
                cause = cause.cause
            found[key] = first_line(cause)
        except ray.exceptions.RayError as error:
            found[key] = first_line(error)
    return found
