"""What happens on clusters of several nodes: a process each, for a process has one connection to Ray.

``python scenarios.py NAME`` prints what it found as JSON on the last line.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from ray.cluster_utils import Cluster

import distort

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
slow (float[64,64] x, int64 trips) => (float[64,64] y) {
    first = Mul (x, half)
    looped = Loop (trips, yes, first) <body = step (int64 i, bool going, float[64,64] state)
        => (bool still, float[64,64] next_state) {
        still = Identity (going)
        product = MatMul (state, state)
        next_state = Tanh (product)
    }>
    second = Add (looped, x)
    third = MatMul (second, second)
    y = Mul (third, half)
}
"""
REAL_MODELS = ("silero_vad", "ppocr4_det", "magika", "tashkeel_rawi3_int8")
MANY_TRIPS = 50_000_000


def build() -> bytes:
    model = onnx.parser.parse_model(MODEL)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "half"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    return model.SerializeToString()


def feeds(trips: int) -> dict[str, np.ndarray]:
    return {"x": np.eye(64, dtype=np.float32), "trips": np.array(trips)}


def trips_of(seconds: float) -> int:
    """As many trips as take about so long on an actor."""
    session = distort.InferenceSession(build())
    session.run(None, feeds(100))
    began = time.perf_counter()
    session.run(None, feeds(1000))
    return int(1000 * seconds / (time.perf_counter() - began))


def open_session(address: str, n_actors: int, model: str = "", **keys: str) -> distort.InferenceSession:
    options = distort.SessionOptions()
    options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = n_actors
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    for key, value in {"address": address, "start": "wait", **keys}.items():
        options.add_session_config_entry(f"distort.{key}", value)
    return distort.InferenceSession(model or build(), options)


def nodes_of(session: distort.InferenceSession) -> list[str]:
    """Where each unit's actor says it is."""
    return [host.facts.node for host in session._sess._loaded.engine.executor._hosts]


def right(session: distort.InferenceSession) -> bool:
    want = distort.InferenceSession(build()).run(None, feeds(2))[0]
    return bool(np.array_equal(session.run(None, feeds(2))[0], want))


def outcome(run: Callable[[], Any]) -> dict[str, Any]:
    """How a call ends, and after which time."""
    began = time.monotonic()
    try:
        value = run()
    except Exception as error:  # noqa: BLE001  # the test looks at it
        return {"error": type(error).__name__, "text": str(error), "seconds": time.monotonic() - began}
    return {"error": None, "text": str(value), "seconds": time.monotonic() - began}


def without(folder: Path, code: str) -> dict[str, str]:
    """Environment of a node of which every Python begins with some lines."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


#: such a node has the packages of this environment, and not distort
NO_DISTORT = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]"
OLD_ONNX = """
import importlib.metadata as metadata
real = metadata.version
metadata.version = lambda name: '1.2.3' if name == 'onnx' else real(name)
"""


def add_node(cluster: Cluster, n_cpus: int, environment: dict[str, str] | None = None) -> Any:
    before = dict(os.environ)
    os.environ.update(environment or {})
    try:
        return cluster.add_node(num_cpus=n_cpus, include_log_monitor=False)
    finally:
        os.environ.clear()
        os.environ.update(before)


def two_nodes(folder: Path) -> dict[str, Any]:
    """A node of one CPU each: two actors are on both, and one node's end is survived or told."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found: dict[str, Any] = {}
    try:
        worker = add_node(cluster, 1)
        with open_session(cluster.address, 2, timeout_s="20") as session:
            found["nodes"] = nodes_of(session)
            found["right"] = right(session)
            found["moved"] = session.get_transfer_stats()
            found["too_many"] = outcome(lambda: open_session(cluster.address, 3))
            # a third node takes what the second one had
            add_node(cluster, 1)
            ended: list[dict[str, Any]] = []
            trips = trips_of(3)

            def run_long() -> None:
                ended.append(outcome(lambda: float(session.run(None, feeds(trips))[0].sum())))

            at = threading.Thread(target=run_long)
            at.start()
            time.sleep(0.3)  # the run is on the actors
            killed = time.monotonic()
            cluster.remove_node(worker, allow_graceful=False)
            found["under way"] = not ended
            at.join(60)
            found["during"] = {**ended[0], "seconds": time.monotonic() - killed} if ended else "hangs"
            found["want"] = str(float(distort.InferenceSession(build()).run(None, feeds(trips))[0].sum()))
            found["after"] = outcome(lambda: right(session))
            if found["after"]["error"]:
                found["after"] = outcome(lambda: right(session))
            found["nodes_after"] = nodes_of(session)
    finally:
        close(cluster)
    return found


def real_models(folder: Path) -> dict[str, Any]:
    """Some of the real models, each cut in two, over two nodes of one CPU."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
    import real

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found: dict[str, Any] = {}
    try:
        add_node(cluster, 1)
        for name in REAL_MODELS:
            with open_session(cluster.address, 2, model=str(real.model_path(name)), timeout_s="60") as session:
                want = real.expected_of(name)
                for output, value in zip(want, session.run(list(want), real.feeds_of(name)), strict=True):
                    real.assert_close(name, output, value, want[output])
                crossed = [e for e in session.get_transfer_stats() if e["producer"] == 0 and e["consumer"] == 1]
                found[name] = {"nodes": nodes_of(session), "nbytes": sum(edge["nbytes"] for edge in crossed)}
    finally:
        close(cluster)
    return found


def three_nodes(folder: Path) -> dict[str, Any]:
    """A driver's node without CPUs, and one without distort; then one that lacks a package."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    found: dict[str, Any] = {}
    try:
        add_node(cluster, 1)
        add_node(cluster, 1, without(folder / "bare", NO_DISTORT))
        with open_session(cluster.address, 2, timeout_s="20") as session:
            import ray

            found["here"] = ray.get_runtime_context().get_node_id()
            found["nodes"] = nodes_of(session)
            found["right"] = right(session)
        add_node(cluster, 2, without(folder / "old", OLD_ONNX))
        began = time.monotonic()
        while ray.cluster_resources().get("CPU") != 4 and time.monotonic() < began + 10:
            time.sleep(0.05)
        found["old"] = outcome(lambda: open_session(cluster.address, 4))
    finally:
        close(cluster)
    return found


def close(cluster: Cluster) -> None:
    import ray

    ray.shutdown()
    with suppress(Exception):
        cluster.shutdown()


if __name__ == "__main__":
    told = globals()[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps(told))
