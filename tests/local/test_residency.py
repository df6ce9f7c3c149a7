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
SIDE = 128
#: a state that is doubled in each run, and work beside it that is worth a stage of its own
MODEL = f"""
<ir_version: 9, opset_import: ["" : 17]>
counter (float[{STATE}] state, float[{SIDE},{SIDE}] x) => (float[{STATE}] next_state, float[{SIDE},{SIDE}] y) {{
    next_state = Mul (state, two)
    total = ReduceSum <keepdims=0> (next_state)
    first = MatMul (x, eye)
    second = MatMul (first, eye)
    third = MatMul (second, eye)
    y = Add (third, total)
}}
"""
X = np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)


def build() -> bytes:
    model = onnx.parser.parse_model(MODEL)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(2), "two"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(SIDE, dtype=np.float32), "eye"))
    return model.SerializeToString()


@pytest.fixture(params=["sequential", "parallel"])
def session(request: pytest.FixtureRequest):
    options = onnxruntime.SessionOptions()
    if request.param == "parallel":
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        options.add_session_config_entry("distort.start", "wait")
        options.inter_op_num_threads = 2
    with onnxruntime.InferenceSession(build(), options) as opened:
        yield opened


def parallel(session: onnxruntime.InferenceSession) -> bool:
    return len(session.plan.stages) == 2


def test_a_state_that_is_fed_back_moves_nothing(session: onnxruntime.InferenceSession) -> None:
    binding = session.io_binding()
    state = np.ones(STATE, np.float32)
    binding.bind_cpu_input("state", state)
    binding.bind_cpu_input("x", X)
    binding.bind_output("next_state", "cpu")
    binding.bind_output("y", "cpu")
    session.run_with_iobinding(binding)
    before = {(e["value"], e["producer"], e["consumer"]): e["nbytes"] for e in session.get_transfer_stats()}
    for _ in range(3):
        kept = binding.get_outputs()[0]
        assert kept.shape() == [STATE]
        binding.clear_binding_inputs()
        binding.bind_ortvalue_input("state", kept)
        binding.bind_cpu_input("x", X)
        session.run_with_iobinding(binding)
    after = {(e["value"], e["producer"], e["consumer"]): e["nbytes"] for e in session.get_transfer_stats()}
    if parallel(session):
        maker = next(stage.index for stage in session.plan.stages if "next_state" in stage.outputs)
        readers = [stage.index for stage in session.plan.stages if "state" in stage.inputs]
        grown = {edge: after[edge] - before.get(edge, 0) for edge in after if after[edge] != before.get(edge, 0)}
        assert readers == [maker], "the model is cut so that the state has one home"
        assert not [edge for edge in grown if edge[0] in ("state", "next_state")], grown
        assert grown, "the small values do move"
    else:
        assert after == {}
    # 1 -> 2 -> 4 -> 8 -> 16, and y is the sum of the new state
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], np.full(STATE, 16, np.float32))
    np.testing.assert_allclose(binding.copy_outputs_to_cpu()[1], X + 16.0 * STATE, rtol=1e-5)


def test_a_kept_value_is_a_handle_that_can_be_read_and_run_with(session: onnxruntime.InferenceSession) -> None:
    feeds = {
        "state": onnxruntime.OrtValue.ortvalue_from_numpy(np.ones(STATE, np.float32)),
        "x": onnxruntime.OrtValue.ortvalue_from_numpy(X),
    }
    next_state, y = session.run_with_ort_values(None, feeds)
    assert next_state.device_name() == "cpu"
    assert next_state.data_type() == "tensor(float)"
    assert next_state.shape() == [STATE]
    again, _ = session.run_with_ort_values(["next_state", "y"], {"state": next_state, "x": feeds["x"]})
    np.testing.assert_array_equal(next_state.numpy(), np.full(STATE, 2, np.float32))
    np.testing.assert_array_equal(again.numpy(), np.full(STATE, 4, np.float32))
    np.testing.assert_allclose(y.numpy(), X + 2.0 * STATE, rtol=1e-5)


def test_two_sessions_hand_each_other_values() -> None:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.start", "wait")
    options.inter_op_num_threads = 2
    with (
        onnxruntime.InferenceSession(build(), options) as first,
        onnxruntime.InferenceSession(build(), options) as second,
        onnxruntime.InferenceSession(build()) as here,
    ):
        value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ones(STATE, np.float32))
        x_value = onnxruntime.OrtValue.ortvalue_from_numpy(X)
        for session in (first, second, here, first):
            value = session.run_with_ort_values(["next_state"], {"state": value, "x": x_value})[0]
        np.testing.assert_array_equal(value.numpy(), np.full(STATE, 16, np.float32))


def test_a_value_outlives_neither_its_session_nor_its_handle() -> None:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.start", "wait")
    options.inter_op_num_threads = 2
    feeds = {"state": np.ones(STATE, np.float32), "x": X}
    session = onnxruntime.InferenceSession(build(), options)
    values = {n: onnxruntime.OrtValue.ortvalue_from_numpy(v) for n, v in feeds.items()}
    kept = session.run_with_ort_values(["next_state"], values)[0]
    session.close()
    with pytest.raises(InvalidArgument, match="actor"):
        kept.numpy()


def test_actors_free_values_that_nobody_holds() -> None:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.start", "wait")
    options.inter_op_num_threads = 2
    values = {
        "state": onnxruntime.OrtValue.ortvalue_from_numpy(np.ones(STATE, np.float32)),
        "x": onnxruntime.OrtValue.ortvalue_from_numpy(X),
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
    return sum(host.held()[0] for host in session._sess._loaded.engine.executor.hosts)
