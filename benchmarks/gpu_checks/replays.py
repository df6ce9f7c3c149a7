"""CUDA graphs: a convolution, products, attention and our kernels captured, and replayed with changing inputs.

Between replays, memory of CuPy's and of the program's pool is taken and given back, as other work does. Each replay is
held against the same plan enqueued step by step, bit for bit, and now and then against NumPy's kernels.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from gpu_checks import programs, sketch
from gpu_checks.arrays import error, to_host
from gpu_checks.report import FAILED, FIGURE, Report, Skipped

#: of results of a whole layer
_TOLERANCES = {"float32": 5e-3, "float16": 2e-2}  # with TF32


def run(report: Report) -> None:
    for name in ("float32", "float16"):
        with report.part(f"replays {name}"):
            _replay(report, np.dtype(name))


def _replay(report: Report, dtype: np.dtype[Any]) -> None:
    import cupy

    sizes = {"batch": 1, "channels": 16, "side": 4, "heads": 2} if report.small else {}
    model = sketch.mixed(dtype, **sizes)
    # one program for both ways: another one may have chosen other algorithms, whose sums round otherwise
    program = programs.program_of(model, enable_cuda_graph=1)
    feed = sketch.feed_of(model)["x"]
    with program.using():
        x, y = cupy.asarray(feed), cupy.empty(feed.shape, dtype)
    wanted_turns = 6 if report.small else 1000
    rng, churn, numbers = random.Random(0), _Churn(program), np.random.default_rng(3)
    differing, turns = [], 0
    for turn in range(wanted_turns):
        if report.left_s < 5:
            break
        with program.using():
            x[...] = cupy.asarray(numbers.standard_normal(feed.shape, np.float32).astype(dtype))
        program.synchronize()
        churn.turn(rng)
        program.run({"x": x}, into={"y": y})
        (plain,) = program.run({"x": x}, graph_id=-1)
        turns += 1
        if not bool((y.view(np.uint8) == plain.view(np.uint8)).all().get()):
            differing.append(turn)
    what = f"{turns} replays {dtype}: bit for bit as enqueued"
    if not turns:
        raise Skipped("no time left")
    if not program.n_graph_runs:
        report.add(what, FAILED, f"no run was a graph: {programs.obstacles(program) or 'the plan can be program'}")
    else:
        figure = f"{program.n_graph_runs} were graphs, {len(differing)} differ, {churn.n} allocations between"
        report.judge(what, not differing, figure, differing=differing[:20])
    got = to_host(y, dtype)
    (want,) = programs.reference_of(model).run({"x": to_host(x, dtype)})
    report.within(f"the last one {dtype} against NumPy", error(got, want), _TOLERANCES[dtype.name])
    told = ", ".join(f"{n} {name}" for name, n in programs.steps_of(program).items())
    report.add(f"steps of the plan {dtype}", FIGURE, told)
    report.faults(f"replays {dtype}", program)


class _Churn:
    """Memory taken and given back, written to when it is taken."""

    def __init__(self, program: Any) -> None:
        self._program = program
        self._kept: list[Any] = []
        self.n = 0

    def turn(self, rng: random.Random) -> None:
        import cupy

        for _ in range(rng.randrange(4)):
            nbytes = rng.choice((512, 5000, 70_000, 3 << 20))
            if rng.random() < 0.5:
                with self._program.using():
                    self._take(cupy.empty(nbytes, cupy.uint8))
            else:
                self._take(cupy.empty(nbytes, cupy.uint8))
        while len(self._kept) > 6:
            self._kept.pop(rng.randrange(len(self._kept)))
        if self.n % 97 == 96:
            cupy.get_default_memory_pool().free_all_blocks()

    def _take(self, array: Any) -> None:
        array.fill(0xFF)  # floats in memory that isn't theirs any more are NaN
        self._kept.append(array)
        self.n += 1
