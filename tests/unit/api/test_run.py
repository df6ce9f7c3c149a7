"""Feeds, fetches and their errors, in onnxruntime's words."""

from __future__ import annotations

import re
import threading

import ml_dtypes
import numpy as np
import pytest

import distort
from distort.capi import onnxruntime_pybind11_state as C

X = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
WANTED = [[1, 4], [9, 16], [25, 36]]
ARGUMENT = "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : "
ADVICE = "\n Please fix either the inputs/outputs or the model."


@pytest.mark.parametrize(
    "names",
    [None, [], ["Y"], ("Y",), {"Y"}, {"Y": 1}.keys(), {1: "Y"}.values(), map(str, ["Y"]), np.array(["Y"])],
    ids=lambda names: type(names).__name__,
)
def test_run_returns_outputs_in_order(mul: bytes, names: object) -> None:
    (result,) = distort.InferenceSession(mul).run(names, {"X": X})
    assert result.tolist() == WANTED
    assert result.dtype == np.float32


@pytest.mark.parametrize(
    "feed",
    [
        pytest.param(X.tolist(), id="list"),
        pytest.param(np.asfortranarray(X), id="fortran"),
        pytest.param(X[:, ::-1][:, ::-1], id="strided"),
        pytest.param(X.astype(">f4"), id="big endian"),
        pytest.param(np.ma.array(X), id="masked"),
        pytest.param(np.frombuffer(X.tobytes(), np.float32).reshape(3, 2), id="read only"),
        pytest.param(distort.OrtValue.ortvalue_from_numpy(X), id="OrtValue"),
    ],
)
def test_feeds_of_many_kinds(mul: bytes, feed: object) -> None:
    assert distort.InferenceSession(mul).run(None, {"X": feed})[0].tolist() == WANTED


@pytest.mark.parametrize(
    ("feeds", "error", "text"),
    [
        ({}, ValueError, "Required inputs (['X']) are missing from input feed ([])."),
        ({"bad": X}, ValueError, "Required inputs (['X']) are missing from input feed (['bad'])."),
        ({0: X}, ValueError, "Required inputs (['X']) are missing from input feed ([0])."),
        ([X], AttributeError, "'list' object has no attribute 'keys'"),
        ({"X": X, "extra": X}, C.InvalidArgument, ARGUMENT + "Invalid input name: extra"),
        ({"X": X, "W": X}, C.InvalidArgument, ARGUMENT + "Invalid input name: W"),
        ({"X": X, "extra": [1.0]}, RuntimeError, "Failed to find input with name: extra in the model input def list"),
        (
            {"X": X.astype(np.float64)},
            C.InvalidArgument,
            ARGUMENT + "Unexpected input data type. Actual: (tensor(double)) , expected: (tensor(float))",
        ),
        (
            {"X": X.astype(str)},
            C.InvalidArgument,
            ARGUMENT + "Unexpected input data type. Actual: (tensor(string)) , expected: (tensor(float))",
        ),
        (
            {"X": np.zeros((4, 5), np.float32)},
            C.InvalidArgument,
            ARGUMENT + "Got invalid dimensions for input: X for the following indices\n index: 0 Got: 4 Expected: 3\n "
            "index: 1 Got: 5 Expected: 2" + ADVICE,
        ),
        (
            {"X": X[..., None]},
            C.InvalidArgument,
            ARGUMENT + "Invalid rank for input: X Got: 3 Expected: 2" + ADVICE.strip("\n"),
        ),
        ({"X": X.astype(np.complex64)}, RuntimeError, "Numpy_type 14 can't be converted to MLDataType."),
        ({"X": 1.0}, RuntimeError, "Unable to handle object of type <class 'float'>"),
        ({"X": np.float32(1)}, RuntimeError, "Unable to handle object of type <class 'numpy.float32'>"),
        (
            {"X": (1.0, 2.0)},
            RuntimeError,
            "Input must be a list of dictionaries or a single numpy array for input 'X'.",
        ),
        ({"X": (X,)}, RuntimeError, "Iterable of <class 'numpy.ndarray'> should be given as array for input 'X'."),
        ({"X": []}, C.InvalidArgument, ARGUMENT + "Invalid rank for input: X Got: 1 Expected: 2" + ADVICE.strip("\n")),
        ({"X": [[1], [2, 3]]}, RuntimeError, "Could not create tensor from given input list"),
        (
            {"X": {"a": 1.0}},
            C.InvalidArgument,
            ARGUMENT
            + "Unexpected input data type. Actual: ((map(string,tensor(float)))) , expected: ((tensor(float)))",
        ),
        (
            {"X": None},
            C.Fail,
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Mul node. Name:'mul_1' "
            "Status Message: Missing Input: X",
        ),
    ],
)
def test_errors_of_feeds(mul: bytes, feeds: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        distort.InferenceSession(mul).run(None, feeds)
    assert type(caught.value) is error
    assert str(caught.value) == text


def test_types_are_checked_before_sizes_and_names_before_types(relu: bytes, model: object) -> None:
    session = distort.InferenceSession(
        model("add (float[2] a, float[2] b) => (float[2] y) { y = Add(a, b) }")  # type: ignore[operator]
    )
    wrong_size, wrong_type = np.zeros(3, np.float32), np.zeros(2)
    with pytest.raises(C.InvalidArgument, match="Unexpected input data type"):
        session.run(None, {"a": wrong_size, "b": wrong_type})
    with pytest.raises(C.InvalidArgument, match="Invalid input name: q"):
        session.run(None, {"a": wrong_size, "b": wrong_type, "q": wrong_size})
    with pytest.raises(C.InvalidArgument, match="Got invalid dimensions"):
        session.run(["nope"], {"a": wrong_size, "b": wrong_size})


@pytest.mark.parametrize("name", ["nope", "X"])
def test_a_fetch_must_be_an_output(mul: bytes, name: str) -> None:
    with pytest.raises(C.InvalidArgument, match=re.escape(ARGUMENT + "Invalid output name:" + name)):
        distort.InferenceSession(mul).run([name], {"X": X})


@pytest.mark.parametrize(
    "arguments", [("Y", {"X": X}), ([1], {"X": X}), (None, {"X": X}, {"a": 1}), (None, {"X": X, 0: X})]
)
def test_arguments_of_the_wrong_type(mul: bytes, arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError, match=re.escape("run(): incompatible function arguments.")):
        distort.InferenceSession(mul).run(*arguments)


def test_only_fixed_sizes_are_checked(model: object) -> None:
    text = "add (float[N,2] a, float[N,2] b) => (float[M,2] y) { y = Add(a, b) }"
    session = distort.InferenceSession(model(text))  # type: ignore[operator]
    assert session.run(None, {"a": X, "b": X[:1]})[0].shape == (3, 2)
    with pytest.raises((C.Fail, C.InvalidArgument), match="while running Add node"):
        session.run(None, {"a": X, "b": X[:2]})


def test_strings(model: object) -> None:
    session = distort.InferenceSession(
        model("same (string[N] x) => (string[N] y) { y = Identity(x) }")  # type: ignore[operator]
    )
    for given, wanted in [
        (np.array(["a", "üö"]), ["a", "üö"]),
        (np.array(["a", 1, None, 2.5], object), ["a", "1", "None", "2.5"]),
        (np.array([b"ab", b"cdef"]), ["ab", "cdef"]),
        (["a", "b"], ["a", "b"]),
        (np.array(["a", "b", "c"])[::2], ["a", "c"]),
    ]:
        (result,) = session.run(None, {"x": given})
        assert result.dtype == object
        assert result.tolist() == wanted


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4])
def test_small_types_are_ml_dtypes_arrays(model: object, dtype: type) -> None:
    name = {"float8_e4m3fn": "float8e4m3fn"}.get(np.dtype(dtype).name, np.dtype(dtype).name)
    session = distort.InferenceSession(
        model(f"same ({name}[N] x) => ({name}[N] y) {{ y = Identity(x) }}")  # type: ignore[operator]
    )
    (result,) = session.run(None, {"x": np.array([1, 2], dtype)})
    assert result.dtype == dtype
    assert result.astype(np.float32).tolist() == [1, 2]


def test_terminate_before_a_run(mul: bytes) -> None:
    options = distort.RunOptions()
    options.terminate = True
    session = distort.InferenceSession(mul)
    with pytest.raises(C.Fail, match="Exiting due to terminate flag being set to true"):
        session.run(None, {"X": X}, options)
    options.terminate = False
    assert session.run(None, {"X": X}, options)[0].tolist() == WANTED


def _answer(session: distort.InferenceSession, feeds: dict[str, object], names: object = None) -> tuple[object, ...]:
    ended = threading.Event()
    got: list[tuple[object, ...]] = []

    def callback(*arguments: object) -> None:
        got.append((*arguments, threading.current_thread() is threading.main_thread()))
        ended.set()

    session.run_async(names, feeds, callback, "data")
    assert ended.wait(10)
    return got[0]


def test_run_async_tells_the_callback(mul: bytes) -> None:
    with distort.InferenceSession(mul) as session:
        results, data, error, on_main = _answer(session, {"X": X})
        assert (results[0].tolist(), data, error, on_main) == (WANTED, "data", "", False)  # type: ignore[index]
        assert _answer(session, {"X": X[:1]})[:3] == (
            [],
            "data",
            "Got invalid dimensions for input: X for the following indices\n index: 0 Got: 1 Expected: 3" + ADVICE,
        )
        assert _answer(session, {"X": X}, ["q"])[2] == "Invalid output name: q"
        with pytest.raises(ValueError, match="Required inputs"):
            session.run_async(None, {}, print, None)
        with pytest.raises(RuntimeError, match="Unable to handle object"):
            session.run_async(None, {"X": 5}, print, None)
        with pytest.raises(TypeError, match="incompatible"):
            session.run_async(None, {"X": X}, 3, None)


def test_a_closed_session_raises(mul: bytes) -> None:
    with distort.InferenceSession(mul) as session:
        assert session.get_transfer_stats() == []
    with pytest.raises(C.Fail, match="closed"):
        session.run(None, {"X": X})
    session.close()


def test_many_threads_share_a_session(mul: bytes) -> None:
    session = distort.InferenceSession(mul)
    wrong: list[int] = []

    def work(seed: int) -> None:
        feed = np.full((3, 2), seed, np.float32)
        for _ in range(20):
            if session.run(None, {"X": feed})[0][2, 1] != 6 * seed:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_callback_may_close_its_session(mul: bytes) -> None:
    session = distort.InferenceSession(mul)
    ended = threading.Event()

    def callback(results: list[object], data: object, error: str) -> None:
        session.close()
        ended.set()

    session.run_async(None, {"X": X}, callback, None)
    assert ended.wait(10)
