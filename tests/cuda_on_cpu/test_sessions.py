"""Sessions on the GPU over the real CuPy: the trained models, by nodes, by a plan and as a graph."""

from __future__ import annotations

from typing import Any

import pytest

import distort

from ..models import real

CUDA: list[Any] = [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]


@pytest.mark.models
@pytest.mark.parametrize("name", real.REAL)
def test_trained_model(name: str) -> None:
    session = distort.InferenceSession(str(real.model_path(name)), providers=CUDA)
    assert session.get_providers()[0] == "CUDAExecutionProvider"
    feeds, expected = real.feeds_of(name), real.expected_of(name)
    names = [output.name for output in session.get_outputs()]
    for _ in range(3):
        results = dict(zip(names, session.run(None, feeds), strict=True))
        for output, want in expected.items():
            real.assert_close(name, output, results[output], want)
