"""Graph and devices -> plan: how many stages, cut where, on which devices, and the reasons for people to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from distort.graph.ir import Graph
from distort.scheduler import replication, sharing
from distort.scheduler.branches import BranchClusters
from distort.scheduler.candidate import Candidate, Evaluator
from distort.scheduler.cost import CostModel
from distort.scheduler.device import LINKS, LOCAL, Device, Network, format_nbytes, format_us
from distort.scheduler.errors import PlanError
from distort.scheduler.fit import SEARCHED_NODES
from distort.scheduler.placement import check_memory, device_orders, distinct, without_room_to_export
from distort.scheduler.plan import Plan, Prediction
from distort.scheduler.stages import cut_notes, gap_notes, make_edges, make_stages

OBJECTIVES = ("latency", "throughput", "memory")
#: more stages than this are made only where somebody asks for them, or memory does
MOST_STAGES = 16
#: stages that the planner chooses itself must be predicted to take less than this part of one stage's time
WORTH = 0.9
#: alternatives this close to the best count as equal, and the one with the fewest stages wins
NEAR = 1.02
#: steps of the search for the smallest memory
MEMORY_STEPS = 6


@dataclass(frozen=True, slots=True)
class Terms:
    """What a plan is made for, and what it rests on, whoever cuts."""

    objective: str = "latency"
    dims: Mapping[str, int] | None = None  # sizes of symbolic dimensions
    #: what would otherwise be a note is refused: fewer stages or replicas than asked for, several stages on one device
    strict: bool = False
    model_name: str = ""
    measured: Mapping[int, Mapping[int, float]] | None = None  # µs by threads and node
    measured_nbytes: Mapping[str, int] | None = None  # by value
    link: Network = LINKS
    #: what one stage in the caller's process has: all of the machine's threads, where the devices share them out; None:
    #: the best of the devices
    here: Device | None = None
    cores: int | None = None  # of the caller's host, where its devices share them
    on_host: frozenset[int] = frozenset()  # nodes that no GPU can run
    host: Device | None = None  # a CPU share that may run those, where the devices are GPUs

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"unknown objective {self.objective!r}; known are {', '.join(OBJECTIVES)}")


USUAL = Terms()


def make_plan(
    graph: Graph,
    devices: Sequence[Device],
    terms: Terms = USUAL,
    *,
    n_stages: int | None,
    replicas: int | None = None,
    in_process: bool = False,
    employ: bool = False,
) -> Plan:
    """The plan of a graph for ``devices``, in their order of preference.

    ``n_stages`` None or 0: the planner decides; a number is obeyed while the graph has that many nodes. ``in_process``:
    one stage is asked for, and not on an actor. ``employ``: every device is to have work, as a stage of its own or a
    replica of one, whatever is best for throughput. ``replicas`` is the number of devices for every stage; 0: as many
    as pay; None: the same where throughput is asked for and the number of stages isn't, else 1.

    Raises ValueError for arguments that make no sense, PlanError where no plan fits.
    """
    if n_stages is not None and n_stages < 0:
        raise ValueError(f"the number of stages must not be negative, and is {n_stages}")
    if replicas is not None and replicas < 0:
        raise ValueError(f"the number of replicas must not be negative, and is {replicas}")
    if not devices:
        raise ValueError("a plan needs at least one device")
    if not graph.nodes:
        nothing = ("the graph has no nodes: its outputs are feeds and initializers, and belong to no stage",)
        nowhere = Prediction(0.0, 0.0, 0.0, 0.0)
        return Plan(terms.model_name, terms.objective, (), (), nothing, nowhere, terms.strict, in_process=True)
    planner = _Planner(graph, tuple(devices), terms, replicas)
    if in_process:
        return planner.plan(planner.single)
    if n_stages:
        chosen = planner.obey(n_stages)
    elif employ:
        chosen = planner.employ()
    else:
        chosen = planner.decide()
    return planner.plan(planner.shared(chosen))


def plan_of_stages(
    graph: Graph,
    stage_of: Sequence[int],
    placed: Sequence[Device],
    terms: Terms = USUAL,
    *,
    why: str,
    replicas: Sequence[Sequence[Device]] = (),
    notes: Sequence[str] = (),
    in_process: bool = False,
) -> Plan:
    """The plan of stages that somebody else chose: ``stage_of`` by node, the device of each stage in ``placed``.

    ``replicas`` are further devices of each stage; ``in_process`` wants one stage without. ``why`` says who chose,
    after "2 stages". Raises PlanError where a stage doesn't fit its device.
    """
    devices = tuple({device.id: device for stage in (placed, *replicas) for device in stage}.values())
    planner = _Planner(graph, devices, terms, None)
    planner.notes += notes
    return planner.plan(planner.given(stage_of, placed, replicas, why, in_process))


class _Planner:
    def __init__(self, graph: Graph, devices: tuple[Device, ...], terms: Terms, replicas: int | None) -> None:
        costs = CostModel(graph, terms.dims, terms.measured, terms.measured_nbytes, terms.on_host)
        self.evaluator = Evaluator(graph, costs, terms.link, terms.cores)
        self.graph = graph
        self.dag = self.evaluator.dag
        self.devices = devices
        self.objective = terms.objective
        self.strict = terms.strict
        self.host = terms.host
        self.model_name = terms.model_name
        self.replicas = replicas
        self.notes: list[str] = []
        self._unlike = distinct(devices)
        alone = [self.evaluator.single(device) for device in (self._unlike if terms.here is None else [terms.here])]
        #: everything as one stage, on the device that does it best
        self.single = min(alone, key=self._rank)
        self._alone_text = (
            f"one stage {'in this process' if self.single.in_process else f'on {self.single.placed[0].id}'}"
        )

    # -- how many stages

    def obey(self, n_stages: int) -> Candidate:
        """The best plan of as many stages as asked for."""
        n_nodes, n_devices = len(self.graph.nodes), len(self.devices)
        if n_stages > n_nodes:
            text = f"{n_stages} stages were asked for, and the graph has just {_count(n_nodes, 'node')}"
            if self.strict:
                raise PlanError(f"{text}: stage{n_nodes} would be empty. Ask for {n_nodes} or fewer.")
            self.notes.append(f"{text}: {_count(n_nodes, 'stage')}")
            n_stages = n_nodes
        if self.replicas is not None and self.replicas > 1:
            return self._seated(n_stages, self.replicas)
        if n_stages == 1 and self.replicas != 0:
            self.notes.append("one stage was asked for" if not self.notes else "one stage is all there can be")
            return self._best([self._alone(device) for device in self._unlike])
        if n_stages > n_devices:
            text = f"{n_stages} stages on {_count(n_devices, 'device')}"
            if self.strict:
                raise PlanError(
                    f"{text}: stage{n_stages - 1} would share {self.devices[-1].id} with another stage. Give the plan "
                    "more devices, or ask for fewer stages."
                )
            if all(device.kind == "cuda" for device in self.devices):
                self.notes.append(f"{text}: what a GPU runs is one stage, so there are {n_devices}")
                return self.obey(n_devices)
            self.notes.append(f"{text}: neighbours share one, and wait for each other")
        candidates = [c for order in device_orders(self.devices) for c in self._of(order, n_stages)]
        # stages share a device only where there are too few
        apart = min(n_stages, n_devices)
        candidates += [c for c in self._branches(n_stages) if c.n_stages == n_stages and c.n_devices >= apart]
        chosen = self._best(candidates)
        if self.replicas == 0:
            more = replication.bottleneck(self.evaluator, chosen, self.devices)
            best = min([chosen, *more], key=lambda candidate: candidate.rank("throughput"))
            if best.bottleneck_us < WORTH * chosen.bottleneck_us:
                chosen = best
            else:
                self.notes.append("no replicas: devices that are left over would not make the slowest stage faster")
        self._compare(chosen, "were asked for")
        return chosen

    def decide(self) -> Candidate:
        """The best plan of as many stages as are predicted to pay."""
        if self.replicas is not None and self.replicas > 1:
            return self._seated(None, self.replicas)
        single = self.single
        most = min(len(self.devices), len(self.graph.nodes), MOST_STAGES)
        if single.over_nbytes:
            most = min(len(self.devices), len(self.graph.nodes))
        spreads = self.objective == "throughput" and self.replicas != 1 and len(self.devices) > 1
        if most == 1 and not spreads:
            which = "device" if len(self.devices) == 1 else "node"
            self.notes.append(f"one stage: there is one {which}")
            return single
        if self.replicas == 0 and not spreads:
            self.notes.append(f"no replicas: they answer more runs, and improve no run's {self.objective}")
        if self.objective == "latency" and not single.over_nbytes:
            hop = min(
                (self.evaluator.links.between(None, device) for device in self.devices), key=lambda k: k.latency_us
            )
            least_us = self._critical_path_us() + 2 * hop.latency_us
            if least_us >= WORTH * single.latency_us:
                self.notes.append(
                    f"{self._alone_text}, predicted {format_us(single.latency_us)} a run: no cut can take less "
                    f"than {format_us(least_us)}, the longest path of the graph and two transfers by "
                    f"{hop.transport} ({format_us(hop.latency_us)} each)"
                )
                self._suggest_throughput()
                return single
        cuts = self._cuts(most)
        others: list[Candidate] = []
        if spreads:
            others = replication.whole(self.evaluator, self.devices)
            ordered = [device for group in replication.groups(self.devices) for device in group]
            others += [c for c in replication.spread(self.evaluator, ordered) if c.replicated]
            self._list_alternatives(cuts, others)
        if not [*cuts, *others]:
            self.notes.append(f"{self._alone_text}: no other plan fits the devices")
            return single
        chosen = self._best([*cuts, *others])
        if single.over_nbytes and not chosen.over_nbytes:
            needed, has = format_nbytes(single.peak_nbytes), format_nbytes(single.placed[0].memory_nbytes)
            self.notes.append(f"one stage wants {needed}, and {single.placed[0].id} has {has}")
        elif single.over_nbytes <= chosen.over_nbytes and (
            chosen.score(self.objective) > WORTH * single.score(self.objective)
        ):
            what = f"2 to {most} stages" if not spreads else "the alternatives on actors"
            self.notes.append(
                f"{self._alone_text}: the best of {what} is predicted "
                f"{self._figures(chosen)}, and one stage {self._figures(single)}"
            )
            self._suggest_throughput()
            return single
        self._compare(chosen, f"are best for {self.objective} of 1 to {most}")
        return chosen

    def employ(self) -> Candidate:
        """The best plan for throughput that has something to do for every device."""
        n_devices = len(self.devices)
        if n_devices == 1:
            return self.obey(1)
        ordered = [device for group in replication.groups(self.devices) for device in group]
        cuts: list[Candidate] = []
        if n_devices <= len(self.graph.nodes):
            cuts = [c for order in device_orders(self.devices) for c in self._of(order, n_devices)]
        others = replication.whole(self.evaluator, self.devices)
        others += [c for c in replication.spread(self.evaluator, ordered) if c.replicated]
        others = [c for c in others if c.n_devices == n_devices]
        if not [*cuts, *others]:
            return self.obey(n_devices)
        self._list_alternatives(cuts, others)
        chosen = self._best([*cuts, *others])
        self._compare(chosen, f"are best for {self.objective} on {_count(n_devices, 'actor')}")
        return chosen

    def given(
        self,
        stage_of: Sequence[int],
        placed: Sequence[Device],
        replicas: Sequence[Sequence[Device]],
        why: str,
        in_process: bool,
    ) -> Candidate:
        """The stages that somebody else chose."""
        if in_process:
            chosen = self.single
        else:
            partitioner = self.evaluator.partitioner(placed, replicas)
            partition = partitioner.partition(stage_of, len(placed), order_name="")
            chosen = self.evaluator.candidate(partitioner, partition)
        self._compare(chosen, why)
        return chosen if self.strict else self.shared(chosen)

    def shared(self, chosen: Candidate) -> Candidate:
        """The candidate with one stage a GPU, where that can be, and the host's nodes on the host, where that pays."""
        joined = sharing.merged(self.evaluator, chosen)
        if joined.n_stages < chosen.n_stages:
            self.notes.append(
                f"{chosen.n_stages} stages are {joined.n_stages}: those of one GPU are joined, and pass pointers"
            )
        if self.host is not None and self.evaluator.costs.on_host:
            moved = list(sharing.offloaded(self.evaluator, joined, self.host))
            best = min([joined, *moved], key=self._rank)
            if best is not joined and best.score(self.objective) < WORTH * joined.score(self.objective):
                self._compare(best, "with what no GPU runs on the CPU")
                return best
        return joined

    def _cuts(self, most: int) -> list[Candidate]:
        """Candidates of two to ``most`` stages, one device each."""
        if most < 2:
            return []
        candidates = self._branches(MOST_STAGES)
        for order in device_orders(self.devices):
            if self.objective == "memory":
                candidates += self._of(order, most)
                continue
            partitioner = self.evaluator.partitioner(order)
            for partitions in partitioner.best_up_to(most).values():
                candidates += [self.evaluator.candidate(partitioner, p) for p in partitions if p.n_stages > 1]
        return candidates

    def _seated(self, n_stages: int | None, n_replicas: int) -> Candidate:
        """Stages that all have as many replicas as asked for."""
        wanted = n_stages or 1
        most = max(
            (n for n in range(1, n_replicas + 1) if len(replication.seats(self.devices, n)) >= wanted), default=1
        )
        if most < n_replicas:
            text = (
                f"{n_replicas} replicas of {_count(wanted, 'stage')} want {n_replicas * wanted} devices that are alike"
            )
            if self.strict:
                raise PlanError(f"{text}, and there are {len(self.devices)} devices. Give the plan more of them.")
            self.notes.append(f"{text}: there are {len(self.devices)} devices, so each stage has {most}")
        places = replication.seats(self.devices, most)
        counts = [n_stages] if n_stages else range(1, min(len(places), len(self.graph.nodes), MOST_STAGES) + 1)
        chosen = self._best([c for count in counts for c in replication.seated(self.evaluator, places, count)])
        self._compare(chosen, f"of {_count(most, 'replica')} each")
        return chosen

    def _list_alternatives(self, cuts: Sequence[Candidate], others: Sequence[Candidate]) -> None:
        """What was compared for throughput, with figures."""
        kinds = {
            "cut, one device a stage": [c for c in cuts if not c.over_nbytes],
            "whole replicas of the model": [c for c in others if c.n_stages == 1 and not c.over_nbytes],
            "cut, with replicas of the slowest stages": [c for c in others if c.n_stages > 1 and not c.over_nbytes],
        }
        texts = []
        for what, candidates in kinds.items():
            if candidates:
                best = self._best(candidates)
                size = f"{_count(best.n_stages, 'stage')} on {_count(best.n_devices, 'device')}"
                texts.append(f"{what} ({size}) {best.throughput_per_s:.4g} runs/s")
            else:
                texts.append(f"{what}: none fits" if what != "cut, with replicas of the slowest stages" else "")
        texts.append(f"{self._alone_text} {self.single.throughput_per_s:.4g} runs/s")
        self.notes.append("compared for throughput: " + "; ".join(text for text in texts if text))

    def _suggest_throughput(self) -> None:
        if self.objective == "latency":
            self.notes.append("stages may still pay for many runs in flight: ask for them, or for throughput")

    def _compare(self, chosen: Candidate, why: str) -> None:
        ratio = self.single.score(self.objective) / (chosen.score(self.objective) or 1.0)
        verdict = "a gain" if ratio >= 1 else "a loss"
        stages = f"{chosen.n_stages} stages" if chosen.n_stages > 1 else "one stage"
        if chosen.replicated:
            counts = [1 + len(others) for others in chosen.replicas]
            each = f"{counts[0]}" if len(set(counts)) == 1 else ", ".join(map(str, counts))
            stages += f" on {_count(chosen.n_devices, 'device')} ({each} a stage)"
        self.notes.append(
            f"{stages} {why}: predicted {self._figures(chosen)}; {self._alone_text} "
            f"{self._figures(self.single)} ({verdict}: {ratio:.2f} times as good for {self.objective})"
        )

    def _figures(self, candidate: Candidate) -> str:
        text = f"{format_us(candidate.latency_us)} a run, {candidate.throughput_per_s:.4g} runs/s"
        return f"{text}, {format_nbytes(candidate.peak_nbytes)} on a device" if self.objective == "memory" else text

    # -- candidates

    def _alone(self, device: Device) -> Candidate:
        """Everything as one stage on an actor."""
        partitioner = self.evaluator.partitioner((device,))
        return self.evaluator.candidate(partitioner, partitioner.partition([0] * self.dag.n_nodes, 1))

    def _of(self, order: Sequence[Device], n_stages: int) -> Iterator[Candidate]:
        """Plans of ``n_stages`` that take the devices in ``order``."""
        partitioner = self.evaluator.partitioner(order)
        found = [self.evaluator.candidate(partitioner, partition) for partition in partitioner.best(n_stages)]
        yield from found
        if self.objective == "memory":
            yield from self._smaller(order, n_stages, min(found, key=lambda c: c.peak_nbytes))

    def _smaller(self, order: Sequence[Device], n_stages: int, start: Candidate) -> Iterator[Candidate]:
        """The fastest plans under ever smaller bounds of memory, by bisection below what ``start`` holds."""
        peak_nbytes = start.peak_nbytes
        small = self.dag.n_nodes <= SEARCHED_NODES
        orders = () if small else (start.partition.source,)
        low, high = 0, peak_nbytes
        for _ in range(MEMORY_STEPS):
            middle = (low + high) // 2
            if middle in (low, high):
                return
            bounded = [replace(d, memory_nbytes=min(middle, d.memory_nbytes or middle)) for d in order]
            partitioner = self.evaluator.partitioner(bounded, orders=orders)
            real = {device.id: device for device in order}
            found = [self.evaluator.candidate(partitioner, p, real) for p in partitioner.best(n_stages, fit=small)]
            yield from found
            reached = min(c.peak_nbytes for c in found)
            if reached <= middle:
                high = reached
            else:
                low = middle

    def _branches(self, n_stages: int) -> list[Candidate]:
        """Plans of up to ``n_stages`` that let branches of one run work side by side. Just for latency."""
        if self.objective != "latency" or len(self.devices) < 2:
            return []
        candidates = []
        for clustering in BranchClusters(
            self.dag, self.evaluator.node_us(self.devices), self.devices, self.evaluator.links
        ).up_to(n_stages):
            placed = [self.devices[device] for device in clustering.devices]
            partitioner = self.evaluator.partitioner(placed)
            partition = partitioner.partition(clustering.stage_of, len(placed), "branches side by side")
            candidates.append(self.evaluator.candidate(partitioner, partition))
        return candidates

    def _rank(self, candidate: Candidate) -> tuple[int, float, float]:
        return candidate.rank(self.objective)

    def _best(self, candidates: Sequence[Candidate]) -> Candidate:
        best = min(candidates, key=self._rank)
        limit = best.score(self.objective) * NEAR
        near = [c for c in candidates if c.over_nbytes <= best.over_nbytes and c.score(self.objective) <= limit]
        if self.objective == "latency":
            # one run takes as long wherever a chain is cut, and many runs in flight gain by balance
            return min(near, key=lambda c: (c.n_stages, c.over_nbytes, c.bottleneck_us, c.latency_us))
        return min(near, key=lambda c: (c.n_stages, *self._rank(c)))

    def _critical_path_us(self) -> float:
        """The longest path through the graph, each node on the device that is fastest for it."""
        times = self.evaluator.node_us(self._unlike)
        ended: list[float] = []
        for node, before in enumerate(self.dag.predecessors):
            fastest = min(row[node] for row in times)
            ended.append(max((ended[other] for other in before), default=0.0) + fastest)
        return max(ended)

    # -- the result

    def plan(self, chosen: Candidate) -> Plan:
        """Raises PlanError where a stage doesn't fit its device."""
        partition, placed = chosen.partition, chosen.placed
        check_memory(self.dag, partition.loads, placed, self.devices, chosen.replicas)
        costs = self.evaluator.costs
        stages = make_stages(self.graph, self.dag, partition, placed, chosen.replicas)
        edges = make_edges(self.graph, costs, stages, LOCAL if chosen.in_process else self.evaluator.links)
        notes = list(self.notes)
        if full := without_room_to_export(partition.loads, placed, chosen.replicas):
            text = "not all that other GPUs read of it has room there beside: what hasn't goes by the host's memory"
            notes.append(f"{', '.join(full)}: {text}")
        if len(stages) > 1:
            notes += cut_notes(partition, self.dag)
        cores = self.evaluator.cores
        here = {d.id: d.threads for s in stages for d in s.devices if d.kind == "cpu" and not d.host}
        if cores is not None and sum(here.values()) > cores and not chosen.in_process:
            notes.append(f"{_count(len(here), 'actor')} share the {_count(cores, 'core')} of this machine")
        bases: dict[str, list[str]] = {}
        for device in distinct([*placed, *self.single.placed]):
            bases.setdefault(costs.basis(device), []).append(device.id)
        notes += [f"costs of nodes on {', '.join(dict.fromkeys(ids))}: {basis}" for basis, ids in bases.items()]
        if on_gpus := [n for s in stages if s.device.kind == "cuda" for n in s.nodes if n in costs.on_host]:
            notes.append(sharing.on_host_note(self.graph, on_gpus))
        if far := sharing.far_note(stages, edges):
            notes.append(far)
        notes += gap_notes(self.graph, costs, self.dag)
        predicted = Prediction(
            latency_us=chosen.latency_us,
            bottleneck_us=chosen.bottleneck_us,
            throughput_per_s=1e6 / chosen.bottleneck_us if chosen.bottleneck_us > 0 else 0.0,
            single_latency_us=self.single.latency_us,
        )
        name, why = self.model_name, tuple(notes)
        return Plan(name, self.objective, stages, edges, why, predicted, self.strict, chosen.in_process)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
