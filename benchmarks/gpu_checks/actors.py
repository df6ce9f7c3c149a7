"""Two stages on actors of half a GPU each, and the session with one stage: Ray's part, where Ray is."""

from __future__ import annotations

import importlib.util
import json
import os

import numpy as np

from gpu_checks import programs, sketch
from gpu_checks.arrays import error
from gpu_checks.report import Report, Skipped


def run(report: Report) -> None:
    if importlib.util.find_spec("ray") is None:
        raise Skipped("ray isn't installed")
    import distort
    from distort import gpus
    from distort.engine import load_model
    from distort.graph.inference import infer
    from distort.parallel import open_executor
    from distort.scheduler.device import cuda
    from distort.scheduler.planner import Terms, plan_of_stages
    from distort.scheduler.units import Units

    sizes = {"batch": 1, "channels": 16, "side": 4, "heads": 2} if report.small else {}
    model = sketch.mixed(np.float32, **sizes)
    feed = sketch.feed_of(model)
    (want,) = programs.reference_of(model).run(feed)
    loaded = load_model(model.SerializeToString())
    infer(loaded)
    n = len(loaded.graph.nodes)
    stage_of = [int(i >= n // 2) for i in range(n)]
    plan = plan_of_stages(loaded.graph, stage_of, [cuda(0), cuda(0)], Terms(strict=True), why="were given")
    path = os.environ.get("PYTHONPATH", "")
    keys = {"runtime_env": json.dumps({"env_vars": {"PYTHONPATH": path}})} if path else {}
    seats = gpus.seats_of(Units(plan.stages), [(programs.CUDA, {})])
    what = "two actors of one GPU"
    with report.part(what):
        executor = open_executor(loaded.graph, plan, keys, 2000, lambda: False, seats)
        try:
            errors = [error(executor.run(loaded.graph.outputs, feed)[0][0], want) for _ in range(20)]
            ways = sorted({row["transport"] for row in executor.transfer_stats()})
        finally:
            executor.close()
        report.within(what, max(errors), 2e-3, f"values went by {', '.join(ways)}")
        report.judge("and by the GPU's memory", "cuda_ipc" in ways, ", ".join(ways))
    what = "a parallel session of one GPU"
    with report.part(what):
        options = distort.SessionOptions()
        options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
        for key, value in keys.items():
            options.add_session_config_entry(f"distort.{key}", value)
        with distort.InferenceSession(model.SerializeToString(), options, providers=[programs.CUDA]) as session:
            session.disable_fallback()
            (got,) = session.run(None, feed)
        report.within(what, error(got, want), 2e-3)
