"""Models at many different lengths in random order, against onnxruntime: what a plan for each of them costs.

    python benchmarks/lengths.py --models FOLDER/bert_base FOLDER/ppocr4_rec:p2o.DynamicDimension.1:40-400 [--publish]

Each folder holds model.onnx and inputs.npz; after it may come the dimension that is changed (the last symbolic one of
the first input) and its range. Every run has another length, so that each is the first of its shape; outputs are
compared. Plans and kernels that are made on the way count; the first three runs, which compile what all lengths have
in common, are told by themselves. *Again* is a second run of each. A process for each model, whose object cache is
empty at the start.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from latency import tolerance
from side_by_side import load_feeds, machine, open_rival, open_session, publish, table

#: runs that are told by themselves
_FIRST = 3
_SHORTEST, _LONGEST = 8, 128


def symbol_of(session: Any, wanted: str) -> str:
    """The dimension that is a length: the one asked for, else the last symbolic one of the first input."""
    names = [dim for argument in session.get_inputs() for dim in argument.shape if isinstance(dim, str)]
    if wanted and wanted not in names:
        sys.exit(f"the model has no dimension '{wanted}'; it has {', '.join(dict.fromkeys(names))}")
    first = [dim for dim in session.get_inputs()[0].shape if isinstance(dim, str)]
    if not wanted and not first:
        sys.exit("the model's first input has no symbolic dimension")
    return wanted or first[-1]


def resized(session: Any, feeds: Mapping[str, np.ndarray], symbol: str, length: int) -> dict[str, np.ndarray]:
    """Feeds whose dimensions of that name have another size: what is there, from the start again at its end."""
    made = {}
    for argument in session.get_inputs():
        array = feeds[argument.name]
        for axis, dim in enumerate(argument.shape):
            if dim == symbol:
                array = np.take(array, np.arange(length) % array.shape[axis], axis)
        made[argument.name] = array
    return made


#: length, seconds of ours, of onnxruntime's, of ours again
Row = tuple[int, float, float, float]


def measured(model: Path, dim: str, lengths: Sequence[int], threads: int) -> tuple[str, list[Row]]:
    """The dimension, and a row for each run."""
    ours, theirs = (opened(str(model / "model.onnx"), threads=threads) for opened in (open_session, open_rival))
    if theirs is None:
        sys.exit("onnxruntime is not installed")
    feeds, symbol = load_feeds(model), symbol_of(ours, dim)
    rows: list[Row] = []
    limit = tolerance(model)
    for length in lengths:
        given = resized(ours, feeds, symbol, length)
        start = time.perf_counter()
        one = ours.run(None, given)
        first = time.perf_counter()
        other = theirs.run(None, given)
        second = time.perf_counter()
        ours.run(None, given)
        rows.append((length, first - start, second - first, time.perf_counter() - second))
        for a, b in zip(one, other, strict=True):
            if a.dtype.kind == "f" and a.size and np.max(np.abs(a - b)) > limit * np.max(np.abs(b)):
                sys.exit(f"outputs differ at length {length}")
    return symbol, rows


def told_of(model: Path, dim: str, lengths: Sequence[int], threads: int) -> list[str]:
    """A model's row of the table; in a process of its own."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["DISTORT_CACHE_DIR"] = cache
        symbol, rows = measured(model, dim, lengths, threads)
    cells = [model.name, symbol, f"{len(rows)}, {min(lengths)} to {max(lengths)}"]
    for part in (rows[:_FIRST], rows[_FIRST:]):
        ours, theirs = (sum(row[i] for row in part) for i in (1, 2))
        cells += [f"{ours / len(part) * 1e3:.2f}", f"{theirs / len(part) * 1e3:.2f}", f"{theirs / ours:.2f}"]
    again = sum(row[3] for row in rows[_FIRST:])
    return [*cells, f"{again / (len(rows) - _FIRST) * 1e3:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="FOLDER[:DIMENSION[:SHORTEST-LONGEST]]")
    parser.add_argument("--lengths", type=int, default=100, help="how many different ones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--publish", action="store_true", help="write the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    where = machine(["distort", "numpy", "onnxruntime"])
    print(where, flush=True)
    rows = []
    for one in arguments.models:
        folder, _, rest = one.partition(":")
        dim, _, ends = rest.partition(":")
        shortest, longest = map(int, ends.split("-")) if ends else (_SHORTEST, _LONGEST)
        count = min(arguments.lengths, longest + 1 - shortest)
        lengths = random.Random(arguments.seed).sample(range(shortest, longest + 1), count)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            rows.append(process.submit(told_of, Path(folder), dim, lengths, arguments.threads).result())
        print(*rows[-1], flush=True)
    columns = ["model", "dimension", "lengths"]
    for part in ("first 3", "others"):
        columns += [f"{part}: distort ms", "onnxruntime ms", "ratio"]
    told = table([*columns, "again, distort ms"], rows)
    print(f"\n{told}")
    if arguments.publish:
        publish("docs/benchmarks.md", "lengths", f"{where}. {arguments.threads} thread(s).\n\n{told}")


if __name__ == "__main__":
    main()
