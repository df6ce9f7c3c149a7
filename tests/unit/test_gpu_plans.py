"""GPUs of a parallel session: from providers' entries to devices, a plan, and what actors are told. No GPU is there."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from distort import gpus, planning, providers
from distort.engine import EngineConfig
from distort.errors import InvalidArgument
from distort.graph.inference import infer
from distort.graph.ir import Model
from distort.graph.reader import read_model
from distort.kernels.cuda import builder, fallback, lower
from distort.kernels.cuda import device as facts
from distort.parallel import stage_payloads
from distort.scheduler.plan import Plan
from distort.scheduler.units import Units

SIDE = 256
CUDA = providers.CUDA
Options = dict[str, str]


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host with an H100 and an A100, as far as plans go."""
    known = [
        SimpleNamespace(name="NVIDIA H100 80GB HBM3", memory_nbytes=80 * 2**30, capability=(9, 0)),
        SimpleNamespace(name="NVIDIA A100-SXM4-40GB", memory_nbytes=40 * 2**30, capability=(8, 0)),
    ]

    def properties(index: int) -> SimpleNamespace:
        if index >= len(known):
            raise ValueError(f"there is no GPU {index}: they are 0 to 1")
        return known[index]

    monkeypatch.setattr(facts, "properties", properties)
    yield


def model(n_products: int = 8) -> Model:
    helper = onnx.helper
    nodes = [helper.make_node("MatMul", [f"v{i}", f"w{i}"], [f"v{i + 1}"]) for i in range(n_products)]
    weights = [onnx.numpy_helper.from_array(np.zeros((SIDE, SIDE), np.float32), f"w{i}") for i in range(n_products)]
    ends = [helper.make_tensor_value_info(name, 1, [8, SIDE]) for name in ("v0", f"v{n_products}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    made = read_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))
    infer(made)
    return made


def config(*entries: Options, n_actors: int = 0, **keys: str) -> EngineConfig:
    chosen = [*((CUDA, dict(options)) for options in entries), (providers.CPU, {})]
    return EngineConfig(parallel=True, n_actors=n_actors, providers=chosen, distort_keys=keys)


def plan_of(*entries: Options, n_actors: int = 0, **keys: str) -> Plan:
    return planning.session_plan(model(), config(*entries, n_actors=n_actors, **keys), None)


def test_an_entry_a_gpu_is_a_stage_a_gpu() -> None:
    plan = plan_of({"device_id": "0"}, {"device_id": "1"})
    assert sorted(stage.device.id for stage in plan.stages) == ["cuda:0", "cuda:1"]
    known = {stage.device.id: stage.device for stage in plan.stages}
    assert known["cuda:0"].memory_nbytes == 80 * 2**30 and known["cuda:1"].memory_nbytes == 40 * 2**30
    assert known["cuda:0"].gflops > known["cuda:1"].gflops
    assert {edge.transport for edge in plan.edges} == {"h2d", "cuda_ipc", "d2h"}


def test_one_gpu_runs_in_this_process_and_the_same_one_twice_is_one() -> None:
    for entries in ([{}], [{"device_id": "1"}, {"device_id": "1"}]):
        plan = plan_of(*entries)
        assert plan.in_process
        assert plan.stages[0].device.kind == "cuda"


def test_replicas_take_turns_for_throughput() -> None:
    plan = plan_of({"device_id": "0"}, {"device_id": "1"}, objective="throughput")
    assert {device.id for stage in plan.stages for device in stage.devices} == {"cuda:0", "cuda:1"}


def test_each_entry_has_its_own_limit() -> None:
    limit = 6 * SIDE * SIDE * 4
    plan = plan_of({"device_id": "0", "gpu_mem_limit": str(limit)}, {"device_id": "1", "gpu_mem_limit": str(limit - 1)})
    known = {stage.device.id: stage.device.memory_nbytes for stage in plan.stages}
    assert known == {"cuda:0": limit, "cuda:1": limit - 1}
    assert sum("gpu_mem_limit" in note for note in plan.notes) == 2


def test_a_gpu_that_is_not_there_is_an_error_before_anything_starts() -> None:
    with pytest.raises(InvalidArgument, match=r"there is no GPU 2: they are 0 to 1"):
        plan_of({"device_id": "2"})


def test_tf32_that_is_switched_off_costs_time() -> None:
    fast, exact = plan_of({"device_id": "0"}), plan_of({"device_id": "0", "use_tf32": "0"})
    assert exact.stages[0].device.product_gflops < fast.stages[0].device.product_gflops


def test_without_a_gpu_in_the_providers_nothing_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(facts, "properties")
    plan = planning.session_plan(model(), config(n_actors=2), None)
    assert {stage.device.kind for stage in plan.stages} == {"cpu"}
    assert gpus.seats_of(Units(plan.stages), config().providers) == [None, None]


def test_each_actor_is_told_its_gpu_its_options_and_what_the_caller_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    entries = ({"device_id": "1", "use_tf32": "0"}, {"device_id": "0", "gpu_mem_limit": "1000000000"})
    chosen = config(*entries)
    made = model()
    plan = planning.session_plan(made, chosen, None)
    seats = gpus.seats_of(Units(plan.stages), chosen.providers)
    payloads, _ = stage_payloads(made.graph, plan, {}, seats)
    by_device = {p.gpu.device_id: p.gpu for p in payloads if p.gpu is not None}
    assert by_device[0].options == entries[1] and by_device[1].options == entries[0]
    assert {(seat.share, seat.visible) for seat in by_device.values()} == {(1.0, "4,7")}


def test_units_of_one_gpu_share_it() -> None:
    from distort.scheduler.device import cpu, cuda
    from distort.scheduler.planner import plan_of_stages

    plan = plan_of_stages(model(3).graph, [0, 1, 2], [cuda(0), cpu(0), cuda(0)], why="were given")
    seats = gpus.seats_of(Units(plan.stages), [(CUDA, {})])
    assert [seat and seat.share for seat in seats] == [0.5, None, 0.5]


@pytest.mark.parametrize("option", ["user_compute_stream", "gpu_external_alloc"])
def test_addresses_in_this_process_are_no_options_of_actors(option: str) -> None:
    with pytest.raises(RuntimeError, match=option):
        providers.cuda_options({option: "140001234"}, in_process=False)


def test_a_node_that_is_compiled_is_none_of_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its body over CuPy can't do: plans and sessions ask the same."""
    graph = model(2).graph
    assert gpus.nodes_on_host(graph) == frozenset()
    monkeypatch.setitem(fallback.REASONS, ("", "MatMul"), "for a test")
    assert gpus.nodes_on_host(graph) == frozenset()
    for lowerings in (lower, builder):
        monkeypatch.setattr(lowerings, "lowering_of", lambda domain, op_type: None)
    assert gpus.nodes_on_host(graph) == {0, 1}
