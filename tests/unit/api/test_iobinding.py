"""IOBinding in this process: the five scenarios of onnxruntime's API page, and the errors."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

import distort
from distort import IOBinding, OrtValue

WANTED = [[1, 4], [9, 16], [25, 36]]
X = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
ADVICE = "\n Please fix either the inputs/outputs or the model."


@pytest.fixture
def session(mul: bytes) -> distort.InferenceSession:
    return distort.InferenceSession(mul)


def test_input_and_output_on_the_cpu(session: distort.InferenceSession, x: np.ndarray) -> None:
    binding = session.io_binding()
    binding.bind_cpu_input("X", x)
    binding.bind_output("Y")
    session.run_with_iobinding(binding)
    assert binding.copy_outputs_to_cpu()[0].tolist() == WANTED


@pytest.mark.parametrize("element_type", [np.float32, 1, "float32", np.dtype(np.float32)])
def test_input_by_address(session: distort.InferenceSession, x: np.ndarray, element_type: object) -> None:
    value = OrtValue.ortvalue_from_numpy(x)
    binding = session.io_binding()
    binding.bind_input("X", value.device_name(), 0, element_type, value.shape(), value.data_ptr())
    binding.bind_output("Y")
    session.run_with_iobinding(binding)
    assert binding.copy_outputs_to_cpu()[0].tolist() == WANTED


def test_output_in_a_buffer_by_address(session: distort.InferenceSession, x: np.ndarray) -> None:
    y = OrtValue.ortvalue_from_numpy(np.zeros((3, 2), np.float32))
    binding = session.io_binding()
    binding.bind_cpu_input("X", x)
    binding.bind_output("Y", y.device_name(), 0, np.float32, y.shape(), y.data_ptr())
    session.run_with_iobinding(binding)
    assert y.numpy().tolist() == WANTED
    assert binding.get_outputs()[0].data_ptr() == y.data_ptr()


def test_output_that_the_run_allocates(session: distort.InferenceSession, x: np.ndarray) -> None:
    binding = IOBinding(session)
    binding.bind_cpu_input("X", x)
    binding.bind_output("Y", "cpu")
    assert [value.has_value() for value in binding.get_outputs()] == [False]
    session.run_with_iobinding(binding, distort.RunOptions())
    (value,) = binding.get_outputs()
    assert (value.device_name(), value.shape(), value.numpy().tolist()) == ("cpu", [3, 2], WANTED)
    assert len(binding.get_outputs_as_ortvaluevector()) == 1


def test_ort_values_on_both_sides(session: distort.InferenceSession, x: np.ndarray) -> None:
    y = OrtValue.ortvalue_from_shape_and_type([3, 2], np.float32)
    binding = session.io_binding()
    binding.bind_ortvalue_input("X", OrtValue.ortvalue_from_numpy(x))
    binding.bind_ortvalue_output("Y", y)
    session.run_with_iobinding(binding)
    assert y.numpy().tolist() == WANTED


def _bind(binding: IOBinding, feed: np.ndarray | None = X, output: str | None = "Y") -> None:
    if feed is not None:
        binding.bind_cpu_input("X", feed)
    if output is not None:
        binding.bind_output(output)


@pytest.mark.parametrize(
    ("bind", "text"),
    [
        (lambda b: _bind(b, output="Q"), "Invalid output name: Q"),
        (lambda b: _bind(b, output=None), "At least one output should be requested."),
        (
            lambda b: _bind(b, X.astype(np.float64)),
            "Unexpected input data type. Actual: (tensor(double)) , expected: (tensor(float))",
        ),
        (
            lambda b: _bind(b, X[:1]),
            "Got invalid dimensions for input: X for the following indices\n index: 0 Got: 1 Expected: 3" + ADVICE,
        ),
        (
            lambda b: _bind(b, None),
            "Non-zero status code returned while running Mul node. Name:'mul_1' Status Message: Missing Input: X",
        ),
        (
            lambda b: (_bind(b), b.clear_binding_inputs()),
            "Non-zero status code returned while running Mul node. Name:'mul_1' Status Message: Missing Input: X",
        ),
        (lambda b: (_bind(b), b.clear_binding_outputs()), "At least one output should be requested."),
        (
            lambda b: (_bind(b), b.bind_ortvalue_output("Y", OrtValue.ortvalue_from_shape_and_type([2, 3], 1))),
            "Got invalid dimensions for output: Y for the following indices\n index: 0 Got: 2 Expected: 3\n index: 1 "
            "Got: 3 Expected: 2" + ADVICE,
        ),
        (
            lambda b: (_bind(b), b.bind_ortvalue_output("Y", OrtValue.ortvalue_from_shape_and_type([3, 2], 11))),
            "Unexpected output data type. Actual: (tensor(double)) , expected: (tensor(float))",
        ),
    ],
)
def test_errors_of_runs(session: distort.InferenceSession, bind: Callable[[IOBinding], object], text: str) -> None:
    binding = session.io_binding()
    bind(binding)
    with pytest.raises(RuntimeError) as caught:
        session.run_with_iobinding(binding)
    assert type(caught.value) is RuntimeError
    assert str(caught.value) == f"Error in execution: {text}"


@pytest.mark.parametrize(
    ("bind", "error", "text"),
    [
        (
            lambda b: b.bind_cpu_input("Q", X),
            RuntimeError,
            "Failed to find NodeArg with name: Q in the def list",
        ),
        (
            lambda b: b.bind_ortvalue_input("Q", OrtValue.ortvalue_from_numpy(X)),
            RuntimeError,
            "Error when binding input: Failed to find input name in the mapping: Q",
        ),
        (
            lambda b: b.bind_cpu_input("X", [1.0]),
            RuntimeError,
            "Unable to create OrtValue from the given python object",
        ),
        (
            lambda b: b.bind_cpu_input("X", np.array(["a"])),
            RuntimeError,
            "Only binding non-string Tensors is currently supported",
        ),
        (lambda b: b.bind_ortvalue_input("X", X), AttributeError, "numpy.ndarray"),
        (lambda b: b.bind_output("Y", "foo"), Exception, "Unsupported device type: foo"),
        (
            lambda b: b.bind_output("Y", "cpu", 0, np.float32, None, 5),
            ValueError,
            "`element_type` and `shape` are to be provided if pre-allocated memory is provided",
        ),
        (lambda b: b.bind_input("X", "cpu", 0, np.float32, [3, 2], None), TypeError, "bind_input(): incompatible"),
    ],
)
def test_errors_of_binding(
    session: distort.InferenceSession, bind: Callable[[IOBinding], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=re.escape(text)):
        bind(session.io_binding())


def test_a_buffer_of_the_wrong_shape_for_this_run(relu: bytes, x: np.ndarray) -> None:
    session = distort.InferenceSession(relu)
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_ortvalue_output("y", OrtValue.ortvalue_from_shape_and_type([5, 2], np.float32))
    with pytest.raises(RuntimeError, match=r"has shape \{5,2\} but the computed output shape for this run is \{3,2\}"):
        session.run_with_iobinding(binding)


def test_a_bound_array_is_read_anew_by_each_run(session: distort.InferenceSession, x: np.ndarray) -> None:
    binding = session.io_binding()
    _bind(binding, x)
    session.run_with_iobinding(binding)
    before = binding.copy_outputs_to_cpu()[0]
    x[:] = 0
    session.run_with_iobinding(binding)
    assert before.tolist() == WANTED
    assert not binding.copy_outputs_to_cpu()[0].any()
    binding.bind_cpu_input("X", np.ones((3, 2), np.float32))
    session.run_with_iobinding(binding)
    assert binding.copy_outputs_to_cpu()[0].tolist() == [[1, 2], [3, 4], [5, 6]]


def test_another_sessions_binding(session: distort.InferenceSession, mul: bytes) -> None:
    with pytest.raises(ValueError, match=re.escape("IOBinding must be used with the session that created it.")):
        distort.InferenceSession(mul).run_with_iobinding(session.io_binding())


def test_copying_before_a_run_raises(session: distort.InferenceSession) -> None:
    binding = session.io_binding()
    assert binding.copy_outputs_to_cpu() == []
    binding.bind_output("Y")
    with pytest.raises(RuntimeError, match="Output Y holds nothing yet"):
        binding.copy_outputs_to_cpu()


def test_outputs_come_in_the_order_of_binding(model: Callable[[str], bytes]) -> None:
    text = "two (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Neg(x) }"
    session = distort.InferenceSession(model(text))
    binding = session.io_binding()
    binding.bind_cpu_input("x", np.ones(2, np.float32))
    binding.bind_output("z")
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    assert [array.tolist() for array in binding.copy_outputs_to_cpu()] == [[-1, -1], [1, 1]]


@pytest.mark.parametrize("device", ["cuda", "dml", "npu"])
def test_an_address_in_a_device_that_is_not_here(session: distort.InferenceSession, device: str) -> None:
    with pytest.raises(RuntimeError, match="Error when binding input: There's no data transfer registered"):
        session.io_binding().bind_input("X", device, 0, np.float32, [3, 2], X.ctypes.data)


@pytest.mark.parametrize(
    ("element_type", "shape", "text"),
    [
        ("nope", [3, 2], "Not a valid numpy type"),
        (np.float32, [-3, 2], "shape.Size() must >=0"),
        (22, [3, 2], "Elements smaller than a byte are packed"),
    ],
)
def test_what_an_address_can_not_hold(
    session: distort.InferenceSession, element_type: object, shape: list[int], text: str
) -> None:
    binding = session.io_binding()
    with pytest.raises(RuntimeError, match=re.escape(text)):
        binding.bind_input("X", "cpu", 0, element_type, shape, X.ctypes.data)
    with pytest.raises(RuntimeError, match=re.escape(text)):
        binding.bind_output("Y", "cpu", 0, element_type, shape, X.ctypes.data)
