"""A model at many different lengths in random order, against onnxruntime: what compiling for each of them costs.

    python benchmarks/lengths.py --model FOLDER/bert_base [--lengths 100] [--longest 128] [--threads 1] [--publish]

FOLDER/bert_base holds model.onnx and inputs.npz. Every run has another length, so that each is the first of its shape;
outputs are compared. Plans and kernels that are made on the way count from the fourth run on: the first three, which
compile what all lengths have in common, are told by themselves. The object cache is empty at the start.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import load_feeds, machine, open_rival, open_session, publish, table

#: runs that are told by themselves
_FIRST = 3
_SHORTEST = 8


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


def measured(model: Path, lengths: Sequence[int], threads: int, dim: str) -> list[tuple[int, float, float]]:
    """Length, seconds of ours, seconds of onnxruntime's, by run."""
    ours, theirs = (opened(str(model / "model.onnx"), threads=threads) for opened in (open_session, open_rival))
    if theirs is None:
        sys.exit("onnxruntime is not installed")
    feeds, symbol = load_feeds(model), symbol_of(ours, dim)
    rows = []
    for length in lengths:
        given = resized(ours, feeds, symbol, length)
        start = time.perf_counter()
        one = ours.run(None, given)
        between = time.perf_counter()
        other = theirs.run(None, given)
        rows.append((length, between - start, time.perf_counter() - between))
        for a, b in zip(one, other, strict=True):
            if np.max(np.abs(a - b)) > 1e-3 * np.max(np.abs(b)):
                sys.exit(f"outputs differ at length {length}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a folder with model.onnx and inputs.npz")
    parser.add_argument("--lengths", type=int, default=100, help="how many different ones")
    parser.add_argument("--longest", type=int, default=128)
    parser.add_argument("--dim", default="", help="name of the dimension (the last symbolic one of the first input)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--publish", action="store_true", help="write the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    choice = range(_SHORTEST, arguments.longest + 1)
    if len(choice) < arguments.lengths:
        sys.exit(f"there are {len(choice)} lengths from {_SHORTEST} to {arguments.longest}")
    lengths = random.Random(arguments.seed).sample(choice, arguments.lengths)
    where = machine(["distort", "numpy", "onnxruntime"])
    print(where, flush=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["DISTORT_CACHE_DIR"] = cache
        rows = measured(arguments.model, lengths, arguments.threads, arguments.dim)
    parts = [("the first 3, kernels compiled", rows[:_FIRST]), (f"the {len(rows) - _FIRST} after them", rows[_FIRST:])]
    cells = []
    for said, part in parts:
        ours, theirs = (sum(row[i] for row in part) for i in (1, 2))
        slowest = max(row[1] / row[2] for row in part)
        cells.append([said, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.2f}", f"{1 / slowest:.2f}"])
    what = f"{arguments.model.name}, {len(rows)} lengths from {min(lengths)} to {max(lengths)}, "
    what += f"{arguments.threads} thread(s)"
    told = table(["runs", "distort s", "onnxruntime s", "ratio", "lowest of one run"], cells)
    print(f"\n{what}\n\n{told}")
    if arguments.publish:
        publish("docs/benchmarks.md", "lengths", f"{where}. {what}.\n\n{told}")


if __name__ == "__main__":
    main()
