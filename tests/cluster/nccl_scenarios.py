"""Sessions whose GPUs, which are none, are on two nodes: a process each, see scenarios.py."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import ray
from ray.cluster_utils import Cluster

import distort

FAKE = str(Path(__file__).resolve().parents[1] / "fake_cuda")
#: two nodes on each GPU where it is cut in two, and a value that the caller wants as well
CHAIN = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[N,64] x) => (float[N,64] y, float[N,64] b) { a = Tanh (x) b = Add (a, x) c = Mul (b, a) y = Sub (c, x) }
"""
#: the first stage's value is read by both others
FAN = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[N,64] x) => (float[N,64] y) { a = Tanh (x) b = Add (a, a) c = Mul (b, b) y = Sub (c, a) }
"""


@contextmanager
def cluster_of(n_gpus: list[int], hosts: list[str] | None = None, **variables: str) -> Iterator[Cluster]:
    """Nodes with GPUs of their own, behind a driver's that has none."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    for number, gpus in enumerate(n_gpus):
        host = hosts[number] if hosts else f"host{number}"
        made.add_node(num_cpus=1, num_gpus=gpus, env_vars={"FAKE_CUDA_HOST": host, **variables})
    made.wait_for_nodes()
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def open_session(address: str, text: str, n_stages: int, **keys: str) -> distort.InferenceSession:
    options = distort.SessionOptions()
    options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = n_stages
    environment = json.dumps({"env_vars": {"PYTHONPATH": FAKE}})
    for key, value in {"address": address, "runtime_env": environment, **keys}.items():
        options.add_session_config_entry(f"distort.{key}", value)
    model = onnx.parser.parse_model(text).SerializeToString()
    session = distort.InferenceSession(model, options, providers=["CUDAExecutionProvider"])
    session.disable_fallback()
    return session


def feeds(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)}


class Right:
    """What a session should say, from this process."""

    def __init__(self, text: str) -> None:
        self._session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())

    def __call__(self, session: distort.InferenceSession, fed: dict[str, np.ndarray]) -> bool:
        found, want = session.run(None, fed), self._session.run(None, fed)
        return all(np.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(found, want, strict=True))


def executor_of(session: distort.InferenceSession) -> Any:
    return session._sess._loaded.engine.executor


def moved(session: distort.InferenceSession) -> dict[str, list[int]]:
    """Between stages: way -> bytes, messages."""
    found: dict[str, list[int]] = {}
    for row in session.get_transfer_stats():
        if row["producer"] >= 0 and row["consumer"] >= 0:
            sums = found.setdefault(row["transport"], [0, 0])
            sums[0] += row["nbytes"]
            sums[1] += row["messages"]
    return found


def two_hosts(folder: Path) -> dict[str, Any]:
    right = Right(CHAIN)
    with cluster_of([1, 1]) as cluster, open_session(cluster.address, CHAIN, 2) as session:
        sizes = (500, 3, 20_000, 0, 500)
        found: dict[str, Any] = {"right": [right(session, feeds(rows, rows)) for rows in sizes]}
        found["stages"] = len(session.plan.stages)
        found["moved"] = moved(session)
        found["sizes"] = sum(sizes)
        found["explained"] = session.explain()
        found["planned"] = [edge.transport for edge in session.plan.edges if edge.between_stages]
        return found


def three_gpus_over_two_hosts(folder: Path) -> dict[str, Any]:
    """A value for a GPU of the same host and for one of another, many runs at once, sizes that change."""
    right = Right(FAN)
    found: dict[str, Any] = {}
    with (
        cluster_of([1, 2], FAKE_CUDA_LAZY="1") as cluster,
        open_session(cluster.address, FAN, 3, max_in_flight="6") as session,
    ):
        wrong: list[str] = []

        def work(seed: int) -> None:
            for number in range(12):
                try:
                    if not right(session, feeds(50 * (1 + (seed + number) % 5), 100 * seed + number)):
                        wrong.append("wrong")
                except Exception as error:  # noqa: BLE001  # it is told
                    wrong.append(str(error))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found["wrong"] = wrong
        found["moved"] = moved(session)
        found["buffers"] = [stats.device_slots_nbytes for stats in executor_of(session).stats()]
        _, reports = executor_of(session).run(["y"], feeds(10), profile=True)
        found["traced"] = sorted({edge[3] for report in reports for edge in report.edges})
    return found


def under_way(session: distort.InferenceSession, right: Right, victim: int) -> list[str]:
    """What becomes of runs while an actor is killed, until several came out right afterwards."""
    stop = threading.Event()
    outcomes: list[str] = []

    def work(seed: int) -> None:
        while not stop.is_set():
            try:
                outcomes.append("right" if right(session, feeds(3000, seed)) else "wrong")
            except Exception as error:  # noqa: BLE001  # it is told
                outcomes.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(outcomes) > 5)
        host = executor_of(session)._hosts[victim]
        os.kill(host.facts.pid, signal.SIGKILL)
        until(lambda: executor_of(session)._hosts[victim].epoch > host.epoch)
        before = outcomes.count("right")
        until(lambda: outcomes.count("right") > before + 5)
    finally:
        stop.set()
    for thread in threads:
        thread.join()
    return sorted(set(outcomes))


def killed(folder: Path) -> dict[str, Any]:
    """Either side is killed while runs are under way."""
    right = Right(CHAIN)
    found: dict[str, Any] = {"outcomes": [], "epochs": [], "by nccl again": []}
    with cluster_of([1, 1]) as cluster, open_session(cluster.address, CHAIN, 2) as session:
        assert right(session, feeds(100))
        for victim in (0, 1):
            found["outcomes"].append(under_way(session, right, victim))
            found["epochs"].append([host.epoch for host in executor_of(session)._hosts])
            before = moved(session)["nccl"][1]
            assert right(session, feeds(100))
            found["by nccl again"].append(moved(session)["nccl"][1] > before)
    return found


def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come to that")
        time.sleep(0.02)


def other_ways(folder: Path) -> dict[str, Any]:
    """Where NCCL can't be: why, and what is done."""
    found: dict[str, Any] = {}
    right = Right(CHAIN)
    cases: dict[str, Any] = {
        "missing": ({"FAKE_NCCL": "0"}, None),
        "one gpu": ({}, ["same", "same"]),
        "refused": ({"NCCL_COMM_BLOCKING": "0"}, None),
    }
    for name, (variables, hosts) in cases.items():
        with cluster_of([1, 1], hosts, **variables) as cluster:
            with open_session(cluster.address, CHAIN, 2) as session:
                found[name] = {"right": right(session, feeds(500)), "moved": moved(session)}
                found[name]["explained"] = [line for line in session.explain().splitlines() if "Ray:" in line]
            if name == "missing":
                try:
                    open_session(cluster.address, CHAIN, 2, strict_placement="1").close()
                except Exception as error:  # noqa: BLE001  # it is told
                    found["strict"] = f"{type(error).__name__}: {error}"
    return found


def stalled(folder: Path) -> dict[str, Any]:
    """A network over which nothing comes any more, though both processes live: an error when its time is up."""
    with (
        cluster_of([1, 1], FAKE_NCCL_STALL="3") as cluster,
        open_session(cluster.address, CHAIN, 2, timeout_s="3") as session,
    ):
        told = []
        for _ in range(3):
            began = time.monotonic()
            try:
                session.run(None, feeds(100))
                told.append("right")
            except Exception as error:  # noqa: BLE001  # it is told
                told.append(f"{type(error).__name__}: {error}"[:200])
            told.append(str(round(time.monotonic() - began)))
        return {"told": told}


SCENARIOS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "two_hosts": two_hosts,
    "three_gpus_over_two_hosts": three_gpus_over_two_hosts,
    "killed": killed,
    "other_ways": other_ways,
    "stalled": stalled,
}

if __name__ == "__main__":
    print(json.dumps(SCENARIOS[sys.argv[1]](Path(sys.argv[2]))))
