"""Stages on GPUs that are none: real actors, real sockets and shared memory, and tests/fake_cuda for CuPy.

This process has no CuPy at all: only actors use their GPUs. With DISTORT_REAL_GPUS, the number of real ones that there
are, the same on those.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

from distort import gpus, register_kernel, unregister_kernel
from distort.cluster.errors import ClusterError, StageLost
from distort.cluster.executor import Executor
from distort.engine import load_model
from distort.graph.inference import infer
from distort.graph.ir import Graph
from distort.kernels.program import Program
from distort.parallel import open_executor
from distort.scheduler.device import Device, cpu, cuda
from distort.scheduler.planner import Terms, plan_of_stages
from distort.scheduler.units import Units

FAKE = Path(__file__).parents[1] / "fake_cuda"
CUDA = "CUDAExecutionProvider"
#: how many GPUs are no fakes
REAL = int(os.environ.get("DISTORT_REAL_GPUS", "0"))
of_the_fake = pytest.mark.skipif(REAL > 0, reason="needs GPUs that do as they are told")
#: a chain whose values are as large as its feed
CHAIN = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[N,M] x) => (float[N,M] a, float[N,M] d) {
    a = Tanh (x)
    b = Add (a, a)
    c = Mul (b, a)
    d = Sub (c, x)
}
"""


def gpu(number: int) -> Device:
    """A GPU; there may be fewer real ones."""
    return cuda(number % REAL if REAL else number)


def graph_of(text: str = CHAIN) -> Graph:
    model = load_model(onnx.parser.parse_model(text).SerializeToString())
    infer(model)
    return model.graph


@contextmanager
def opened(
    graph: Graph,
    stage_of: Sequence[int],
    devices: Sequence[Device],
    *,
    variables: dict[str, str] | None = None,
    **keys: str,
) -> Iterator[Executor]:
    """The stages of a graph on actors that find the fake."""
    plan = plan_of_stages(graph, stage_of, devices, Terms(strict=True), why="were given")
    path = os.pathsep.join([str(FAKE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"env_vars": {"PYTHONPATH": path, "FAKE_CUDA_DEVICES": "3", **(variables or {})}}
    keys = keys if REAL else {"runtime_env": json.dumps(environment), **keys}
    seats = gpus.seats_of(Units(plan.stages), [(CUDA, {})])
    executor = open_executor(graph, plan, keys, 2000, lambda: False, seats)
    try:
        yield executor
    finally:
        executor.close()
        assert "cupy" not in sys.modules


def feed(n: int, m: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((n, m)).astype(np.float32)}


def expected(graph: Graph, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return Program(graph).run(feeds)


def check(executor: Executor, graph: Graph, feeds: dict[str, np.ndarray]) -> None:
    results, _ = executor.run(graph.outputs, feeds)
    for result, right in zip(results, expected(graph, feeds), strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-5, atol=1e-6)


def ways(executor: Executor) -> dict[tuple[str, int, int], str]:
    return {(row["value"], row["producer"], row["consumer"]): row["transport"] for row in executor.transfer_stats()}


def device_slots(executor: Executor) -> list[int]:
    stats = executor.stats()
    assert all(stats)
    return [told.device_slots_nbytes for told in stats if told is not None]


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_values_go_from_gpu_to_gpu_by_slots_of_device_memory() -> None:
    graph = graph_of()
    with opened(graph, [0, 0, 1, 1], [gpu(0), gpu(1)]) as executor:
        for rows in (1000, 1000, 3, 20_000, 0, 1000):  # sizes that change, small and none
            check(executor, graph, feed(rows, seed=rows))
        told = ways(executor)
        assert told["b", 0, 1] == "cuda_ipc" and told["x", -1, 0] == told["x", -1, 1] == "h2d"
        assert told["d", 1, -1] == told["a", 0, -1] == "d2h"
        assert REAL or [host.facts.gpu for host in executor.hosts] == ["0000:01:00.0", "0000:02:00.0"]  # type: ignore[attr-defined]  # they are actors
        first, second = executor.stats()
        assert first is not None and first.device_slots_nbytes and "on GPU 0" in first.program
        assert second is not None and not second.device_slots_nbytes and f"on GPU {gpu(1).index}" in second.program


def test_gpus_and_cpus_in_a_row_and_a_value_for_both() -> None:
    graph = graph_of()
    with opened(graph, [0, 1, 2, 2], [gpu(0), cpu(0), gpu(1)]) as executor:
        for rows in (500, 500, 2):
            check(executor, graph, feed(rows))
        told = ways(executor)
        # "a" is read by a CPU, by another GPU and by the caller
        assert told["a", 0, 1] == "d2h" and told["a", 0, 2] == "cuda_ipc" and told["a", 0, -1] == "d2h"
        assert told["b", 1, 2] == "h2d"


def test_two_actors_of_one_gpu_share_its_memory_too() -> None:
    graph = graph_of()
    with opened(graph, [0, 1, 1, 1], [gpu(0), gpu(0)]) as executor:
        check(executor, graph, feed(1000))
        assert ways(executor)["a", 0, 1] == "cuda_ipc"


@of_the_fake
def test_gpus_that_cannot_reach_each_other_go_by_the_hosts_memory() -> None:
    graph = graph_of()
    with opened(graph, [0, 0, 1, 1], [gpu(0), gpu(1)], variables={"FAKE_CUDA_PEERS": "0"}) as executor:
        check(executor, graph, feed(1000))
        assert ways(executor)["b", 0, 1] == "shm"
        assert device_slots(executor) == [0, 0]


@of_the_fake
def test_a_gpu_without_memory_for_slots_goes_by_the_hosts() -> None:
    graph = graph_of()
    variables = {"FAKE_CUDA_MEMORY": str(5 << 19)}
    with opened(graph, [0, 0, 1, 1], [gpu(0), gpu(1)], variables=variables) as executor:
        check(executor, graph, feed(1200))  # three values of 0.3 MB: the slot's 2 MiB no longer fit
        assert ways(executor)["b", 0, 1] == "shm"


def test_without_sockets_values_go_by_rays_calls() -> None:
    graph = graph_of()
    with opened(graph, [0, 0, 1, 1], [gpu(0), gpu(1)], transport="object_store") as executor:
        check(executor, graph, feed(1000))
        assert ways(executor)["b", 0, 1] == "object_store"


def test_slots_are_written_again_while_many_runs_are_in_flight() -> None:
    graph = graph_of()
    with opened(
        graph, [0, 1, 2, 2], [gpu(0), gpu(1), gpu(2)], variables={"FAKE_CUDA_LAZY": "1"}, max_in_flight="4"
    ) as executor:
        wrong: list[int] = []

        def work(seed: int) -> None:
            for number in range(25):
                try:
                    check(executor, graph, feed(600, seed=100 * seed + number))
                except AssertionError:
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        granule = 2 << 20
        # a slot for each run in flight, and one or two whose readers are not known to be done yet
        assert all(nbytes <= 8 * granule for nbytes in device_slots(executor))


def test_what_stays_lies_on_the_gpu_and_is_read_once() -> None:
    graph = graph_of()
    feeds = feed(1000)
    a, d = expected(graph, feeds)
    with opened(graph, [0, 0, 1, 1], [gpu(0), gpu(1)]) as executor:
        (kept_a, kept_d), _ = executor.run(["a", "d"], feeds, keep=frozenset(["a", "d"]))
        assert kept_d.device == gpu(1).id and kept_d.shape == (1000, 64) and kept_d.dtype == np.float32
        check(executor, graph, feed(1000, seed=5))  # does not write over what stays
        np.testing.assert_allclose(kept_d.fetch(), d, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(kept_a.fetch(), a, rtol=1e-5, atol=1e-6)
        rows = [row for row in executor.transfer_stats() if row["value"] == "(resident)"]
        assert {(row["producer"], row["transport"], row["messages"]) for row in rows} == {(0, "d2h", 1), (1, "d2h", 1)}
        # fed again: by a pointer to the stage that it lies on, by the host's memory to others
        again, _ = executor.run(["a"], {"x": kept_a})
        np.testing.assert_allclose(again[0], np.tanh(a), rtol=1e-5, atol=1e-6)
        assert any(row["transport"] == "pointer" and row["value"] == "x" for row in executor.transfer_stats())
        (put,) = [executor.keep_value(feeds["x"], 0)]
        assert put.device == "cuda:0"
        np.testing.assert_allclose(executor.run(["a"], {"x": put})[0][0], a, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("element", "name"), [(16, "bfloat16"), (17, "float8_e4m3fn"), (9, "bool")])
def test_elements_that_a_gpu_holds_as_bytes_keep_their_names(element: int, name: str) -> None:
    graph = graph_of(f"""
        <ir_version: 9, opset_import: ["" : 19]>
        g (float[N,M] x) => ({name.replace("_", "")}[N,M] a, float[N,M] d) {{
            a = Cast <to = {element}> (x)
            d = Cast <to = 1> (a)
        }}
    """)
    with opened(graph, [0, 1], [gpu(0), gpu(1)]) as executor:
        feeds = feed(3000)
        (a, d), _ = executor.run(["a", "d"], feeds)
        right_a, right_d = expected(graph, feeds)
        assert a.dtype == right_a.dtype and a.dtype.name == name
        np.testing.assert_array_equal(a.view(np.uint8), right_a.view(np.uint8))
        np.testing.assert_array_equal(d, right_d)
        # what a GPU holds as bytes goes by the host's memory, where it has its name
        assert ways(executor)["a", 0, 1] == ("shm" if element == 17 else "cuda_ipc")
        (kept,), _ = executor.run(["a"], feeds, keep=frozenset(["a"]))
        assert kept.dtype.name == name
        np.testing.assert_array_equal(kept.fetch().view(np.uint8), right_a.view(np.uint8))


def test_part_of_a_graph_runs_that_part_alone() -> None:
    graph = graph_of()
    with opened(graph, [0, 0, 1, 1], [gpu(0), gpu(1)]) as executor:
        feeds = feed(100)
        (a,), _ = executor.run(["a"], feeds)
        np.testing.assert_allclose(a, np.tanh(feeds["x"]), rtol=1e-5, atol=1e-6)
        executed = [told.executions for told in executor.stats() if told is not None]
        assert executed == [1, 0]


@of_the_fake
@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"FAKE_CUDA_DEVICES": "1"}, "It sees 1 of them, and is to have number 1"),
        ({"FAKE_CUDA_DRIVER": "11040"}, "driver is too old"),
    ],
)
def test_an_actor_without_its_gpu_says_so_when_it_starts(variables: dict[str, str], reason: str) -> None:
    graph = graph_of()
    with pytest.raises(ClusterError, match=rf"An actor on {socket.gethostname()} can't use its GPU\..*{reason}"):  # noqa: SIM117
        with opened(graph, [0, 0, 1, 1], [gpu(0), gpu(1)], variables=variables):
            pass


def test_errors_of_a_gpus_stage_come_to_the_run() -> None:
    graph = graph_of()
    with opened(graph, [0, 0, 1, 1], [gpu(0), gpu(1)]) as executor:
        with pytest.raises(Exception, match=r"Tanh"):
            executor.run(["d"], {"x": np.array(["no number"])})
        check(executor, graph, feed(10))


def lose_the_gpu(xp: Any, x: Any) -> Any:
    """What a kernel with a wild pointer does: nothing of CUDA works in the process any more."""
    if x.shape[0] == 7:
        from cupy.cuda import runtime

        def fail(*arguments: Any) -> None:
            raise runtime.CUDARuntimeError(700)

        runtime.streamSynchronize = runtime._state.synchronize_stream = fail
        fail()
    return x + 1


@of_the_fake
@pytest.mark.parametrize("transport", ["auto", "object_store"])
def test_an_actor_that_has_lost_its_gpu_is_replaced(transport: str) -> None:
    register_kernel("test.gpu", "Risky", 1, lose_the_gpu)
    try:
        text = CHAIN.replace('["" : 17]', '["" : 17, "test.gpu" : 1]').replace("Tanh (x)", "test.gpu.Risky (x)")
        graph = graph_of(text)
        with opened(graph, [0, 0, 1, 1], [gpu(0), gpu(1)], transport=transport) as executor:
            check(executor, graph, feed(10))
            # the caller has no CuPy, and can't be told by its exceptions
            with pytest.raises(Exception, match=r"Risky|illegal|700|lost"):
                executor.run(["d"], feed(7))
            assert eventually(lambda: executor.hosts[0].stats(1) is None)  # it has left
            check(executor, graph, feed(10))
            assert [host.epoch for host in executor.hosts] == [1, 0]
    finally:
        unregister_kernel("test.gpu", "Risky", 1)


def test_a_profile_names_the_nodes_on_gpus() -> None:
    graph = graph_of()
    with opened(graph, [0, 0, 1, 1], [gpu(0), gpu(1)]) as executor:
        executor.run(["d"], feed(100))
        _, reports = executor.run(["d"], feed(100), profile=True)
        assert sorted(report.stage for report in reports) == [0, 1]
        events = [event for report in reports for event in report.events]
        assert events and all(event.args["provider"] == CUDA for event in events)
        by = {edge[0]: edge[3] for report in reports for edge in report.edges}
        assert by["b"] == "cuda_ipc" and by["x"] == "h2d"


@pytest.mark.parametrize("victim", [0, 1])
def test_either_side_is_killed_in_the_middle_and_the_other_goes_on(victim: int) -> None:
    graph = graph_of()
    with opened(graph, [0, 0, 1, 1], [gpu(0), gpu(1)], recovery="replay") as executor:
        check(executor, graph, feed(1000))
        survivor = executor.hosts[1 - victim].pid  # type: ignore[attr-defined]  # they are actors
        stop = threading.Event()
        outcomes: list[str] = []

        def work(seed: int) -> None:
            while not stop.is_set():
                try:
                    check(executor, graph, feed(5000, seed=seed))
                    outcomes.append("right")
                except StageLost:
                    outcomes.append("lost")
                except Exception as error:  # noqa: BLE001  # the test looks at it
                    outcomes.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        os.kill(executor.hosts[victim].pid, signal.SIGKILL)  # type: ignore[attr-defined]  # they are actors
        assert eventually(lambda: executor.hosts[victim].epoch == 1)
        before = outcomes.count("right")
        assert eventually(lambda: outcomes.count("right") > before + 5)
        stop.set()
        for thread in threads:
            thread.join()
        assert set(outcomes) <= {"right", "lost"}
        assert executor.hosts[1 - victim].pid == survivor  # type: ignore[attr-defined]  # they are actors
        assert ways(executor)["b", 0, 1] == "cuda_ipc"
        # nothing of the dead is open in the survivor: pages of its slots (two descriptors each), mapped memory
        open_files = [os.readlink(f"/proc/{survivor}/fd/{fd}") for fd in os.listdir(f"/proc/{survivor}/fd")]
        n_slots = sum(device_slots(executor)) // (2 << 20)
        assert sum("distort-gpu-page" in name for name in open_files) <= 2 * n_slots
        if REAL:
            return
        maps = Path(f"/proc/{survivor}/maps").read_text()
        own = 3  # the fake's own heaps
        assert maps.count("fake_cuda_") <= own + n_slots
