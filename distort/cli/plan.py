"""Show how a model would be cut into stages, why there, and what that is predicted to cost.

Starts nothing, and the devices need not exist: --devices 2xcpu:4,1xcuda:80GB
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distort.cli import console
from distort.cli.arguments import count, dimension
from distort.cli.errors import OK, TaskFailed, UsageError
from distort.graph import atomic

if TYPE_CHECKING:
    from distort.graph.ir import Graph, Model
    from distort.scheduler.plan import Plan
    from distort.scheduler.simulate import Simulation

#: edges that the table lists; the page and the JSON have all of them
_EDGES_SHOWN = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    parser.add_argument("--actors", type=count, default=0, metavar="N", help="number of stages (0: as many as pay)")
    parser.add_argument("--devices", metavar="TEXT", help="devices instead of this machine's, as 2xcpu:4,1xcuda:80GB")
    parser.add_argument(
        "--dim", action="append", default=[], metavar="NAME=SIZE", help="the size of a symbolic dimension (1)"
    )
    parser.add_argument(
        "--replicas", type=_replicas, metavar="N", help="actors for each stage; `auto`: more for the slowest ones"
    )
    parser.add_argument("--memory", type=_nbytes, metavar="BYTES", help="of each device, as 512MB")
    parser.add_argument("--measure", action="store_true", help="run the model here to learn what each node takes")
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="with --measure: a feed, as of `distort run`",
    )
    parser.add_argument(
        "--runs", type=count, default=4, metavar="N", help="runs in flight that the simulated schedule shows (4)"
    )
    parser.add_argument("--objective", choices=("latency", "throughput", "memory"), default="latency")
    parser.add_argument(
        "--partition",
        default="auto",
        metavar="HOW",
        help="auto (the planner cuts), annotations or annotations:NAME (what the model is annotated with)",
    )
    parser.add_argument("--write", metavar="OUT.onnx", help="write the optimized model, annotated with the plan")
    parser.add_argument("--html", metavar="OUT.html", help="write a page with the graph, coloured by stage")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def run(arguments: argparse.Namespace) -> int:
    dims = dict(dimension(text) for text in arguments.dim)
    if arguments.html is not None:
        atomic.require_folder(arguments.html)
    if arguments.write is not None:
        atomic.require_folder(arguments.write)
    with console.progress(f"planning {arguments.model}"):
        plan, model, missing = _make(arguments, dims)
    graph = model.graph
    uncompiled = _uncompiled(graph)
    written = [] if arguments.write is None else _write(plan, model, arguments.write)
    if arguments.html is not None:
        page = plan.to_html(graph)
        with atomic.writing(arguments.html) as file:
            file.write(page.encode())
    simulation = _simulated(plan, arguments.runs)
    if arguments.json:
        told = {**_finite(plan.as_dict()), "no_kernel": missing, "not_compiled": uncompiled}
        console.print_json(told if simulation is None else {**told, "simulated": _finite(simulation.as_dict())})
        return OK
    screen = console.Screen()
    show(screen, plan)
    if simulation is not None:
        _show_schedule(screen, simulation)
    if uncompiled:
        screen.line()
        screen.line(f"Without code for the CPU, and so run by NumPy kernels there: {', '.join(uncompiled)}")
    if missing:
        screen.line()
        screen.line(f"No kernel runs {', '.join(missing)}: a session of this model can't be made.", "bold")
    if arguments.html is not None:
        written.append(f"written: {arguments.html}")
    if written:
        screen.line()
    for line in written:
        screen.line(line)
    return OK


def _uncompiled(graph: Graph) -> list[str]:
    """Operators that the CPU compiler has no code for."""
    from distort.kernels.compiler.account import has_code

    nodes = [node for node in graph.nodes if not has_code(node.domain, node.op_type)]
    return sorted({f"{node.domain + ':' if node.domain else ''}{node.op_type}" for node in nodes})


def _write(plan: Plan, model: Model, path: str) -> list[str]:
    """The optimized model with the plan in it, as a file. What there is to say of it."""
    from distort import errors
    from distort.graph import annotations, writer
    from distort.scheduler.annotated import annotated_model

    with errors.translated():
        result = annotated_model(plan, model)
        writer.save(result, path)
    said = f"written: {path}, with the device configuration '{annotations.DEFAULT_NAME}'"
    if result.ir_version != model.ir_version:
        said += f"; its IR version is {result.ir_version}, and was {model.ir_version}: earlier ones have no annotations"
    return [said]


def _replicas(text: str) -> int:
    if text == "auto":
        return 0
    number = count(text)
    if not number:
        raise argparse.ArgumentTypeError("0 replicas: write auto, or a number")
    return number


def _nbytes(text: str) -> int:
    from distort.scheduler.device import parse_nbytes

    try:
        return parse_nbytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _simulated(plan: Plan, n_runs: int) -> Simulation | None:
    from distort.scheduler.simulate import simulate

    return simulate(plan, n_runs=n_runs) if plan.stages and n_runs else None


def _make(arguments: argparse.Namespace, dims: dict[str, int]) -> tuple[Plan, Model, list[str]]:
    """The plan of the graph as a session would run it, that graph's model, and operators that no kernel runs."""
    from distort import engine, errors, planning
    from distort.scheduler.errors import PlanError

    with errors.translated():
        model = engine.load_model(arguments.model)
        pipeline = planning.pin_annotations(model, _partition(arguments.partition))
        engine.optimize(model, "all")
        _check_dims(model.graph, dims)
        feeds = _feeds(arguments, model)
        try:
            plan, graph = planning.plan_model(
                model,
                arguments.actors,
                devices_text=arguments.devices,
                dims=dims,
                objective=arguments.objective,
                model_name=Path(arguments.model).name,
                replicas=arguments.replicas,
                device_nbytes=arguments.memory,
                costs="measured" if arguments.measure else "auto",
                feeds=feeds,
                pipeline=pipeline,
            )
        except PlanError as error:
            raise TaskFailed(str(error)) from error
        except ValueError as error:  # devices that can't be read
            raise UsageError(str(error)) from error
        missing = {f"{n.domain + ':' if n.domain else ''}{n.op_type}({n.opset})" for n in engine.missing_kernels(graph)}
    return plan, model, sorted(missing)


def _partition(text: str) -> str:
    from distort.options import DISTORT_KEYS

    valid, expected = DISTORT_KEYS["partition"]
    if not valid(text):
        raise UsageError(f"--partition {text}: it wants {expected}")
    return text


def _feeds(arguments: argparse.Namespace, model: Model) -> dict[str, Any] | None:
    """What --input names; None where nothing is."""
    from distort.cli import arrays
    from distort.metadata import NodeArg

    if not arguments.input:
        return None
    if not arguments.measure:
        raise UsageError("--input goes with --measure")
    known = [NodeArg._of(name, model.graph.types.get(name)) for name in model.graph.inputs]
    feeds = arrays.read_inputs(arguments.input, known)
    missing = [a for a in known if a.name not in feeds and a.name not in model.graph.initializers]
    missing = [a for a in missing if not a.type.startswith("optional")]
    if missing:
        raise UsageError(arrays.describe_missing(missing))
    return dict(feeds)


def _check_dims(graph: Graph, dims: dict[str, int]) -> None:
    from distort.metadata import declared_shape

    shapes = (declared_shape(known) or () for known in graph.types.values())
    symbols = dict.fromkeys(dim for shape in shapes for dim in shape if isinstance(dim, str))
    for name in dims:
        if name not in symbols:
            raise UsageError(f"--dim {name}: the model has no such dimension. It has: {', '.join(symbols) or 'none'}")


def _finite(value: Any) -> Any:
    """Plain data with None for the numbers that JSON lacks."""
    import math

    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(screen: console.Screen, plan: Plan, measured: dict[tuple[str, int, int], str] | None = None) -> None:
    """The plan's tables, predictions and reasons. ``measured``: what did cross, by value, producer and consumer."""
    from distort.scheduler.device import format_nbytes, format_us
    from distort.scheduler.plan import devices_text, span

    stages = [
        (
            stage.id,
            devices_text(stage),
            str(stage.n_nodes),
            span(stage.node_names),
            format_us(stage.cost_us),
            format_nbytes(stage.weights_nbytes),
            format_nbytes(stage.activations_nbytes),
        )
        for stage in plan.stages
    ]
    screen.heading(f"Stages of {plan.model_name or 'the model'}, for {plan.objective}")
    screen.table(
        ("stage", "device", "nodes", "first … last", "time", "weights", "activations"), stages, frozenset({2, 4, 5, 6})
    )
    head = ("edge", "value", "bytes", *(["measured"] if measured is not None else []), "transport")
    edges = []
    for edge in plan.edges[:_EDGES_SHOWN]:
        ends = f"{plan.end_name(edge.producer)} → {plan.end_name(edge.consumer)}"
        moved = [measured.get((edge.value, edge.producer, edge.consumer), "")] if measured is not None else []
        edges.append((ends, edge.value, format_nbytes(edge.nbytes), *moved, edge.transport))
    screen.heading("What crosses in one run")
    screen.table(head, edges, frozenset(range(2, len(head) - 1)))
    if len(plan.edges) > _EDGES_SHOWN:
        screen.line(f"and {len(plan.edges) - _EDGES_SHOWN} more (--json lists all)")
    p = plan.predicted
    screen.heading("Predicted")
    screen.line(
        f"one run {format_us(p.latency_us)}, {p.throughput_per_s:.4g} runs/s with the stages kept full; "
        f"as one stage in this process {format_us(p.single_latency_us)}"
    )
    screen.heading("Why")
    for note in plan.notes:
        screen.line(f"- {note}")


def _show_schedule(screen: console.Screen, simulation: Simulation) -> None:
    """Who does what when: 2F0 is stage 2 on run 0, forward."""
    n_runs = len(simulation.latencies_us)
    screen.heading(f"Simulated: {n_runs} run{'' if n_runs == 1 else 's'} at once")
    for line in simulation.to_text().splitlines():
        screen.line(line)
    screen.line()
    for line in simulation.grid().splitlines():
        screen.line(line)
