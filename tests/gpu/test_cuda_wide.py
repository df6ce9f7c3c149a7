"""Kernels whose index arithmetic has 64 bits, which only large tensors need, do the same."""

from __future__ import annotations

import numpy as np
import pytest

from distort.kernels.cuda.codegen import indexing, launches

from .graphs import check
from .simulating import WAYS, Array

RANDOM = np.random.default_rng(29)


def array(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "feeds"),
    [
        ("(float y) { y = Add (x, b) }", {"x": array(3, 5, 7), "b": array(5, 1)}),
        ("(float y) { t = Transpose (x) \n y = Add (t, b) }", {"x": array(40, 33), "b": array(33, 40)}),
        ("(float y) { y = Softmax <axis = 1> (x) }", {"x": array(3, 6, 9)}),
        ("(float y) { y = LayerNormalization (x, g) }", {"x": array(4, 64), "g": array(64)}),
        ("(float y) { y = Gather <axis = 1> (x, i) }", {"x": array(4, 6, 8), "i": np.array([[5, -1], [0, 2]])}),
        ("(float y) { y = ScatterND (x, i, u) }", {"x": array(5, 4), "i": np.array([[1], [1]]), "u": array(2, 4)}),
        ("(float y) { y = MaxPool <kernel_shape = [2, 2]> (x) }", {"x": array(2, 3, 6, 7)}),
        (
            '(float y) <float[4] s = {1.0, 1.0, 2.0, 1.5}> { y = Resize <mode = "linear"> (x, , s) }',
            {"x": array(1, 2, 5, 6)},
        ),
    ],
)
def test_places_in_64_bits(text: str, feeds: dict[str, Array], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "MOST", 1)
    operations = check(text, feeds, ways=WAYS[1:2])
    for operation in operations:
        for launch in launches(operation) or []:
            assert "const long long" in launch.kernel.source
            assert "quotient_of" not in launch.kernel.source
