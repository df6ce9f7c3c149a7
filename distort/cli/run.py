"""Run a model on arrays from files.

Inputs: NAME=FILE.npy, NAME=FILE.npz (with one array, or one of that name), or FILE.npz, which feeds all its arrays.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from distort.cli import console
from distort.cli.arguments import add_session, open_session, session_options
from distort.cli.errors import OK, UsageError

#: values of a result that are shown
_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_session(parser)
    parser.add_argument("--output", metavar="OUT.npz", help="write the results to a file")
    parser.add_argument(
        "--fetch", action="append", default=[], metavar="NAME", help="an output to compute; may be repeated (all)"
    )
    parser.add_argument("--json", action="store_true", help="tell of the results as JSON")


def run(arguments: argparse.Namespace) -> int:
    from distort.cli import arrays
    from distort.graph import atomic

    options = session_options(arguments)
    if arguments.output is not None:
        atomic.require_folder(arguments.output)
    started = time.perf_counter()
    with console.compiling(f"loading {arguments.model}"):
        session = open_session(arguments.model, options)
    with session:
        loaded = time.perf_counter()
        feeds = arrays.read_inputs(arguments.input, [*session.get_inputs(), *session.get_overridable_initializers()])
        missing = [a for a in session.get_inputs() if a.name not in feeds and not a.type.startswith("optional")]
        if missing:
            raise UsageError(arrays.describe_missing(missing))
        outputs = {argument.name: argument for argument in session.get_outputs()}
        names = list(dict.fromkeys(arguments.fetch)) or list(outputs)
        unknown = [name for name in names if name not in outputs]
        if unknown:
            raise UsageError(f"--fetch {unknown[0]}: the model has no such output. Its outputs: {', '.join(outputs)}")
        run_started = time.perf_counter()
        with console.compiling("running"):
            values = session.run(names, feeds)
        seconds = {"load": loaded - started, "run": time.perf_counter() - run_started}
        n_stages = len(session.plan.stages) if arguments.parallel is not None else 1
        transfers = session.get_transfer_stats()
    if arguments.output is not None:
        results = arrays.result_arrays(names, values)
        with atomic.writing(arguments.output) as file:
            arrays.write_npz(file, results)
    summaries = [_summary(name, outputs[name].type, value) for name, value in zip(names, values, strict=True)]
    if arguments.json:
        told = {"outputs": summaries, "seconds": seconds, "stages": n_stages, "transfers": transfers}
        console.print_json({"model": arguments.model, **told, "written": arguments.output})
    else:
        _show(summaries, seconds, n_stages, transfers, arguments.output)
    return OK


def _summary(name: str, type_text: str, value: Any) -> dict[str, Any]:
    """A result in a few plain values; those of numbers that JSON lacks are None."""
    import numpy as np

    told: dict[str, Any] = {"name": name, "type": type_text}
    if not isinstance(value, (np.ndarray, np.generic)):
        return {**told, "length": len(value) if isinstance(value, (list, dict)) else None}
    array = np.asarray(value)
    told.update(shape=list(array.shape), first=[_plain(item) for item in array.flat[:_SHOWN]])
    if array.size and array.dtype.kind not in "OUSbc":
        wide = array.astype(np.float64)
        for key, function in (("min", np.min), ("mean", np.mean), ("max", np.max)):
            with np.errstate(all="ignore"):
                told[key] = _plain(function(wide))
    return told


def _plain(item: Any) -> Any:
    """A numpy scalar as a value of JSON."""
    import math

    if isinstance(item, (str, bool, int)):
        return item
    if isinstance(item, bytes):
        return item.decode("utf-8", "replace")
    python = item.item() if hasattr(item, "item") else item
    if isinstance(python, complex):
        return str(python)
    if isinstance(python, (str, bool, int)):
        return python
    number = float(python)
    return number if math.isfinite(number) else None


def _show(
    summaries: list[dict[str, Any]],
    seconds: dict[str, float],
    n_stages: int,
    transfers: list[dict[str, Any]],
    output: str | None,
) -> None:
    from distort.cli.arrays import shape_text
    from distort.scheduler.device import format_nbytes, format_us

    screen = console.Screen()
    rows = []
    for told in summaries:
        shape = shape_text(told["shape"]) if "shape" in told else f"{told['length']} items"
        first = ", ".join(_number(item) for item in told.get("first", ()))
        rows.append(
            (told["name"], told["type"], shape, *(_number(told.get(k, "")) for k in ("min", "mean", "max")), first)
        )
    screen.table(("output", "type", "shape", "min", "mean", "max", "first values"), rows, frozenset({3, 4, 5}))
    screen.line()
    stages = f"{n_stages} stage{'' if n_stages == 1 else 's'}"
    load, ran = (format_us(seconds[key] * 1e6) for key in ("load", "run"))
    screen.line(f"{stages}; load {load}, run {ran}")
    between = sum(edge["nbytes"] for edge in transfers if edge["producer"] >= 0 and edge["consumer"] >= 0)
    if transfers:
        screen.line(f"{format_nbytes(between)} between stages, {len(transfers)} edges")
    if output is not None:
        screen.line(f"written: {output}")


def _number(item: Any) -> str:
    if item is None:
        return "not finite"
    return f"{item:.6g}" if isinstance(item, float) else str(item)
