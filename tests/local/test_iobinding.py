"""The five ways of binding that onnxruntime's API page shows, on the CPU, in this process and on actors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest

import distort as onnxruntime

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
two (float[N,4] input) => (float[N,4] output) {
    doubled = Add (input, input)
    shifted = Sub (doubled, one)
    output = Relu (shifted)
}
"""
X = np.arange(12, dtype=np.float32).reshape(3, 4)
Y = np.maximum(2 * X - 1, 0)


@pytest.fixture(params=["sequential", "parallel"], scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[onnxruntime.InferenceSession]:
    model = onnx.parser.parse_model(MODEL)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "one"))
    options = onnxruntime.SessionOptions()
    if request.param == "parallel":
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        options.add_session_config_entry("distort.start", "wait")
        options.inter_op_num_threads = 2
    with onnxruntime.InferenceSession(model.SerializeToString(), options) as opened:
        yield opened


@pytest.fixture(autouse=True, scope="module")
def no_actor_outlives_its_test(cluster: None) -> None:
    """One session serves this module; the module before and after check for themselves."""


def test_1_arrays_in_and_out(session: onnxruntime.InferenceSession) -> None:
    binding = session.io_binding()
    binding.bind_cpu_input("input", X)
    binding.bind_output("output")
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], Y)


def test_2_an_input_in_memory_of_a_device(session: onnxruntime.InferenceSession) -> None:
    value = onnxruntime.OrtValue.ortvalue_from_numpy(X, "cpu", 0)
    binding = session.io_binding()
    binding.bind_input(
        name="input",
        device_type=value.device_name(),
        device_id=0,
        element_type=np.float32,
        shape=value.shape(),
        buffer_ptr=value.data_ptr(),
    )
    binding.bind_output("output")
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], Y)


def test_3_an_output_into_memory_that_is_there(session: onnxruntime.InferenceSession) -> None:
    value = onnxruntime.OrtValue.ortvalue_from_numpy(X)
    result = onnxruntime.OrtValue.ortvalue_from_shape_and_type([3, 4], np.float32, "cpu", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("input", value)
    binding.bind_output(
        name="output",
        device_type=result.device_name(),
        device_id=0,
        element_type=np.float32,
        shape=result.shape(),
        buffer_ptr=result.data_ptr(),
    )
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(result.numpy(), Y)


def test_4_an_output_whose_shape_nobody_knows_stays_on_its_device(session: onnxruntime.InferenceSession) -> None:
    binding = session.io_binding()
    binding.bind_cpu_input("input", X)
    binding.bind_output("output", "cpu")
    session.run_with_iobinding(binding)
    (value,) = binding.get_outputs()
    assert value.shape() == [3, 4] and value.device_name() == "cpu" and value.is_tensor()
    np.testing.assert_array_equal(value.numpy(), Y)


def test_5_ortvalues_bound_and_bound_again(session: onnxruntime.InferenceSession) -> None:
    value = onnxruntime.OrtValue.ortvalue_from_numpy(X.copy())  # it aliases what it is made from
    result = onnxruntime.OrtValue.ortvalue_from_shape_and_type([3, 4], np.float32)
    binding = session.io_binding()
    binding.bind_ortvalue_input("input", value)
    binding.bind_ortvalue_output("output", result)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(result.numpy(), Y)
    value.update_inplace(X + 1)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(result.numpy(), Y + 2 - (X == 0))
