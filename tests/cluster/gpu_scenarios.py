"""What Ray makes of actors that ask for GPUs, with GPUs that are none: a process each, see scenarios.py."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import ray
from ray.cluster_utils import Cluster

import distort
from distort.cluster.errors import ClusterError
from distort.cluster.grounds import Grounds
from distort.cluster.nodes import gpus_of, nodes
from distort.cluster.resources import attach

FAKE = str(Path(__file__).resolve().parents[1] / "fake_cuda")
MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[N,64] x) => (float[N,64] y) { a = Tanh (x) b = Add (a, x) c = Mul (b, a) y = Sub (c, x) }
"""


class Probe:
    """Says what an actor of its options sees."""

    def told(self) -> dict[str, Any]:
        context = ray.get_runtime_context()
        return {
            "granted": context.get_accelerator_ids()["GPU"],
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "node": context.get_node_id(),
        }


def placed(address: str, threads: list[int], shares: list[float]) -> list[dict[str, Any]]:
    """What actors at the places that a session would choose tell, all alive at the same time."""
    grounds = Grounds(attach(address))
    grounds.settle(threads, [None] * len(threads), shares)
    actors = [ray.remote(Probe).options(**grounds.options(unit)).remote() for unit in range(len(threads))]
    told: list[dict[str, Any]] = ray.get([actor.told.remote() for actor in actors], timeout=60)
    for actor in actors:
        ray.kill(actor)
    return told


def a_programs_own(folder: Path) -> dict[str, Any]:
    """Two CPUs and two GPUs: three actors with GPUs (two share one) and two with a CPU each, all at once."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "4,7"
    ray.init(num_cpus=2, num_gpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False)
    found: dict[str, Any] = {"five": placed("", [1] * 5, [1, 0.5, 0.5, 0, 0])}
    try:
        placed("", [1] * 3, [1, 1, 1])
    except ClusterError as error:
        found["too many"] = str(error)
    return found


def several_nodes(folder: Path) -> dict[str, Any]:
    """A node with a GPU, one with two, and a driver's without."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    for n_gpus in (1, 2):
        cluster.add_node(num_cpus=1, num_gpus=n_gpus)
    cluster.wait_for_nodes()
    try:
        told = placed(cluster.address, [1] * 4, [1, 1, 1, 0])
        known = {node.node_id: node.n_gpus for node in nodes()}
        devices = [device.id for device in gpus_of(nodes())]
        found = {"told": told, "gpus": [known[actor["node"]] for actor in told], "devices": devices}
        return {**found, **session_on(cluster.address)}
    finally:
        ray.shutdown()
        cluster.shutdown()


def session_on(address: str) -> dict[str, Any]:
    """A session on three GPUs of a cluster, from a process that has none."""
    model = onnx.parser.parse_model(MODEL).SerializeToString()
    options = distort.SessionOptions()
    options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 3
    for key, value in {"address": address, "runtime_env": json.dumps({"env_vars": {"PYTHONPATH": FAKE}})}.items():
        options.add_session_config_entry(f"distort.{key}", value)
    feeds = {"x": np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32)}
    want = distort.InferenceSession(model).run(None, feeds)[0]
    with distort.InferenceSession(model, options, providers=["CUDAExecutionProvider"]) as session:
        session.disable_fallback()
        result = session.run(None, feeds)[0]
        free = ray.available_resources().get("GPU", 0)
        hosts = session._sess._loaded.engine.executor.hosts
        return {
            "right": bool(np.allclose(result, want, rtol=1e-5, atol=1e-6)),
            "devices of stages": [stage.device.id for stage in session.plan.stages],
            "gpus of actors": sorted((host.facts.node, host.facts.gpu) for host in hosts),
            "free": free,
            "moved": sorted({row["transport"] for row in session.get_transfer_stats()}),
            "here": "cupy" in sys.modules,
        }


SCENARIOS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "a_programs_own": a_programs_own,
    "several_nodes": several_nodes,
}

if __name__ == "__main__":
    print(json.dumps(SCENARIOS[sys.argv[1]](Path(sys.argv[2]))))
