"""onnx's node tests through plans of a GPU: some cases of each operator, twice, so that what was learned is used."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.case.node import collect_testcases
from onnx.numpy_helper import to_array

from distort.engine import load_model
from distort.kernels.cuda import plans
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.program import CudaProgram

#: of each operator: the rest would compile kernels that differ little
_CASES = 2
#: whose results are random, or whose suite needs what tests here don't
_LEFT_OUT = ("Bernoulli", "Dropout", "ImageDecoder", "RandomNormal", "RandomUniform", "Multinomial")


def _cases() -> Iterator[Any]:
    """The smallest cases of each operator, which is that of the model's last node."""
    by_operator: dict[str, list[Any]] = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in collect_testcases(None):
            nodes = case.model.graph.node
            if nodes and nodes[-1].op_type not in _LEFT_OUT and "_expanded" not in case.name:
                by_operator[nodes[-1].op_type].append(case)
    for operator, cases in sorted(by_operator.items()):
        for case in sorted(cases, key=lambda case: (len(case.model.SerializeToString()), case.name))[:_CASES]:
            yield pytest.param(case, id=f"{operator}-{case.name.removeprefix('test_')}")


@pytest.fixture(autouse=True)
def errors_of_ours_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "STRICT", True)


def _array(value: Any) -> Any:
    """As runs take it: cases have numbers of NumPy's, and messages for types that it lacks."""
    if isinstance(value, onnx.TensorProto):
        return to_array(value)
    return np.asarray(value) if isinstance(value, (np.generic, np.ndarray)) else value


def _on_host(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_on_host(item) for item in value]
    return value.get() if hasattr(value, "get") and not isinstance(value, dict) else value


def _compare(want: Any, got: Any, rtol: float, atol: float) -> None:
    if isinstance(want, (list, tuple)):
        assert len(want) == len(got)
        for one, other in zip(want, got, strict=True):
            _compare(one, other, rtol, atol)
        return
    if want is None:
        assert got is None
        return
    want, got = np.asarray(want), np.asarray(got)
    assert (want.shape, want.dtype) == (got.shape, got.dtype)
    if want.dtype.kind in "OUb":
        assert np.array_equal(want, got)
    else:
        wide = np.complex128 if want.dtype.kind == "c" else np.float64
        np.testing.assert_allclose(got.astype(wide), want.astype(wide), rtol=rtol, atol=atol)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", list(_cases()))
def test_case(case: Any, fake_cuda_for_all: Any) -> None:
    model = load_model(case.model.SerializeToString(), released_only=False)
    program = CudaProgram(model.graph, CudaOptions(use_tf32=False))  # cases are in single precision
    names: Sequence[str] = [value.name for value in case.model.graph.input]
    for inputs, outputs in case.data_sets:
        feeds = {name: _array(value) for name, value in zip(names, inputs, strict=False)}
        for _ in range(2):
            got = [_on_host(value) for value in program.run(feeds)]
            assert len(got) == len(outputs)
            for want, value in zip(map(_array, outputs), got, strict=True):
                narrow = getattr(want, "dtype", np.dtype(np.float32)).itemsize < 4
                rtol, atol = (2e-2, 1e-4) if narrow else (1e-3, 1e-5)
                _compare(want, value, max(case.rtol, rtol), max(case.atol, atol))
