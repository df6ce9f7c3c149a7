"""Measure a model's throughput and latency, in this process or on actors.

Inputs that nobody feeds are made of their declared shapes: floats at random, indices within their table, other integers
1; --dim gives symbolic dimensions a size. --against runs a rival in turns with distort, on the same feeds. In a
terminal a table is live: busy and waiting actors, queues, bytes by edge.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from distort.cli import console, rivals
from distort.cli.arguments import add_session, count, dimension, open_session, positive, seconds, session_options
from distort.cli.errors import OK, TaskFailed, UsageError
from distort.cli.sides import WARM_RUNS, Side, alternate

if TYPE_CHECKING:
    from distort.cli.operations import Profile
    from distort.cli.workload import Stretch
    from distort.cluster.activity import Snapshot
    from distort.cluster.executor import Executor
    from distort.options import SessionOptions
    from distort.session import InferenceSession

#: stretches of each side, in turns, where there is a rival and several runs are in flight
_TURNS = 5
#: of the time, what is spent before anything is measured
_WARM_UP = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session(parser)
    parser.add_argument(
        "--threads",
        type=_counts,
        default=(0,),
        metavar="T[,T...]",
        help="threads of each actor, one measurement for each number (0: as always)",
    )
    parser.add_argument("--in-flight", type=positive, metavar="K", help="runs at once (1; with --parallel 2 an actor)")
    parser.add_argument("--seconds", type=seconds, default=5.0, metavar="S", help="how long each measurement takes (5)")
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
    parser.add_argument(
        "--against",
        action="append",
        choices=rivals.NAMES,
        default=[],
        help="run a rival in turns, with as many threads; may be repeated",
    )
    parser.add_argument(
        "--config", action="append", default=[], metavar="KEY=VALUE", help="a session config entry; may be repeated"
    )
    parser.add_argument("--profile", action="store_true", help="name the operations that take the time")
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON")


def _counts(text: str) -> tuple[int, ...]:
    return tuple(count(part) for part in text.split(","))


def run(arguments: argparse.Namespace) -> int:
    for name in arguments.against:
        rivals.require(name)
    in_flight = arguments.in_flight or (1 if arguments.parallel is None else max(2, 2 * arguments.parallel))
    screen = console.Screen()
    measured = [_measure(arguments, threads, in_flight, screen) for threads in dict.fromkeys(arguments.threads)]
    if arguments.json:
        told = {"model": arguments.model, "in_flight": in_flight, "made_feeds": measured[0].made_feeds}
        console.print_json({**told, "measured": [one.as_dict() for one in measured]})
    else:
        screen.show(_blocks(arguments.model, in_flight, measured))
    return OK


def _measure(arguments: argparse.Namespace, threads: int, in_flight: int, screen: console.Screen) -> Measured:
    """With one number of threads."""
    from distort.cli import operations, workload

    options = session_options(arguments)
    _configure(options, arguments, threads, in_flight)
    with console.compiling(f"loading {arguments.model}"):
        session = open_session(arguments.model, options)
    with session:
        executor = session._sess._loaded.engine.executor
        n_stages = len(session.plan.stages) if executor is not None else 1
        feeds, made = _feeds(session, arguments)
        names = [output.name for output in session.get_outputs()]
        sides = [Side("distort", partial(session.run, None, feeds))]
        for name in arguments.against:
            with console.progress(f"loading {arguments.model} with {name}"):
                rival = rivals.open_rival(name, arguments.model, threads * n_stages)
            sides.append(Side(rival.name, partial(rival.run, feeds)))
        with console.compiling("warming up"):
            outputs = [_first_run(side, made) for side in sides]
            for side, theirs in zip(sides[1:], outputs[1:], strict=True):
                side.difference = rivals.difference(names, outputs[0], theirs)
            del outputs
            at_least = max(in_flight, WARM_RUNS)
            for side in sides:
                workload.keep_running(side.run, in_flight, arguments.seconds * _WARM_UP, at_least=at_least)
        watch = Watch(screen, executor, f"{arguments.model}: {in_flight} in flight", arguments.json)
        with watch:
            if executor is None and in_flight == 1:
                alternate(sides, arguments.seconds, on_tick=watch.tick)
            else:
                _take_turns(sides, arguments.seconds, in_flight, watch)
        return Measured(
            threads,
            n_stages,
            0 if executor is None else len(executor.hosts),
            in_flight,
            made,
            sides,
            watch,
            operations.measure(session, feeds, arguments.seconds) if arguments.profile else None,
            session.plan.notes if executor is None and arguments.parallel is not None else (),
        )


def _take_turns(sides: Sequence[Side], seconds_in_all: float, in_flight: int, watch: Watch) -> None:
    from distort.cli import workload

    turns = _TURNS if len(sides) > 1 else 1
    a_turn = seconds_in_all / turns / len(sides)
    for _ in range(turns):
        for side in sides:
            watch.turn(side)
            on_tick = watch.tick if side is sides[0] else None
            side.turns.append(workload.keep_running(side.run, in_flight, a_turn, at_least=in_flight, on_tick=on_tick))
            watch.end_turn()


@dataclass(slots=True)
class Measured:
    """All that is told of one number of threads."""

    threads: int
    n_stages: int
    n_actors: int
    in_flight: int
    made_feeds: list[str]
    sides: list[Side]
    watch: Watch
    profile: Profile | None
    notes: Sequence[str]  # why there are no actors, where some were asked for

    def ratio(self, side: Side) -> float:
        """How many times as fast as a rival distort is: by median latency, or by throughput of several in flight."""
        ours = self.sides[0]
        return side.median_s / ours.median_s if self.in_flight == 1 else ours.runs_per_s / side.runs_per_s

    def as_dict(self) -> dict[str, Any]:
        from distort.cli import activity

        told: dict[str, Any] = {
            "threads": self.threads,
            "stages": self.n_stages,
            "actors": self.n_actors,
            "notes": list(self.notes),
            **self.sides[0].as_dict(),
            "rivals": [self._rival(side) for side in self.sides[1:]],
        }
        if self.watch.period is not None:
            told["activity"] = activity.as_dict(self.watch.period, self.watch.queued)
        if self.profile is not None:
            told["profile"] = self.profile.as_dict()
        return told

    def _rival(self, side: Side) -> dict[str, Any]:
        told = {"name": side.name, **side.as_dict(), "ratio": self.ratio(side)}
        if side.difference is not None:
            found = side.difference
            told["difference"] = {"output": found.output, "absolute": found.absolute, "relative": found.relative}
        return told

    def rows(self) -> list[tuple[str, ...]]:
        from distort.cli.activity import PERCENTILES
        from distort.cluster.activity import percentiles
        from distort.scheduler.device import format_us

        rows = []
        for side in self.sides:
            times = [format_us(s * 1e6) for s in percentiles(side.latencies_s, PERCENTILES)]
            against = [] if side is self.sides[0] else [f"{self.ratio(side):.2f}", _said(side)]
            rows.append((str(self.threads or "all"), side.name, f"{side.runs_per_s:.4g}", *times, *against))
        return rows


def _said(side: Side) -> str:
    return "" if side.difference is None else side.difference.text()


def _blocks(model: str, in_flight: int, measured: Sequence[Measured]) -> list[console.Block]:
    from distort.cli import activity
    from distort.cli.activity import PERCENTILES

    first = measured[0]
    where = "on actors" if first.n_actors else "in this process"
    heading = f"{model}: {first.n_stages} stage{'' if first.n_stages == 1 else 's'} {where}, {in_flight} in flight"
    columns = ["threads", "", "runs/s", *(f"p{of}" for of in PERCENTILES)]
    rows = [row for one in measured for row in one.rows()]
    lines = []
    if len(first.sides) > 1:
        columns += ["ratio", "outputs"]
        rows = [(*row, *[""] * (len(columns) - len(row))) for row in rows]
        lines.append("ratio: how many times as fast distort is, by medians of runs in turn")
    numbers = frozenset({0, *range(2, 7)})
    found = [console.Block(heading, lines, columns, rows, numbers)]
    for one in measured:
        of = f", {one.threads or 'all'} thread{'' if one.threads == 1 else 's'}" if len(measured) > 1 else ""
        if one.notes:
            found.append(console.Block("Why there are no actors", [f"- {note}" for note in one.notes]))
        if one.watch.period is not None:
            found += activity.blocks(heading + of, one.watch.period, (), one.watch.queued)[1:]
        if one.profile is not None:
            found += one.profile.blocks(of)
    return found


def _configure(options: SessionOptions, arguments: argparse.Namespace, threads: int, in_flight: int) -> None:
    options.intra_op_num_threads = threads
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


def _first_run(side: Side, made: list[str]) -> Any:
    """One run's outputs. Raises TaskFailed where the model doesn't take the feeds that were made."""
    try:
        return side.run()
    except Exception as error:
        if not made and side.name == "distort":
            raise
        from distort.errors import text_of

        if not made:
            raise TaskFailed(f"{side.name} does not run the model: {text_of(error)}") from error
        raise TaskFailed(
            f"{side.name} does not run on feeds made of declared shapes ({', '.join(made)}): {text_of(error)}. Give "
            "sizes with --dim NAME=SIZE, or feeds with --input NAME=FILE."
        ) from error


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
