"""Measure a model's throughput and latency, in this process or on actors.

Inputs that nobody feeds are made of their declared shapes: floats at random, indices within their table, other integers
1; --dim gives symbolic dimensions a size. --against runs a rival in turns with distort. In a terminal a table is live:
busy and waiting actors, queues, bytes by edge.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distort.cli import console
from distort.cli.arguments import add_session, count, dimension, open_session, positive, seconds, session_options
from distort.cli.errors import OK, TaskFailed, UsageError

if TYPE_CHECKING:
    from distort.cli.workload import Stretch
    from distort.cluster.activity import Snapshot
    from distort.cluster.executor import Executor
    from distort.options import SessionOptions
    from distort.session import InferenceSession

#: stretches of each side, in turns, where there is a rival
_TURNS = 5
#: of the time, what is spent before anything is measured
_WARM_UP = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session(parser)
    parser.add_argument("--threads", type=count, default=0, metavar="T", help="threads of each actor (0: as always)")
    parser.add_argument("--in-flight", type=positive, metavar="K", help="runs at once (1; with --parallel 2 an actor)")
    parser.add_argument("--seconds", type=seconds, default=5.0, metavar="S", help="how long to measure (5)")
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        metavar="NAME=SIZE",
        help="a dimension's size (1), by name or as x:2=48",
    )
    parser.add_argument(
        "--objective", choices=("latency", "throughput"), default="throughput", help="of the cut (throughput)"
    )
    parser.add_argument("--against", choices=("onnxruntime",), help="run a rival in turns, with as many threads")
    parser.add_argument(
        "--config", action="append", default=[], metavar="KEY=VALUE", help="a session config entry; may be repeated"
    )
    parser.add_argument("--profile", action="store_true", help="name the nodes that take the time")
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON")


@dataclass(slots=True)
class Side:
    """One of those that are measured: what makes a run, and how its turns went."""

    name: str
    run: Callable[[], object]
    turns: list[Stretch] = field(default_factory=list)

    @property
    def latencies_s(self) -> list[float]:
        return [latency for turn in self.turns for latency in turn.latencies_s]

    @property
    def runs_per_s(self) -> float:
        """The median of its turns."""
        return statistics.median(turn.runs_per_s for turn in self.turns)

    def as_dict(self) -> dict[str, Any]:
        from distort.cli.activity import PERCENTILES
        from distort.cluster.activity import percentiles

        times = percentiles(self.latencies_s, PERCENTILES)
        latency = {f"p{of}": s * 1e3 for of, s in zip(PERCENTILES, times, strict=True)}
        return {"runs": len(self.latencies_s), "runs_per_s": self.runs_per_s, "latency_ms": latency}


def run(arguments: argparse.Namespace) -> int:
    from distort.cli import nodes, workload

    options = session_options(arguments)
    rival = _module(arguments.against) if arguments.against else None
    in_flight = arguments.in_flight or (1 if arguments.parallel is None else max(2, 2 * arguments.parallel))
    _configure(options, arguments, in_flight)
    with console.progress(f"loading {arguments.model}"):
        session = open_session(arguments.model, options)
    screen = console.Screen()
    with session:
        executor = session._sess._loaded.engine.executor
        n_stages = len(session.plan.stages) if executor is not None else 1
        feeds, made = _feeds(session, arguments)
        sides = [Side("distort", lambda: session.run(None, feeds))]
        if rival is not None:
            threads = arguments.threads * n_stages
            with console.progress(f"loading {arguments.model} with {arguments.against}"):
                sides.append(_rival(rival, arguments.model, threads, feeds))
        turns = _TURNS if rival is not None else 1
        with console.progress("warming up"):
            for side in sides:
                _first_run(side, made)
                workload.keep_running(side.run, in_flight, arguments.seconds * _WARM_UP, at_least=in_flight)
        watch = Watch(screen, executor, f"{arguments.model}: {in_flight} in flight", arguments.json)
        with watch:
            for _ in range(turns):
                for side in sides:
                    watch.turn(side)
                    on_tick = watch.tick if side is sides[0] else None
                    a_turn = arguments.seconds / turns / len(sides)
                    stretch = workload.keep_running(side.run, in_flight, a_turn, at_least=in_flight, on_tick=on_tick)
                    watch.end_turn()
                    side.turns.append(stretch)
        measured = Measured(
            arguments.model,
            n_stages,
            0 if executor is None else len(executor.hosts),
            arguments.threads,
            in_flight,
            made,
            sides,
            watch,
            nodes.measure(session, feeds, arguments.seconds) if arguments.profile else None,
            session.plan.notes if executor is None and arguments.parallel is not None else (),
        )
    if arguments.json:
        console.print_json(measured.as_dict())
    else:
        screen.show(measured.blocks())
    return OK


@dataclass(slots=True)
class Measured:
    """All that is told at the end."""

    model: str
    n_stages: int
    n_actors: int
    threads: int
    in_flight: int
    made_feeds: list[str]
    sides: list[Side]
    watch: Watch
    nodes: list[dict[str, Any]] | None
    notes: Sequence[str]  # why there are no actors, where some were asked for

    @property
    def ratio(self) -> float | None:
        """distort's throughput by the rival's."""
        return self.sides[0].runs_per_s / self.sides[1].runs_per_s if len(self.sides) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        from distort.cli import activity

        told: dict[str, Any] = {
            "model": self.model,
            "stages": self.n_stages,
            "actors": self.n_actors,
            "threads": self.threads,
            "in_flight": self.in_flight,
            "made_feeds": self.made_feeds,
            "notes": list(self.notes),
            **self.sides[0].as_dict(),
        }
        if self.watch.period is not None:
            told["activity"] = activity.as_dict(self.watch.period, self.watch.queued)
        for side in self.sides[1:]:
            told["rival"] = {"name": side.name, **side.as_dict(), "ratio": self.ratio}
        if self.nodes is not None:
            told["nodes"] = self.nodes
        return told

    def blocks(self) -> list[console.Block]:
        from distort.cli import activity, nodes

        where = "on actors" if self.n_actors else "in this process"
        heading = f"{self.model}: {self.n_stages} stage{'' if self.n_stages == 1 else 's'} {where}, "
        heading += f"{self.in_flight} in flight"
        lines = [activity.rate_line(self.sides[0].runs_per_s, self.sides[0].latencies_s)]
        found = [console.Block(heading, lines)]
        if self.notes:
            found.append(console.Block("Why there are no actors", [f"- {note}" for note in self.notes]))
        if self.watch.period is not None:
            found += activity.blocks(heading, self.watch.period, (), self.watch.queued)[1:]
        for side in self.sides[1:]:
            line = activity.rate_line(side.runs_per_s, side.latencies_s)
            said = f"distort's throughput is {self.ratio:.3g} of it (medians of {len(side.turns)} turns)"
            found.append(console.Block(side.name, [line, said]))
        if self.nodes is not None:
            found += nodes.blocks(self.nodes)
        return found


def _configure(options: SessionOptions, arguments: argparse.Namespace, in_flight: int) -> None:
    options.intra_op_num_threads = arguments.threads
    options.log_severity_level = 4  # errors are told by the command itself
    if arguments.parallel is not None:
        options.add_session_config_entry("distort.max_in_flight", str(in_flight))
        options.add_session_config_entry("distort.objective", arguments.objective)
    for text in arguments.config:
        key, separator, value = text.partition("=")
        if not separator:
            raise UsageError(f"--config {text}: write KEY=VALUE, as distort.replicas=2")
        options.add_session_config_entry(key, value)


def _feeds(session: InferenceSession, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Feeds, and the names of those that were made."""
    from distort.cli import arrays
    from distort.sample_feeds import Guess, NoSample, check_dims, sample

    wanted = session.get_inputs()
    feeds: dict[str, Any] = {**arrays.read_inputs(arguments.input, [*wanted, *session.get_overridable_initializers()])}
    dims = dict(dimension(text) for text in arguments.dim)
    missing = [a.name for a in wanted if a.name not in feeds and not a.type.startswith("optional")]
    graph = session._sess._loaded.engine.model.graph
    try:
        check_dims(graph, dims, missing)
        made = sample(graph, dims, Guess(1, 1), missing)
    except NoSample as error:
        raise UsageError(str(error)) from error
    return feeds | made, list(made)


def _first_run(side: Side, made: list[str]) -> None:
    """One run. Raises TaskFailed where the model doesn't take the feeds that were made."""
    try:
        side.run()
    except Exception as error:
        if not made:
            raise
        from distort.errors import text_of

        raise TaskFailed(
            f"{side.name} does not run on feeds made of declared shapes ({', '.join(made)}): {text_of(error)}. Give "
            "sizes with --dim NAME=SIZE, or feeds with --input NAME=FILE."
        ) from error


def _module(name: str) -> Any:
    """A rival's module, which nothing else here imports."""
    from importlib import import_module

    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise TaskFailed(f"--against {name}: it is not installed here. pip install {name}") from error


def _rival(module: Any, model: str, threads: int, feeds: dict[str, Any]) -> Side:
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        session = module.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a rival's own classes
        raise TaskFailed(f"{module.__name__} does not load {model}: {error}") from error
    return Side(f"{module.__name__} {module.__version__}", lambda: session.run(None, feeds))


class Watch:
    """What actors do meanwhile: a live table in a terminal, the whole period afterwards."""

    def __init__(self, screen: console.Screen, executor: Executor | None, heading: str, quiet: bool) -> None:
        self._screen, self._executor, self._heading, self._quiet = screen, executor, heading, quiet
        self._live: Any = None
        self._show: Callable[[list[console.Block]], None] = lambda blocks: None
        self._side: Side | None = None
        self._begin: Snapshot | None = None
        self._last: Snapshot | None = None
        self._queues: list[tuple[float, ...]] = []
        self.period: Any = None  # of the last turn

    def __enter__(self) -> None:
        if not self._quiet:
            self._live = self._screen.live()
            self._show = self._live.__enter__()

    def __exit__(self, *exc_info: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*exc_info)

    @property
    def queued(self) -> tuple[float, ...]:
        """Orders that waited at each unit, on average."""
        return tuple(statistics.mean(of) for of in zip(*self._queues, strict=True))

    def turn(self, side: Side) -> None:
        self._side = side
        if self._executor is not None:
            self._begin = self._last = self._executor.activity()

    def tick(self, stretch: Stretch) -> None:
        from distort.cli import activity

        if self._executor is None:
            line = activity.rate_line(stretch.runs_per_s, stretch.latencies_s)
            self._show([console.Block(self._heading, [line])])
            return
        now = self._executor.activity()
        self._queues.append(tuple(float(unit.queued) for unit in now.units))
        self._show(activity.blocks(self._heading, now.since(self._last), now.recent_s))
        self._last = now

    def end_turn(self) -> None:
        if self._executor is not None and self._side is not None and self._side.name == "distort":
            self.period = self._executor.activity().since(self._begin)
