"""The tests of onnxruntime's own operators, each model run over CuPy as well."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

import distort
from distort.kernels.cuda.waits import WAITS

from ..differential.oracle import answers
from .bodies import compare

MODULES = {
    name: importlib.import_module(f"..differential.test_{name}", __package__)
    for name in (
        "contrib_attention",
        "contrib_basics",
        "contrib_dense",
        "contrib_experts",
        "contrib_gated",
        "contrib_generation",
        "contrib_grouped_query",
        "contrib_qlinear",
        "contrib_quantized_matmul",
        "contrib_sparse",
        "matmul_nbits",
    )
}
for _name, _module in MODULES.items():
    globals().update({f"{key}_of_{_name}": value for key, value in vars(_module).items() if key.startswith("test_")})


@pytest.fixture(autouse=True)
def over_cupy(fake_cuda_for_all: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sessions of these tests run their model over CuPy too, and no other onnxruntime is asked."""
    session = distort.InferenceSession

    class Both(session):  # type: ignore[valid-type, misc]
        def __init__(self, model: bytes, *args: Any, **kwargs: Any) -> None:
            super().__init__(model, *args, **kwargs)
            self._content = model

        def run(self, names: Sequence[str] | None, feeds: Mapping[str, Any], *args: Any) -> Any:
            results = super().run(names, feeds, *args)
            bodies = compare(fake_cuda_for_all, self._content, {name: _plain(value) for name, value in feeds.items()})
            waiting = {key for key, cost in bodies.costs.items() if cost["synchronization"]}
            assert waiting <= set(WAITS)
            return results

    def ours_alone(*args: Any, rtol: float = 0, atol: float = 0, **model: Any) -> list[Any]:
        return answers(*args, **model)

    monkeypatch.setattr(distort, "InferenceSession", Both)
    for module in MODULES.values():
        monkeypatch.setattr(module, "against_onnxruntime", ours_alone, raising=False)
    yield


def _plain(value: Any) -> Any:
    """A feed as kernels have it: text in arrays of objects, sparse tensors as such."""
    if isinstance(value, distort.OrtValue):
        return value._get_c_value()._value
    return value.astype(object) if getattr(value, "dtype", np.dtype(bool)).kind in "US" else value


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_quantized_mean(keepdims: int) -> None:
    x = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    inputs = [x, np.array(0.5, np.float32), np.array(3, np.uint8), np.array(0.25, np.float32), np.array(1, np.uint8)]
    [y] = answers(
        "QLinearReduceMean",
        inputs,
        {"axes": [1, 2], "keepdims": keepdims},
        output_types={0: TensorProto.UINT8},
    )
    want = np.rint((x.astype(np.float32) - 3).mean(axis=(1, 2), keepdims=bool(keepdims)) * 0.5 / 0.25) + 1
    np.testing.assert_array_equal(y, want.astype(np.uint8))
