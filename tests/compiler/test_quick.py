"""Runs that have been gone before take a short way: with the same results, and the same errors."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import pytest

import distort
from distort.capi.onnxruntime_pybind11_state import InvalidArgument

_TEXT = """<ir_version: 10, opset_import: ["": 20]>
g (float[N,3] x, int64[M] i) => (float[M,3] y, float[N,3] z) {
    z = Tanh(x)
    y = Gather<axis=0>(z, i)
}"""
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
INDICES = np.array([3, 0], np.int64)


@pytest.fixture
def session() -> distort.InferenceSession:
    options = distort.SessionOptions()
    options.add_session_config_entry("distort.compile", "1")
    model = onnx.parser.parse_model(_TEXT).SerializeToString()
    made = distort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    made.run(None, {"x": X, "i": INDICES})
    assert made._sess._quick is not None and made._sess._quick.run(None, {"x": X, "i": INDICES}) is not None
    return made


def check(session: distort.InferenceSession, x: np.ndarray, i: np.ndarray) -> None:
    y, z = session.run(None, {"x": x, "i": i})
    np.testing.assert_allclose(z, np.tanh(x), rtol=1e-6)
    np.testing.assert_array_equal(y, z[i])
    assert y.flags.owndata and y.flags.writeable


def test_other_feeds_of_the_same_kind(session: distort.InferenceSession) -> None:
    check(session, X * 2, INDICES[::-1])
    check(session, np.asfortranarray(X), INDICES)
    check(session, X[::-1], INDICES)


def test_other_shapes_and_back(session: distort.InferenceSession) -> None:
    for n in (1, 4, 7, 4):
        check(session, np.ones((n, 3), np.float32), np.zeros(n, np.int64))


def test_some_outputs_in_any_order(session: distort.InferenceSession) -> None:
    for _ in range(2):
        z, y = session.run(["z", "y"], {"i": INDICES, "x": X})
        assert z.shape == (4, 3) and y.shape == (2, 3)
        (alone,) = session.run(["z"], {"i": INDICES, "x": X})
        np.testing.assert_array_equal(alone, z)
        twice = session.run(["z", "z"], {"i": INDICES, "x": X})
        assert not np.shares_memory(*twice)
        assert len(session.run((name for name in ("y", "z")), {"x": X, "i": INDICES})) == 2


def test_errors_are_as_before(session: distort.InferenceSession) -> None:
    with pytest.raises(ValueError, match="missing from input feed"):
        session.run(None, {"x": X})
    with pytest.raises(InvalidArgument, match="Unexpected input data type"):
        session.run(None, {"x": X.astype(np.float64), "i": INDICES})
    with pytest.raises(InvalidArgument, match="Invalid output name"):
        session.run(["nope"], {"x": X, "i": INDICES})
    with pytest.raises(InvalidArgument, match="Invalid input name"):
        session.run(None, {"x": X, "i": INDICES, "more": X})
    with pytest.raises(Exception, match="Gather"):
        session.run(None, {"x": X, "i": np.array([9, 0])})
    check(session, X, INDICES)


def test_results_are_the_callers(session: distort.InferenceSession) -> None:
    first = session.run(None, {"x": X, "i": INDICES})
    kept = [value.copy() for value in first]
    for value in first:
        value += 1
    second = session.run(None, {"x": X, "i": INDICES})
    for value, want in zip(second, kept, strict=True):
        np.testing.assert_array_equal(value, want)


def test_a_closed_session_does_not_run(session: distort.InferenceSession) -> None:
    session.close()
    with pytest.raises(Exception, match="closed"):
        session.run(None, {"x": X, "i": INDICES})


def test_from_several_threads(session: distort.InferenceSession) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(200):
                check(session, X * number + turn, INDICES)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test tells of it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
