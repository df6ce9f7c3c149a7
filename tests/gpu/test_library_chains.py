"""What follows a product or a convolution, drawn by chance: sums, factors, casts, activations in types that change.

Some of it becomes part of the library's operation, the rest kernels; results are the plain program's either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from distort.kernels.cuda.device_libraries import Libraries
from distort.kernels.cuda.options import CudaOptions

from .lowered import run
from .test_library_operations import node, real

DTYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}
#: to what comes before: (operator, attributes), or another operand ("bias", "residual", "half")
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("Relu", {}),
    "gelu": ("Gelu", {"approximate": "tanh"}),
    "sigmoid": ("Sigmoid", {}),
    "leaky": ("LeakyRelu", {"alpha": 0.1}),
    **{f"cast {to}": ("Cast", {"to": to}) for to in DTYPES},
}
OPERANDS = {"bias": "Add", "residual": "Add", "half": "Mul"}
#: what is added and what follows at once, which is where types change unseen; or one step
_DRAWN = [(added, then) for added in ("bias", "residual") for then in STEPS] + [(step,) for step in OPERANDS]


@pytest.fixture(scope="module")
def libraries(fake_cuda_for_all: Any) -> Iterator[Libraries]:
    made = Libraries(90, CudaOptions(cudnn_conv_algo_search="HEURISTIC", use_tf32=False))
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["MatMul", "Conv"])
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_chains_are_as_the_plain_program(kind: str, libraries: Libraries, fake_cuda_for_all: Any, data: Any) -> None:
    element = data.draw(st.sampled_from(list(DTYPES)))
    steps = [step for part in data.draw(st.lists(st.sampled_from(_DRAWN), min_size=1, max_size=3)) for step in part]
    if kind == "Conv":
        feeds = {"x": real(2, 4, 5, 6), "w": real(8, 4, 3, 3)}
        shape, bias = (2, 8, 5, 6), (8, 1, 1)
        nodes = [node("Conv", "x w", "v0", pads=[1] * 4)]
    else:
        feeds = {"x": real(2, 5, 8), "w": real(8, 16)}
        shape, bias = (2, 5, 16), (16,)
        nodes = [node("MatMul", "x w", "v0")]
    feeds = {name: value.astype(DTYPES[element]) for name, value in feeds.items()}
    weights: dict[str, Any] = {}
    for number, step in enumerate(steps):
        before, after = f"v{number}", "y" if number == len(steps) - 1 else f"v{number + 1}"
        if step in STEPS:
            operator, attributes = STEPS[step]
            nodes.append(node(operator, before, after, **attributes))
            element = attributes.get("to", element)
            continue
        sizes = {"bias": bias, "residual": shape, "half": ()}[step]
        value = np.full(sizes, 0.5) if step == "half" else real(*sizes, seed=number)
        weights[f"c{number}"] = np.asarray(value).astype(DTYPES[element])
        nodes.append(node(OPERANDS[step], f"{before} c{number}", after))
    run(nodes, feeds, weights, libraries, fake_cuda_for_all.cuda.Stream(non_blocking=True)).close(4e-2, 8e-2)
