"""Runs that have been gone before take a short way: with the same results, and the same errors."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

import distort
from distort.capi.onnxruntime_pybind11_state import InvalidArgument
from distort.kernels.compiler import entering

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


def test_feeds_that_are_not_as_before_are_found_natively(session: distort.InferenceSession) -> None:
    quick = session._sess._quick
    assert quick is not None and quick._last is not None
    run = quick._last.run
    assert run.is_direct and run.direct({"i": INDICES, "x": X}) is not None
    others: list[object] = [X.astype(np.float64), X[:3], X[:, :2], X[None], X.T.copy().T, X[::-1], X.tolist(), None]
    others += [X.view(np.recarray), X.astype(">f4"), X.view(np.int32), np.ma.array(X), np.float32(1), "text"]
    for other in others:
        assert run.direct({"x": other, "i": INDICES}) is None
    assert run.direct({"x": X}) is None
    assert run.direct({"x": X, "i": np.array([9, 0])}) is None
    check(session, X, INDICES)


_LABELS = """<ir_version: 10, opset_import: ["": 20, "ai.onnx.ml": 3]>
g (float[N,2] x, string[M] t) => (string[N] label, float[N,2] scores, seq(map(string, float)) maps, int64[M] n) {
    label, scores = ai.onnx.ml.LinearClassifier<coefficients=[1.0, 0.0, 0.0, 1.0], intercepts=[0.0, 0.0],
        classlabels_strings=["a", "b"], post_transform="NONE">(x)
    maps = ai.onnx.ml.ZipMap<classlabels_strings=["a", "b"]>(scores)
    n = ai.onnx.ml.LabelEncoder<keys_strings=["x", "y", "7"], values_int64s=[1, 2, 7], default_int64=-1>(t)
}"""


@pytest.fixture(params=[True, False], ids=["natively", "in Python"])
def labels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> distort.InferenceSession:
    monkeypatch.setattr(entering, "is_possible", lambda: request.param)
    model = onnx.parser.parse_model(_LABELS.replace("seq(map(string, float))", "float"))
    maps = model.graph.output[2]
    maps.type.Clear()
    maps.type.sequence_type.elem_type.map_type.key_type = onnx.TensorProto.STRING
    maps.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return distort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def check_labels(session: distort.InferenceSession, x: np.ndarray, t: np.ndarray, n: list[int]) -> None:
    label, scores, maps, numbers = session.run(None, {"x": x, "t": t})
    assert label.dtype == object and label.tolist() == ["ab"[i] for i in x.argmax(axis=1)]
    np.testing.assert_array_equal(scores, x)
    assert maps == [{"a": float(a), "b": float(b)} for a, b in x]
    assert all(type(value) is float for one in maps for value in one.values())
    assert numbers.dtype == np.int64 and numbers.tolist() == n
    label[:] = None
    maps.clear()
    numbers += 1


def test_text_and_maps(labels: distort.InferenceSession) -> None:
    x, text = np.array([[1, 2], [4, 3], [0, 5]], np.float32), np.array(["y", "?", "x"], object)
    for turn in range(4):
        check_labels(labels, x - turn, text, [2, -1, 1])
    quick = labels._sess._quick
    assert quick is not None and quick.run(None, {"x": x, "t": text}) is not None
    check_labels(labels, x[::-1], text[::-1], [1, -1, 2])
    check_labels(labels, x, np.array(["x", "y", "none"]), [1, 2, -1])
    check_labels(labels, x, np.array(["x", 7, "7"], object), [1, 7, 7])  # what is no text is converted
    for n in (1, 0, 2):
        for _ in range(3):
            check_labels(labels, x[: n or 1], text[:n], [2, -1, 1][:n])


@pytest.mark.parametrize("n", [1, 2, 70])
def test_maps_and_labels_of_what_only_kernels_see(n: int) -> None:
    text = _LABELS.replace(", float[N,2] scores, seq(map(string, float)) maps, int64[M] n)", ", float maps)")
    text = text.replace(", string[M] t", "").replace("ZipMap<", "ZipMap <").split("    n = ")[0] + "}"
    model = onnx.parser.parse_model(text)
    maps = model.graph.output[1].type
    maps.Clear()
    maps.sequence_type.elem_type.map_type.key_type = onnx.TensorProto.STRING
    maps.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    session = distort.InferenceSession(model.SerializeToString())
    for turn in range(5):
        x = np.random.default_rng(turn).standard_normal((n, 2)).astype(np.float32)
        label, made = session.run(None, {"x": x})
        assert label.tolist() == ["ab"[i] for i in x.argmax(axis=1)]
        assert made == [{"a": float(a), "b": float(b)} for a, b in x]
        label[:] = None
        made.clear()


@pytest.mark.parametrize("zeros", [0, 1])
def test_a_text_as_one_of_categories(zeros: int) -> None:
    text = f"""<ir_version: 10, opset_import: ["": 20, "ai.onnx.ml": 3]>
    g (string[N,1] a, string[N,1] b, float[N,2] x) => (float[N,M] y)
    <int64[1] first = {{0}}, int64[1] second = {{1}}> {{
        both = Concat<axis=1>(a, b)
        one = ai.onnx.ml.ArrayFeatureExtractor(both, first)
        other = ai.onnx.ml.ArrayFeatureExtractor(both, second)
        p = ai.onnx.ml.OneHotEncoder<cats_strings=["u", "v", "w"], zeros={zeros}>(one)
        q = ai.onnx.ml.OneHotEncoder<cats_strings=["k", "l"], zeros={zeros}>(other)
        shape = Constant<value_ints=[-1, 3]>()
        pairs = Constant<value_ints=[-1, 2]>()
        r = Reshape(p, shape)
        s = Reshape(q, pairs)
        y = Concat<axis=1>(x, r, s)
    }}"""
    session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    rng = np.random.default_rng(0)
    for n in (1, 1, 1, 1, 3, 3, 3, 1):
        a, b = rng.choice(["u", "v", "w"], (n, 1)).astype(object), rng.choice(["k", "l"], (n, 1)).astype(object)
        x = rng.standard_normal((n, 2)).astype(np.float32)
        (y,) = session.run(None, {"a": a, "b": b, "x": x})
        np.testing.assert_array_equal(y, np.concatenate([x, a == ["u", "v", "w"], b == ["k", "l"]], axis=1))
    wrong = {"a": np.array([["?"]], object), "b": np.array([["k"]], object), "x": x[:1]}
    if zeros:
        np.testing.assert_array_equal(session.run(None, wrong)[0][0, 2:], [0, 0, 0, 1, 0])
    else:
        with pytest.raises(Exception, match="Unknown Category"):
            session.run(None, wrong)


@pytest.mark.parametrize("values", ["values_int64s=[4, 5]", "values_floats=[4.0, 5.0]"])
def test_a_text_as_a_number(values: str) -> None:
    text = f"""<ir_version: 10, opset_import: ["": 20, "ai.onnx.ml": 2]>
    g (string[N,1] a, float[N,1] x) => (float[N,1] y) {{
        n = ai.onnx.ml.LabelEncoder<keys_strings=["u", "v"], {values}, default_int64=-1, default_float=-1.0>(a)
        f = Cast<to=1>(n)
        y = Add(f, x)
    }}"""
    session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    for turn, a in enumerate(["u", "v", "v", "?", "u", "v"]):
        for n in (1, 2):
            x = np.full((n, 1), turn, np.float32)
            (y,) = session.run(None, {"a": np.full((n, 1), a, object), "x": x})
            np.testing.assert_array_equal(y, x + {"u": 4, "v": 5, "?": -1}[a])


def test_text_from_several_threads(labels: distort.InferenceSession) -> None:
    x, text = np.array([[1, 2], [4, 3], [0, 5]], np.float32), np.array(["y", "?", "x"], object)

    def work(number: int) -> None:
        for turn in range(100):
            check_labels(labels, x * number + turn, text, [2, -1, 1])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(1, 5)))


def test_values_whose_number_differs_from_run_to_run() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[N] x) => (int64[1,M] places, float[N] y, float t) {
        places = NonZero(x)
        y = Exp(x)
        t = ReduceSum<keepdims=0>(y)
    }"""
    session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    for turn in range(12):
        x = np.arange(6, dtype=np.float32) % (2 + turn % 3)
        places, y, total = session.run(None, {"x": x})
        np.testing.assert_array_equal(places, np.array(np.nonzero(x)))
        np.testing.assert_allclose(y, np.exp(x), rtol=1e-6)
        np.testing.assert_allclose(total, np.exp(x).sum(), rtol=1e-6)


def test_what_numpy_refuses_is_said_as_before() -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
    g (float[N] x, int64[K] shape) => (float[A,B] y, float[N] z) {
        y = Reshape(x, shape)
        z = Neg(x)
    }"""
    session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    x = np.arange(6, dtype=np.float32)
    for shape in ([2, 3], [3, 2], [2, 3], [6, 1], [2, 3]):
        y, z = session.run(None, {"x": x, "shape": np.array(shape)})
        np.testing.assert_array_equal(y, x.reshape(shape))
        np.testing.assert_array_equal(z, -x)
        y += 1
        assert x[0] == 0
    with pytest.raises(Exception, match="Reshape"):
        session.run(None, {"x": x, "shape": np.array([4, 2])})


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


def test_kinds_in_turn_keep_what_they_run_in(session: distort.InferenceSession) -> None:
    def instances() -> list[int]:
        program = session._sess._loaded.engine.compiled
        assert program is not None
        return [id(instance) for compiled in program._compiled.values() for instance in compiled.free]

    feeds = [{"x": np.ones((n, 3), np.float32), "i": INDICES[:1]} for n in (4, 5)]
    for one in feeds * 2:
        session.run(None, {"x": one["x"], "i": one["i"] * 0})
    before = instances()
    for one in feeds * 2:
        session.run(None, {"x": one["x"], "i": one["i"] * 0})
    assert instances() == before and len(before) >= 2
