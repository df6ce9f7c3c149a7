"""Throughput of two single-thread actors against one single-thread process, and against what a user would build.

    python benchmarks/pipeline.py --models DIR [--only resnet50] [--in-flight 8] [--seconds 5] [--batch 16] [--quick]

DIR holds NAME/model.onnx with NAME/inputs.npz; resnet50 and bert_base are the ones meant. Sides, in turns in one
process tree, medians of their turns:

- distort in this process, one thread, one run after the other;
- distort on two actors of one thread each, runs in flight: two stages, and one stage with a replica;
- two Ray actors, each with an onnxruntime session of one thread, asked in turn, as many in flight;
- onnxruntime in this process, one thread.

The limit of two actors is 2.0 times one process. Then one run with a batch of ``--batch``: in this process, and split
into micro-batches over two stages, and over two actors as the planner has them for throughput. Costs are measured once
and cached. Every process has one BLAS thread (OMP_NUM_THREADS=1, set below).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import itertools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import load_feeds, median_us, open_rival, open_session, print_machine, print_table, runs_per_s


def rival_actors(path: str, n_actors: int) -> list[Any]:
    import ray

    @ray.remote(num_cpus=0, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    class Rival:
        def __init__(self, path: str) -> None:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 4
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            return self._session.run(None, feeds)

    return [Rival.remote(path) for _ in range(n_actors)]


def in_turn(actors: list[Any], feeds: dict[str, np.ndarray]) -> Callable[[], list[np.ndarray]]:
    import ray

    turns = itertools.cycle(actors)
    return lambda: ray.get(next(turns).run.remote(feeds))


def same(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for mine, yours in zip(one, other, strict=True):
        scale = max(1e-6, float(np.abs(yours).max()))
        assert np.abs(mine - yours).max() <= 1e-3 * scale, "the sides answer differently"


def throughput(folder: Path, arguments: argparse.Namespace) -> list[tuple[str, ...]]:
    import ray

    path, feeds, in_flight = str(folder / "model.onnx"), load_feeds(folder), arguments.in_flight
    common = {"max_in_flight": in_flight, "objective": "throughput", "transport": "shm", "costs": "measured"}
    with ExitStack() as stack:
        here = stack.enter_context(open_session(path))
        stages = stack.enter_context(open_session(path, actors=2, stages=2, **common))
        sides: dict[str, tuple[Callable[[], Any], int]] = {
            "distort, this process": (lambda: here.run(None, feeds), 1),
            "distort, 2 stages": (lambda: stages.run(None, feeds), in_flight),
        }
        if arguments.replicas:
            replicas = stack.enter_context(open_session(path, actors=1, stages=1, replicas=2, **common))
            sides["distort, 1 stage twice"] = (lambda: replicas.run(None, feeds), in_flight)
        rival = open_rival(path)
        if rival is not None:
            actors = rival_actors(path, 2)
            sides["2 Ray actors of onnxruntime"] = (in_turn(actors, feeds), in_flight)
            sides["onnxruntime, this process"] = (lambda: rival.run(None, feeds), 1)
        want = here.run(None, feeds)
        for run, _ in sides.values():
            same(run(), want)
        rates = runs_per_s(sides, arguments.rounds, arguments.seconds)
        before = stages._sess._loaded.engine.executor.activity()
        runs_per_s({"stages": sides["distort, 2 stages"]}, 1, arguments.seconds)
        period = stages._sess._loaded.engine.executor.activity().since(before)
        busy = " ".join("–" if unit.busy is None else f"{unit.busy:.0%}" for unit in period.units)
        if rival is not None:
            for actor in actors:
                ray.kill(actor)
    one, rival_one = rates["distort, this process"], rates.get("onnxruntime, this process")
    rows = []
    for name, rate in rates.items():
        of_one = rate / (rival_one if "onnxruntime" in name and rival_one else one)
        rows.append((folder.name, name, f"{rate:.2f}", f"{of_one:.2f}", busy if name == "distort, 2 stages" else ""))
    return rows


def batches(folder: Path, arguments: argparse.Namespace) -> list[tuple[str, ...]]:
    """One run with a large batch."""
    path = str(folder / "model.onnx")
    feeds = {name: np.repeat(value, arguments.batch, axis=0) for name, value in load_feeds(folder).items()}
    common = {"objective": "throughput", "costs": "measured", "micro_batch": arguments.micro_batches}
    with ExitStack() as stack:
        here = stack.enter_context(open_session(path))
        stages = stack.enter_context(open_session(path, actors=2, stages=2, **common))
        free = stack.enter_context(open_session(path, actors=2, **common))
        sides = {
            "distort, this process": lambda: here.run(None, feeds),
            f"distort, 2 stages, {arguments.micro_batches} micro-batches": lambda: stages.run(None, feeds),
            "distort, 2 actors as the planner has them": lambda: free.run(None, feeds),
        }
        rival = open_rival(path)
        if rival is not None:
            sides["onnxruntime, this process"] = lambda: rival.run(None, feeds)
        same(stages.run(None, feeds), here.run(None, feeds))
        same(free.run(None, feeds), here.run(None, feeds))
        for what, session in (("2 stages", stages), ("2 actors", free)):
            print(f"{folder.name}, {what}: {session._sess._loaded.engine.split_told}")
        us = median_us(sides, arguments.rounds, 1)
    one = us["distort, this process"]
    return [(folder.name, str(arguments.batch), name, f"{of / 1e3:.0f}", f"{one / of:.2f}") for name, of in us.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="a folder with NAME/model.onnx")
    parser.add_argument("--only", action="append", help="a model's name; may be repeated (resnet50, bert_base)")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a side's turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16, help="0: no run with a large batch")
    parser.add_argument("--micro-batches", default="auto", help="a number of parts (auto)")
    parser.add_argument("--no-replicas", dest="replicas", action="store_false", help="leave replicas out")
    parser.add_argument("--quick", action="store_true", help="one short turn: to see that it works")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds, arguments.rounds, arguments.batch = 0.5, 1, min(arguments.batch, 4)
        arguments.in_flight = 4
    print_machine()
    folders = [arguments.models / name for name in arguments.only or ("resnet50", "bert_base")]
    rows = [row for folder in folders for row in throughput(folder, arguments)]
    print_table(("model", "side", "runs/s", "÷ one process of its own", "stages busy"), rows)
    if arguments.batch:
        print()
        large = [row for folder in folders for row in batches(folder, arguments)]
        print_table(("model", "batch", "side", "ms a run", "times as fast as this process"), large)


if __name__ == "__main__":
    main()
