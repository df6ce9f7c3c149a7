"""Latency of each model against onnxruntime and OpenVINO: in turns in one process, medians and ratios, as a table.

    python benchmarks/latency.py --models DIR [--models DIR] [--threads 1 2] [--only REGEX] [--seconds 2]
                                 [--precision bf16] [--profile] [--publish]

DIR holds NAME/model.onnx with NAME/inputs.npz, at any depth. Rivals that are not installed are left out. A ratio above
1 means that distort is faster than onnxruntime. Every side runs as often before anything is measured. Outputs are
compared with onnxruntime's beforehand: a model that differs by more than it may is marked, counts for no mean, and
makes the exit code 1. ``--precision bf16`` measures products in bfloat16 too. ``--publish`` puts the tables into
README.md and docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import find_models, load_feeds, machine, medians_ms, publish, table

from distort.cli.errors import TaskFailed
from distort.cli.operations import measure
from distort.cli.rivals import Rival, difference, open_rival

RIVALS = ("onnxruntime", "openvino")
#: how far outputs may be from onnxruntime's, by the largest value of each
_TOLERANCE = 1e-3
#: the same where values are stored in half precision
_HALF_TOLERANCE = 1e-2
#: the same where activations are quantized as the model runs: another rounding is another code
_QUANTIZED_TOLERANCE = 5e-2


@dataclass(slots=True)
class Row:
    """A model at a number of threads."""

    model: str
    threads: int
    ms: dict[str, float]  # by side
    error: float = 0.0  # of distort's outputs, by the largest value
    wrong: str = ""
    bf16_error: float = 0.0
    goes_to: str = ""
    missing: list[str] = field(default_factory=list)  # rivals that don't take the model

    def ratio(self, rival: str = "onnxruntime", of: str = "distort") -> float | None:
        return self.ms[rival] / self.ms[of] if rival in self.ms and of in self.ms else None


def open_distort(folder: Path, threads: int, precision: str = "float32") -> Any:
    import distort

    options = distort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    options.add_session_config_entry("distort.compute_precision", precision)
    return distort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])


def tolerance(folder: Path) -> float:
    """By what the model computes with."""
    from distort.engine import load_model

    graph = load_model(str(folder / "model.onnx")).graph
    if any(node.op_type.startswith(("DynamicQuantize", "MatMulInteger", "ConvInteger")) for node in graph.nodes):
        return _QUANTIZED_TOLERANCE
    halves = (getattr(value, "dtype", None) == np.float16 for value in graph.initializers.values())
    return _HALF_TOLERANCE if any(halves) else _TOLERANCE


def open_rivals(folder: Path, feeds: dict[str, np.ndarray], threads: int) -> tuple[dict[str, Rival], list[str]]:
    """Those that run the model, and the names of those that don't."""
    opened, missing = {}, []
    for name in RIVALS:
        if find_spec(name) is None:
            continue
        try:
            rival = open_rival(name, str(folder / "model.onnx"), threads)
            rival.run(feeds)
        except Exception as error:  # noqa: BLE001  # a rival's own classes, and TaskFailed
            missing.append(name)
            text = str(error) if isinstance(error, TaskFailed) else f"{name} does not run {folder.name}: {error}"
            print(text.splitlines()[0][:160], file=sys.stderr)
        else:
            opened[name] = rival
    return opened, missing


def measured(folder: Path, threads: int, seconds: float, bf16: bool, profile: bool) -> Row:
    feeds = load_feeds(folder)
    session = open_distort(folder, threads)
    names = [output.name for output in session.get_outputs()]
    rivals, missing = open_rivals(folder, feeds, threads)
    sides: dict[str, Any] = {"distort": partial(session.run, None, feeds)}
    row = Row(folder.name, threads, {}, missing=missing)
    wanted = rivals["onnxruntime"].run(feeds) if "onnxruntime" in rivals else session.run(names, feeds)
    limit = tolerance(folder)
    for _ in range(4):  # the last ones are compiled, and by shapes that were learned
        found = difference(names, session.run(names, feeds), wanted)
    row.error = found.relative
    if found.absolute is None or found.relative > limit:
        row.wrong = found.text()
    if "openvino" in rivals:
        theirs = difference(names, rivals["openvino"].run(feeds), wanted)
        if theirs.absolute is None or theirs.relative > limit:
            print(f"openvino on {folder.name}: {theirs.text()}", file=sys.stderr)
            missing.append(rivals.pop("openvino").name)
    sides |= {name: partial(rival.run, feeds) for name, rival in rivals.items()}
    if bf16:
        rounded = open_distort(folder, threads, "bf16")
        row.bf16_error = difference(names, rounded.run(names, feeds), wanted).relative
        sides["bf16"] = partial(rounded.run, None, feeds)
    row.ms = medians_ms(sides, seconds)
    if profile:
        profiled = measure(session, feeds, 0.5)
        whole = profiled.kernels_us or 1.0
        row.goes_to = ", ".join(f"{name} {sum(us) / whole:.0%}" for name, us in profiled.by_operators()[:3])
    return row


def summary(rows: list[Row]) -> list[str]:
    """Geometric means and lowest ratios, by threads."""
    lines = []
    for threads in dict.fromkeys(row.threads for row in rows):
        for rival, of, said in (
            ("onnxruntime", "distort", "onnxruntime"),
            ("openvino", "distort", "OpenVINO"),
            ("distort", "bf16", "float32, of bf16"),
        ):
            ratios = {r.model: r.ratio(rival, of) for r in rows if r.threads == threads and not r.wrong}
            known = {model: ratio for model, ratio in ratios.items() if ratio is not None}
            if known:
                worst = min(known, key=known.__getitem__)
                mean = statistics.geometric_mean(known.values())
                text = f"{threads} thread{'' if threads == 1 else 's'}, against {said}: geometric mean {mean:.2f}, "
                lines.append(text + f"lowest {known[worst]:.2f} ({worst}), {len(known)} models")
    return lines


def long_table(rows: list[Row]) -> str:
    """All that was measured."""
    has_openvino, has_bf16 = (any(side in row.ms for row in rows) for side in ("openvino", "bf16"))
    profiled = any(row.goes_to for row in rows)
    columns = ["model", "threads", "distort ms", "onnxruntime ms", "ratio"]
    columns += ["OpenVINO ms", "ratio"] * has_openvino + ["bf16 ms", "ratio", "bf16 error"] * has_bf16
    columns += ["error", *["time goes to"] * profiled]
    cells = []
    for row in rows:
        cell = [row.model, str(row.threads), _ms(row, "distort"), _ms(row, "onnxruntime"), _ratio(row.ratio())]
        if has_openvino:
            cell += [_ms(row, "openvino"), _ratio(row.ratio("openvino"))]
        if has_bf16:
            cell += [_ms(row, "bf16"), _ratio(row.ratio("distort", "bf16")), f"{row.bf16_error:.0e}"]
        cell += [f"wrong: {row.wrong}" if row.wrong else f"{row.error:.0e}"]
        cells.append([*cell, *[row.goes_to] * profiled])
    return table(columns, cells)


def short_table(rows: list[Row]) -> str:
    """Of README.md: ratios, a line a model."""
    threads = list(dict.fromkeys(row.threads for row in rows))
    by_model: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, {})[row.threads] = row
    columns = ["model", "distort ms", "onnxruntime ms", *(f"ratio, {n} thread{'s' * (n > 1)}" for n in threads)]
    cells = []
    for model, of in by_model.items():
        first = of[threads[0]]
        ratios = [("wrong" if of[n].wrong else _ratio(of[n].ratio())) if n in of else "–" for n in threads]
        cells.append([model, _ms(first, "distort"), _ms(first, "onnxruntime"), *ratios])
    for title, take in (("geometric mean", statistics.geometric_mean), ("lowest", min)):
        known = [[r.ratio() for r in rows if r.threads == n and not r.wrong and r.ratio()] for n in threads]
        cells.append([f"**{title}**", "", "", *(f"**{take(of):.2f}**" if of else "–" for of in known)])
    return table(columns, cells)


def _ms(row: Row, side: str) -> str:
    return f"{row.ms[side]:.3f}" if side in row.ms else "–"


def _ratio(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, action="append", required=True, help="a folder with models (repeatable)")
    parser.add_argument("--only", default="", help="regular expression on the model's name")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=2.0, help="for each model and number of threads")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="bf16: measure it beside")
    parser.add_argument("--profile", action="store_true", help="name the operations that take the time")
    parser.add_argument("--publish", action="store_true", help="write the tables into README.md and docs/benchmarks.md")
    arguments = parser.parse_args()
    packages = ["distort", "numpy", *(name for name in RIVALS if find_spec(name) is not None)]
    where = machine(packages)
    print(where, flush=True)
    rows = []
    for folder in find_models(arguments.models, arguments.only):
        for threads in arguments.threads:
            print(f"{folder.name}, {threads} thread(s)", file=sys.stderr, flush=True)
            bf16 = arguments.precision == "bf16"
            rows.append(measured(folder, threads, arguments.seconds, bf16, arguments.profile))
    if not rows:
        sys.exit("no model was found")
    told = "\n".join(["", *(f"- {line}" for line in summary(rows))])
    print(f"\n{long_table(rows)}\n{told}\n\n{short_table(rows)}")
    if arguments.publish:
        publish("docs/benchmarks.md", "latency", f"{where}.\n\n{long_table(rows)}\n{told}")
        publish("README.md", "latency", f"{short_table(rows)}\n\n{where}.")
    if any(row.wrong for row in rows):
        sys.exit("some outputs are wrong")


if __name__ == "__main__":
    main()
