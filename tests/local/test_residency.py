"""Outputs bound to a device stay on the actor that made them, and feeding them back moves nothing."""

from __future__ import annotations

import gc
import time

import numpy as np
import onnx
import pytest

import distort as onnxruntime
from distort.capi.onnxruntime_pybind11_state import InvalidArgument

STATE = 1 << 16  # floats: larger than any message of Ray itself
MODEL = f"""
<ir_version: 9, opset_import: ["" : 17]>
counter (float[{STATE}] state, float[4] x) => (float[{STATE}] next_state, float[4] y) {{
    doubled = Mul (state, two)
    next_state = Add (doubled, one)
    total = ReduceSum <keepdims=0> (state)
    first = Add (x, total)
    second = Sqrt (first)
    third = Mul (second, second)
    y = Sub (third, x)
}}
"""


def build() -> bytes:
    model = onnx.parser.parse_model(MODEL)
    for name, value in (("two", 2.0), ("one", 1.0)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    return model.SerializeToString()


@pytest.fixture(params=["sequential", "parallel"])
def session(request: pytest.FixtureRequest):
    options = onnxruntime.SessionOptions()
    if request.param == "parallel":
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = 2
    with onnxruntime.InferenceSession(build(), options) as opened:
        yield opened


def parallel(session: onnxruntime.InferenceSession) -> bool:
    return len(session.plan.stages) == 2


def moved(session: onnxruntime.InferenceSession, value: str) -> int:
    return sum(edge["nbytes"] for edge in session.get_transfer_stats() if edge["value"] == value)


def test_a_state_that_is_fed_back_moves_nothing(session: onnxruntime.InferenceSession) -> None:
    binding = session.io_binding()
    state = np.zeros(STATE, np.float32)
    x = np.arange(4, dtype=np.float32)
    binding.bind_cpu_input("state", state)
    binding.bind_cpu_input("x", x)
    binding.bind_output("next_state", "cpu")
    binding.bind_output("y", "cpu")
    session.run_with_iobinding(binding)
    before = {(e["value"], e["producer"], e["consumer"]): e["nbytes"] for e in session.get_transfer_stats()}
    for _ in range(3):
        kept = binding.get_outputs()[0]
        assert kept.shape() == [STATE]
        binding.clear_binding_inputs()
        binding.bind_ortvalue_input("state", kept)
        binding.bind_cpu_input("x", x)
        session.run_with_iobinding(binding)
    after = {(e["value"], e["producer"], e["consumer"]): e["nbytes"] for e in session.get_transfer_stats()}
    if parallel(session):
        maker = next(stage.index for stage in session.plan.stages if "next_state" in stage.outputs)
        readers = [stage.index for stage in session.plan.stages if "state" in stage.inputs]
        grown = {edge: after[edge] - before.get(edge, 0) for edge in after if after[edge] != before.get(edge, 0)}
        if readers == [maker]:
            assert not [edge for edge in grown if edge[0] in ("state", "next_state")], grown
        assert all(edge[0] != "next_state" for edge in grown), grown
        assert grown, "the small values do move"
    else:
        assert after == {}
    # 0 -> 1 -> 3 -> 7 -> 15, and y is the sum of the state before
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], np.full(STATE, 15, np.float32))
    np.testing.assert_allclose(binding.copy_outputs_to_cpu()[1], np.full(4, 7.0 * STATE), rtol=1e-5)


def test_a_kept_value_is_a_handle_that_can_be_read_and_run_with(session: onnxruntime.InferenceSession) -> None:
    feeds = {
        "state": onnxruntime.OrtValue.ortvalue_from_numpy(np.ones(STATE, np.float32)),
        "x": onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(4, np.float32)),
    }
    next_state, y = session.run_with_ort_values(None, feeds)
    assert next_state.device_name() == "cpu"
    assert next_state.data_type() == "tensor(float)"
    assert next_state.shape() == [STATE]
    again, _ = session.run_with_ort_values(["next_state", "y"], {"state": next_state, "x": feeds["x"]})
    np.testing.assert_array_equal(next_state.numpy(), np.full(STATE, 3, np.float32))
    np.testing.assert_array_equal(again.numpy(), np.full(STATE, 7, np.float32))
    np.testing.assert_allclose(y.numpy(), np.full(4, STATE), rtol=1e-5)


def test_two_sessions_hand_each_other_values() -> None:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    x = np.zeros(4, np.float32)
    with (
        onnxruntime.InferenceSession(build(), options) as first,
        onnxruntime.InferenceSession(build(), options) as second,
        onnxruntime.InferenceSession(build()) as here,
    ):
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ones(STATE, np.float32))
        x_value = onnxruntime.OrtValue.ortvalue_from_numpy(x)
        for session in (first, second, here, first):
            value = session.run_with_ort_values(["next_state"], {"state": value, "x": x_value})[0]
        np.testing.assert_array_equal(value.numpy(), np.full(STATE, 31, np.float32))


def test_a_value_outlives_neither_its_session_nor_its_handle() -> None:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    feeds = {"state": np.ones(STATE, np.float32), "x": np.zeros(4, np.float32)}
    session = onnxruntime.InferenceSession(build(), options)
    values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(v) for n, v in feeds.items()}
    kept = session.run_with_ort_values(["next_state"], values)[0]
    session.close()
    with pytest.raises(InvalidArgument, match="actor"):
        kept.numpy()


def test_actors_free_values_that_nobody_holds() -> None:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    values = {
        "state": onnxruntime.OrtValue.ortvalue_from_numpy(np.ones(STATE, np.float32)),
        "x": onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(4, np.float32)),
    }
    with onnxruntime.InferenceSession(build(), options) as session:
        kept = [session.run_with_ort_values(["next_state"], values)[0] for _ in range(3)]
        assert resident_count(session) == 3
        del kept
        gc.collect()
        deadline = time.monotonic() + 5
        while resident_count(session) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert resident_count(session) == 0


def resident_count(session: onnxruntime.InferenceSession) -> int:
    return sum(host.held()[0] for host in session._loaded.engine.executor.hosts)
