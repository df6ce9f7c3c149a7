"""Kernels of users: in one process, on actors, replaced, forgotten, and wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import distort
from distort.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, NotImplemented, RuntimeException

ROOT = Path(__file__).resolve().parents[2]
MODEL = """
<ir_version: 9, opset_import: ["" : 17, "test" : 2]>
m (float[N,4] x) => (float[N,4] y, float[N,4] z) {
    a = Add (x, x)
    b = test.Blend <share = 0.25> (a, x)
    y = Sqrt (b)
    z = test.Blend (b, y)
}
"""
_OFFSET = np.float32(1)  # what a kernel reads of its module travels with it


def blend(xp: Any, a: Any, b: Any, *, share: float = 0.5) -> Any:
    return a * xp.float32(share) + b * xp.float32(1 - share) + _OFFSET


def build() -> bytes:
    return onnx.parser.parse_model(MODEL).SerializeToString()


@pytest.fixture
def registered() -> Iterator[None]:
    distort.register_kernel("test", "Blend", 1, blend, shape_inference=lambda inputs, attributes: [inputs[0]])
    yield
    distort.unregister_kernel("test", "Blend", 1)


def expected(x: np.ndarray) -> list[np.ndarray]:
    b = x * 2 * np.float32(0.25) + x * np.float32(0.75) + 1
    return [np.sqrt(b), b * np.float32(0.5) + np.sqrt(b) * np.float32(0.5) + 1]


X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("n_actors", [0, 2, 3])
def test_runs_here_and_on_actors(n_actors: int) -> None:
    options = distort.SessionOptions()
    if n_actors:
        options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
        options.add_session_config_entry("distort.start", "wait")
        options.inter_op_num_threads = n_actors
    with distort.InferenceSession(build(), options) as session:
        assert len(session.plan.stages) == max(n_actors, 1)
        for got, want in zip(session.run(None, {"x": X}), expected(X), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.usefixtures("registered")
def test_shapes_go_through_operators_with_a_hook() -> None:
    from distort.graph.inference import infer
    from distort.graph.reader import parse, read_model
    from distort.graph.types import TensorType

    model = read_model(*parse(build()))
    assert infer(model) == []
    assert model.graph.types["b"] == model.graph.types["a"] == TensorType(1, ("N", 4))


def test_a_hook_that_fails_names_its_node() -> None:
    from distort.graph.errors import ModelError
    from distort.graph.inference import infer
    from distort.graph.reader import parse, read_model

    def hook(inputs: Any, attributes: Any) -> Any:
        raise LookupError("no such thing")

    distort.register_kernel("test", "Blend", 1, blend, shape_inference=hook)
    try:
        with pytest.raises(ModelError, match=r"Node \(Blend -> b\) Op \(Blend\).*LookupError: no such thing"):
            infer(read_model(*parse(build())))
    finally:
        distort.unregister_kernel("test", "Blend", 1)


@pytest.mark.usefixtures("registered")
def test_a_later_version_and_a_replacement() -> None:
    before = distort.InferenceSession(build())
    distort.register_kernel("test", "Blend", 2, lambda xp, a, b, *, share=0.5: a)
    try:
        after = distort.InferenceSession(build())
        np.testing.assert_array_equal(after.run(["y"], {"x": X})[0], np.sqrt(X * 2))
        np.testing.assert_allclose(before.run(["y"], {"x": X})[0], expected(X)[0], rtol=1e-6)
    finally:
        distort.unregister_kernel("test", "Blend", 2)
    with pytest.raises(KeyError, match=r"test:Blend\(2\)"):
        distort.unregister_kernel("test", "Blend", 2)


def test_goes_before_an_operator_of_onnx() -> None:
    distort.register_kernel("", "Sqrt", 13, lambda xp, x: x)
    try:
        model = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> m (float[2] x) => (float[2] y) { y = Sqrt (x) }'
        )
        x = np.array([4, 9], np.float32)
        np.testing.assert_array_equal(distort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0], x)
    finally:
        distort.unregister_kernel("ai.onnx", "Sqrt", 13)


def test_without_a_kernel() -> None:
    with pytest.raises((NotImplemented, Fail, InvalidArgument, RuntimeException), match="Blend"):
        distort.InferenceSession(build())


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("n_actors", [0, 2])
def test_an_exception_in_a_kernel_names_its_node(n_actors: int) -> None:
    def fails(xp: Any, a: Any, b: Any, *, share: float = 0.5) -> Any:
        raise OSError("the sensor is off")

    distort.register_kernel("test", "Blend", 1, fails)
    options = distort.SessionOptions()
    if n_actors:
        options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
        options.add_session_config_entry("distort.start", "wait")
        options.inter_op_num_threads = n_actors
    with (
        distort.InferenceSession(build(), options) as session,
        pytest.raises(Fail, match=r"(?s)while running Blend node.*OSError: the sensor is off"),
    ):
        session.run(None, {"x": X})


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("test", "", 1, blend), TypeError, "op_type"),
        (("test", "Blend", 0, blend), ValueError, "since_version is 0"),
        (("test", "Blend", True, blend), ValueError, "since_version"),
        (("test", "Blend", 1, np.add), TypeError, "Python function, not ufunc"),
    ],
)
def test_wrong_registrations(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        distort.register_kernel(*arguments)


def test_unknown_device() -> None:
    with pytest.raises(ValueError, match="device is 'tpu'"):
        distort.register_kernel("test", "Blend", 1, blend, device="tpu")


@pytest.mark.slow
def test_the_example() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "custom_operator" / "distances.py")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == ["Lisbon (503 km), Quito (722 km)"] * 2
