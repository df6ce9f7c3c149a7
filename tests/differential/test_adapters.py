"""LoRA adapter files against onnxruntime: what either writes the other reads, and both refuse the same."""

from __future__ import annotations

import ctypes
import random
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx.parser
import pytest

from distort import OrtValue
from distort.adapters import AdapterFile, AdapterFormat, LoraAdapter, Parameter, write
from distort.adapters.format import ELEMENTS
from distort.capi.onnxruntime_pybind11_state import OrtValue as NativeValue
from distort.graph.types import DTYPE_OF

Arrays = dict[str, np.ndarray[Any, Any]]

#: an unsigned type of the same size, as which onnxruntime takes the bits of types that it has no numpy dtype for
_CARRIER = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_OTHERS = sorted(set(DTYPE_OF) - ELEMENTS - {8, 14, 15})


@pytest.fixture(scope="module")
def rival() -> Any:
    return pytest.importorskip("onnxruntime")


def sample(element: int) -> np.ndarray[Any, Any]:
    dtype = DTYPE_OF[element]
    rng = np.random.default_rng(element)
    return rng.integers(0, 256, 15 * dtype.itemsize, np.uint8).view(dtype).reshape(3, 5)


def rival_value(rival: Any, array: np.ndarray[Any, Any], element: int) -> Any:
    carried = array.view(_CARRIER[array.dtype.itemsize])
    return rival.OrtValue.ortvalue_from_numpy_with_onnx_type(carried, element)


def rival_export(rival: Any, path: Path, arrays: Arrays, adapter_version: int = 0, model_version: int = 0) -> None:
    adapter = rival.AdapterFormat()
    adapter.set_adapter_version(adapter_version)
    adapter.set_model_version(model_version)
    adapter.set_parameters({name: rival.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()})
    adapter.export_adapter(str(path))


@pytest.mark.parametrize("element", sorted(ELEMENTS))
def test_they_read_what_we_write(rival: Any, tmp_path: Path, element: int) -> None:
    array, path = sample(element), tmp_path / "ours.onnx_adapter"
    ours = AdapterFormat()
    ours.set_adapter_version(-3)
    ours.set_model_version(2**31 - 1)
    ours.set_parameters({"w": OrtValue(NativeValue._of(array)), "é": OrtValue(NativeValue._of(array.T[:0]))})
    ours.export_adapter(str(path))
    rival.LoraAdapter().Load(str(path))
    theirs = rival.AdapterFormat.read_adapter(str(path))
    versions = (theirs.get_format_version(), theirs.get_adapter_version(), theirs.get_model_version())
    assert versions == (1, -3, 2**31 - 1)
    values = theirs.get_parameters()
    assert {name: (value.element_type(), value.shape()) for name, value in values.items()} == {
        "w": (element, [3, 5]),
        "é": (element, [0, 3]),
    }
    assert ctypes.string_at(values["w"].data_ptr(), array.nbytes) == array.tobytes()


@pytest.mark.parametrize("element", sorted(ELEMENTS))
def test_we_read_what_they_write(rival: Any, tmp_path: Path, element: int) -> None:
    array, path = sample(element), tmp_path / "theirs.onnx_adapter"
    theirs = rival.AdapterFormat()
    theirs.set_adapter_version(-3)
    theirs.set_model_version(2**31 - 1)
    # names of several lengths, so that data lie at every alignment
    names = ["n" * length for length in range(1, 9)]
    theirs.set_parameters({name: rival_value(rival, array, element) for name in names})
    theirs.export_adapter(str(path))
    ours, mapped = AdapterFormat.read_adapter(str(path)), LoraAdapter()
    mapped.Load(str(path))
    assert (ours.get_format_version(), ours.get_adapter_version(), ours.get_model_version()) == (1, -3, 2**31 - 1)
    for values in (ours.get_parameters(), mapped._parameters):
        assert sorted(values) == names
        for value in values.values():
            assert (value.element_type(), value.shape()) == (element, [3, 5])
            assert value.numpy().dtype == array.dtype
            assert value.numpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("element", _OTHERS)
def test_what_they_write_and_nobody_reads(rival: Any, tmp_path: Path, element: int) -> None:
    path = str(tmp_path / "theirs.onnx_adapter")
    adapter = rival.AdapterFormat()
    adapter.set_parameters({"w": rival.OrtValue.ortvalue_from_shape_and_type([3], element)})
    adapter.export_adapter(path)
    text = f"Lora Param 'w': data_type '{element}' is not a supported LoRA parameter type"
    for read in (rival.AdapterFormat.read_adapter, rival.LoraAdapter().Load, AdapterFormat.read_adapter):
        with pytest.raises(RuntimeError, match=text):
            read(path)
    ours = AdapterFormat()
    ours.set_parameters({"w": OrtValue.ortvalue_from_shape_and_type([3], element)})
    with pytest.raises(RuntimeError, match=text):
        ours.export_adapter(path)


def test_no_parameters(rival: Any, tmp_path: Path) -> None:
    rival_export(rival, tmp_path / "theirs", {})
    assert AdapterFormat.read_adapter(str(tmp_path / "theirs")).get_parameters() == {}
    AdapterFormat().export_adapter(str(tmp_path / "ours"))
    assert rival.AdapterFormat.read_adapter(str(tmp_path / "ours")).get_parameters() == {}


def read_by(read_adapter: Any, path: Path) -> dict[str, tuple[Any, ...]] | str:
    """What a file holds, or that it was refused."""
    try:
        values = read_adapter(str(path)).get_parameters()
        arrays = {name: value.numpy() for name, value in values.items()}
    except (RuntimeError, ValueError) as error:
        return str(error)
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


@pytest.mark.parametrize("writer", ["ours", "theirs"])
def test_broken_files(rival: Any, tmp_path: Path, writer: str) -> None:
    """Both read the same of a file with some bytes changed, or refuse it."""
    path = tmp_path / "broken"
    arrays = {"ab": np.arange(3, dtype=np.float32), "c": np.ones((2, 1), np.int64)}
    if writer == "theirs":
        rival_export(rival, path, arrays, 3)
    else:
        write(path, AdapterFile(1, 3, 0, {name: Parameter.of(array) for name, array in arrays.items()}))
    content = path.read_bytes()
    rng = random.Random(0)
    variants = [content[:length] for length in range(0, len(content), 3)]
    for position in range(len(content)):
        variants += [content[:position] + bytes([byte]) + content[position + 1 :] for byte in (0, 1, 4, 255)]
    for _ in range(300):
        position = rng.randrange(len(content) // 4) * 4
        word = rng.choice([0, 1, 8, 12, 2**31 - 1, 2**31, 2**32 - 4, len(content)])
        variants.append(content[:position] + word.to_bytes(4, "little") + content[position + 4 :])
    n_read = 0
    for variant in variants:
        path.write_bytes(variant)
        want, got = read_by(rival.AdapterFormat.read_adapter, path), read_by(AdapterFormat.read_adapter, path)
        if isinstance(want, str) or (isinstance(got, str) and "is there twice" in got):
            assert isinstance(got, str)  # they keep one of two parameters of the same name
        else:
            assert got == want
            n_read += 1
    assert n_read > 50


@pytest.mark.parametrize(
    "prepare",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x08\0\0\0ONNX" + bytes(40)),
        lambda path: path.write_bytes(b"\x08\0\0\0TORT" + bytes(40)),
    ],
    ids=["missing", "folder", "empty", "another identifier", "zeros"],
)
def test_same_class_of_error(rival: Any, tmp_path: Path, prepare: Any) -> None:
    path = tmp_path / "file"
    prepare(path)
    pairs = (
        (rival.AdapterFormat.read_adapter, AdapterFormat.read_adapter),
        (rival.LoraAdapter().Load, LoraAdapter().Load),
    )
    for theirs, ours in pairs:
        with pytest.raises(RuntimeError) as want:
            theirs(str(path))
        with pytest.raises(RuntimeError) as got:
            ours(str(path))
        assert type(got.value) is type(want.value)


def test_their_run_with_our_adapter(rival: Any, tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 21]> lora (float[N, 4] x, float[4, r] A, float[r, 3] B, bfloat16[1] h)'
        " => (float[N, 3] y, bfloat16[1] k) { a = MatMul(x, A)  y = MatMul(a, B)  k = Identity(h) }"
    )
    defaults = {
        "A": np.zeros((4, 0), np.float32),
        "B": np.zeros((0, 3), np.float32),
        "h": np.zeros(1, ml_dtypes.bfloat16),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in defaults.items())
    session = rival.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    x, a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 4), (4, 2), (2, 3)))
    h = np.ones(1, ml_dtypes.bfloat16)
    ours, path = AdapterFormat(), str(tmp_path / "lora.onnx_adapter")
    ours.set_parameters(
        {"A": OrtValue(NativeValue._of(a)), "B": OrtValue(NativeValue._of(b)), "h": OrtValue(NativeValue._of(h))}
    )
    ours.export_adapter(path)
    theirs = rival.LoraAdapter()
    theirs.Load(path)
    options = rival.RunOptions()
    options.add_active_adapter(theirs)
    (got,) = session.run(["y"], {"x": x}, options)
    np.testing.assert_allclose(got, x @ a @ b, rtol=1e-5)
    (plain,) = session.run(["y"], {"x": x})
    assert not plain.any()
    mapped = LoraAdapter()
    mapped.Load(path)
    (fed,) = session.run(["y"], {"x": x, **{name: mapped._parameters[name].numpy() for name in "AB"}})
    np.testing.assert_array_equal(fed, got)
