"""Small models, as bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx.parser
import pytest

_HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'


@pytest.fixture(scope="session")
def model() -> Callable[[str], bytes]:
    """A graph in ONNX's text form as a serialized model."""
    return lambda graph: onnx.parser.parse_model(_HEADER + graph).SerializeToString()


@pytest.fixture(scope="session")
def mul(model: Callable[[str], bytes]) -> bytes:
    """Y [3,2] = X * [[1,2],[3,4],[5,6]]."""
    return model("mul (float[3,2] X) => (float[3,2] Y) <float[3,2] W = {1,2,3,4,5,6}> { [mul_1] Y = Mul(X, W) }")


@pytest.fixture(scope="session")
def relu(model: Callable[[str], bytes]) -> bytes:
    """y = relu(x), any number of rows."""
    return model("relu (float[N,2] x) => (float[N,2] y) { y = Relu(x) }")


@pytest.fixture
def x() -> np.ndarray:
    return np.arange(1, 7, dtype=np.float32).reshape(3, 2)
