"""set_seed: sessions made after it draw the same numbers, node by node."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import distort
from distort.process import Settings

MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[8] x, bool once) => (float[8] a, float[8] b, float[8] c, float[8] d) {
    a = RandomNormalLike (x)
    b = RandomNormalLike (x)
    c = RandomUniformLike <seed = 5.0> (x)
    train = Constant <value = bool {1}> ()
    d = If (once) <
        then_branch = yes () => (float[8] e) { half = Constant <value = float {0.5}> () e = Dropout (x, half, train) },
        else_branch = no () => (float[8] f) { f = Identity (x) }
    >
}
"""
FEEDS = {"x": np.ones(8, np.float32), "once": np.array(True)}


def drawn(n_runs: int = 1) -> list[np.ndarray]:
    session = distort.InferenceSession(onnx.parser.parse_model(MODEL).SerializeToString())
    return [value for _ in range(n_runs) for value in session.run(None, FEEDS)]


@pytest.fixture(autouse=True)
def unseeded_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "seed", None)


def test_seeded_sessions_draw_the_same() -> None:
    distort.set_seed(11)
    first, again = drawn(2), drawn(2)
    distort.set_seed(12)
    other = drawn(2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1]), "two nodes draw different numbers"
    assert not np.array_equal(first[0], first[4]), "the second run goes on where the first stopped"
    assert not np.array_equal(first[0], other[0])
    np.testing.assert_array_equal(first[2], other[2])  # a node's own seed stays


def test_without_a_seed_sessions_differ() -> None:
    assert not np.array_equal(drawn()[0], drawn()[0])
