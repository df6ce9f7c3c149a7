"""``distort run``: feeds from files, results into files, and what it says of wrong ones."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from distort.cli import arrays
from distort.cli.errors import TaskFailed

from .conftest import Ran

Distort = Callable[..., Ran]
X = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
BIAS = np.array([10, 20], np.float32)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "bias.npy", BIAS)
    np.savez(tmp_path / "all.npz", x=X, bias=BIAS)
    np.savez(tmp_path / "one.npz", something=X)
    np.savez(tmp_path / "two.npz", a=X, b=X)
    return tmp_path


@pytest.mark.parametrize(
    "inputs", [("x={}/x.npy", "bias={}/bias.npy"), ("{}/all.npz",), ("x={}/one.npz", "bias={}/all.npz")]
)
def test_feeds_reach_the_model_and_results_the_file(
    distort: Distort, write_model: Callable[..., str], files: Path, inputs: tuple[str, ...]
) -> None:
    target = files / "out.npz"
    given = [text for item in inputs for text in ("--input", item.format(files))]
    ran = distort("run", write_model(), *given, "--output", str(target))
    assert (ran.code, ran.err) == (0, "")
    with np.load(target) as results:
        np.testing.assert_array_equal(results["y"], X + BIAS)
        np.testing.assert_array_equal(results["doubled"], 2 * (X + BIAS))
    assert "[3, 2]" in ran.out and "\x1b" not in ran.out


def test_json_tells_shapes_and_values_and_fetch_chooses(
    distort: Distort, write_model: Callable[..., str], files: Path
) -> None:
    ran = distort("run", write_model(), "--input", f"{files}/all.npz", "--fetch", "doubled", "--json")
    told = json.loads(ran.out)
    (output,) = told["outputs"]
    assert output["name"] == "doubled" and output["type"] == "tensor(float)" and output["shape"] == [3, 2]
    assert output["first"] == [22.0, 44.0, 26.0, 48.0, 30.0]
    assert (output["min"], output["max"]) == (22.0, 52.0)
    assert told["stages"] == 1 and told["written"] is None


def test_numbers_that_json_lacks_are_null(distort: Distort, write_model: Callable[..., str], files: Path) -> None:
    model = write_model("g (float[N,2] x) => (float[N,2] y) { y = Log(x) }")
    np.save(files / "x.npy", -X)
    ran = distort("run", model, "--input", f"{files}/x.npy", "--json")  # the only input needs no name
    assert ran.code == 0
    assert json.loads(ran.out)["outputs"][0]["max"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "No feed for: x tensor(float)[N, 2], bias tensor(float)[2]"),
        (("--input", "{}/x.npy"), 2, "which input"),
        (("--input", "z={}/x.npy"), 2, "no input 'z'"),
        (("--input", "x={}/two.npz"), 2, "no array 'x', but a, b"),
        (("--input", "{}/all.npz", "--input", "x={}/x.npy"), 2, "fed twice"),
        (("--input", "{}/all.npz", "--fetch", "w"), 2, "no such output"),
        (("--address", "auto"), 2, "--parallel"),
        (("--input", "x={}/none.npy"), 1, "no such file"),
        (("--input", "x={}/model.onnx"), 1, "neither a .npy nor a .npz"),
        (("--input", "x={}/x.npy", "--input", "bias={}/x.npy"), 1, "bias"),
        (("--input", "{}/all.npz", "--output", "{}/no/such/folder.npz"), 1, "no/such"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    distort: Distort, write_model: Callable[..., str], files: Path, arguments: tuple[str, ...], code: int, text: str
) -> None:
    ran = distort("run", write_model(), *(item.format(files) for item in arguments))
    assert ran.code == code
    assert ran.out == ""
    assert ran.err.startswith("distort run: error: ") and ran.err.count("\n") == 1
    assert text in ran.err


def test_a_model_that_is_not_there(distort: Distort, tmp_path: Path) -> None:
    ran = distort("run", str(tmp_path / "none.onnx"))
    assert ran.code == 1
    assert "none.onnx" in ran.err and "Traceback" not in ran.err and "[ONNXRuntimeError]" not in ran.err


def test_pickles_are_not_opened(distort: Distort, write_model: Callable[..., str], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([print], dtype=object), allow_pickle=True)
    ran = distort("run", write_model(), "--input", f"x={tmp_path}/x.npy")
    assert ran.code == 1 and "Object arrays" in ran.err


def test_elements_that_numpy_has_no_name_for_come_back(
    distort: Distort, write_model: Callable[..., str], tmp_path: Path
) -> None:
    model = write_model("g (bfloat16[2] x) => (bfloat16[2] y) { y = Identity(x) }")
    given = np.array([1.5, -2], ml_dtypes.bfloat16)
    np.save(tmp_path / "x.npy", given.view("V2"))
    ran = distort("run", model, "--input", f"x={tmp_path}/x.npy", "--output", f"{tmp_path}/y.npz")
    assert (ran.code, ran.err) == (0, "")
    with np.load(tmp_path / "y.npz") as results:
        np.testing.assert_array_equal(results["y"].view(ml_dtypes.bfloat16), given)


def test_outputs_of_any_name_are_stored_and_strings_too() -> None:
    file = io.BytesIO()
    stored = {"file": X, "/a/b:0": BIAS, "words": np.array(["é", "b"], dtype=object)}
    arrays.write_npz(file, stored)
    file.seek(0)
    with np.load(file) as results:
        assert results.files == list(stored)
        np.testing.assert_array_equal(results["file"], X)
        assert results["words"].tolist() == ["é", "b"]


def test_sequences_are_stored_by_item_and_maps_are_refused() -> None:
    assert list(arrays.result_arrays(["s", "t"], [[X, BIAS], X])) == ["s.0", "s.1", "t"]
    with pytest.raises(TaskFailed, match=r"'m'.*--fetch"):
        arrays.result_arrays(["m"], [[{"a": 1.0}]])
