"""LoRA adapters: their files and onnxruntime's classes around them, without onnxruntime."""

from __future__ import annotations

import gc
import os
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distort import OrtValue
from distort.adapters import AdapterFile, AdapterFormat, LoraAdapter, Parameter, native, read, write
from distort.adapters.flatbuffer import FlatbufferError, Reader, Writer
from distort.adapters.format import ELEMENTS, parse, serialize
from distort.capi.onnxruntime_pybind11_state import OrtValue as NativeValue
from distort.graph.types import DTYPE_OF

NO_ADAPTER = "does not appear to be a valid lora parameter format"
BROKEN = "fails lora adapter format verification"

SAMPLE = AdapterFile(
    adapter_version=5,
    model_version=-6,
    parameters={
        "ab": Parameter.of(np.arange(3, dtype=np.float32)),
        "c": Parameter.of(np.array([[7], [-1]], np.int64)),
        "é": Parameter.of(np.array([[1, 2]], ml_dtypes.bfloat16)),
        "none": Parameter.of(np.zeros((0, 3), np.float16)),
    },
)
CONTENT = b"".join(serialize(SAMPLE))


def bits_of(element: int) -> np.ndarray[Any, Any]:
    """A 2 x 3 array of an element type, of any bits."""
    dtype = DTYPE_OF[element]
    return np.random.default_rng(element).integers(0, 256, 6 * dtype.itemsize, np.uint8).view(dtype).reshape(2, 3)


def made(
    parameters: Sequence[tuple[bytes | None, int, Sequence[int] | None, bytes | None]],
    versions: Sequence[int] = (1, 0, 0),
) -> memoryview:
    """An adapter file of whatever is asked for. Without data the table lacks that field; other offsets are left 0."""
    writer = Writer(b"TORT")
    offsets = writer.offsets(writer.root((*versions, 0)) + 12, len(parameters))
    for index, (name, element, dims, data) in enumerate(parameters):
        fields = writer.table(offsets + 4 * index, (0, 0, element, 0) if data is not None else (0, 0, element))
        if name is not None:
            writer.string(fields, name)
        if dims is not None:
            writer.int64s(fields + 4, dims)
        if data is not None:
            writer.blob(fields + 12, memoryview(data))
    return memoryview(b"".join(writer.finish()))


def without_fields() -> memoryview:
    """A file of one parameter, of which nothing is told."""
    writer = Writer(b"TORT")
    writer.table(writer.offsets(writer.root((1, 0, 0, 0)) + 12, 1), ())
    return memoryview(b"".join(writer.finish()))


def without_parameters() -> memoryview:
    writer = Writer(b"TORT")
    writer.root((1, 0, 0))
    return memoryview(b"".join(writer.finish()))


# -- files


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("element", sorted(ELEMENTS))
def test_round_trip(tmp_path: Path, element: int, mapped: bool) -> None:
    values = bits_of(element)
    write(tmp_path / "a.onnx_adapter", AdapterFile(parameters={"w": Parameter.of(values)}))
    parameter = read(tmp_path / "a.onnx_adapter", mapped=mapped).parameters["w"]
    assert (parameter.element, parameter.dims) == (element, (2, 3))
    assert (parameter.values.dtype, parameter.values.tobytes()) == (values.dtype, values.tobytes())


def test_everything_comes_back(tmp_path: Path) -> None:
    write(tmp_path / "a", SAMPLE)
    found = read(tmp_path / "a")
    assert found == SAMPLE
    assert list(found.parameters) == list(SAMPLE.parameters)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_no_parameters() -> None:
    assert parse(memoryview(b"".join(serialize(AdapterFile())))) == AdapterFile()


def test_an_array_in_another_order() -> None:
    values = np.arange(6, dtype=">f4").reshape(2, 3).T
    parameter = Parameter.of(values)
    assert (parameter.dims, parameter.values.dtype) == ((3, 2), np.dtype("<f4"))
    np.testing.assert_array_equal(parameter.values, values)


def test_mapped_data_are_aligned_and_not_copied(tmp_path: Path) -> None:
    write(tmp_path / "a", AdapterFile(parameters={"n" * n: Parameter.of(np.ones(n)) for n in range(1, 9)}))
    for parameter in read(tmp_path / "a", mapped=True).parameters.values():
        values = parameter.values
        assert values.ctypes.data % 64 == 0
        assert not values.flags.writeable
        assert np.shares_memory(values, np.frombuffer(parameter.data, np.uint8))


def test_data_that_are_not_aligned_are_copied() -> None:
    data = memoryview(bytes(8) + np.arange(2.0).tobytes() + bytes(8))
    shift = (4 - np.frombuffer(data, np.uint8).ctypes.data) % 8
    moved = memoryview(bytearray(shift) + data[8:24])[shift:]
    parameter = Parameter(11, (2,), moved)
    assert parameter.values.flags.aligned
    np.testing.assert_array_equal(parameter.values, [0, 1])


def test_a_file_in_use_may_be_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a", SAMPLE)
    before = read(tmp_path / "a", mapped=True)
    write(tmp_path / "a", AdapterFile(parameters={"ab": Parameter.of(np.zeros(30000))}))
    assert before == SAMPLE
    write(tmp_path / "a", before)
    assert read(tmp_path / "a") == SAMPLE


def test_a_file_that_fails_to_be_written_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "a", SAMPLE)
    big = Parameter.__new__(Parameter)  # nothing has 2 GiB to spare
    object.__setattr__(big, "element", 2)
    object.__setattr__(big, "dims", (2**31,))
    object.__setattr__(big, "data", _Huge())
    with pytest.raises(RuntimeError, match="can't be written: a flatbuffer holds less than 2 GiB"):
        write(tmp_path / "a", AdapterFile(parameters={"big": big}))
    with pytest.raises(RuntimeError, match=r"can't be written: .*surrogates not allowed"):
        write(tmp_path / "a", AdapterFile(parameters={"\ud800": SAMPLE.parameters["ab"]}))
    with pytest.raises(RuntimeError, match="Failed to open file"):
        write(tmp_path / "nowhere" / "a", SAMPLE)
    with pytest.raises(RuntimeError, match="Failed to open file"):
        write(tmp_path, SAMPLE)
    assert os.listdir(tmp_path) == ["a"]
    assert read(tmp_path / "a") == SAMPLE


class _Huge:
    def __len__(self) -> int:
        return 2**31


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.array(1.0), "dims is missing or empty"),
        (np.ones(1, np.bool_), "data_type '9' is not a supported"),
        (np.ones(1, np.complex64), "data_type '14' is not a supported"),
        (np.ones(1, ml_dtypes.int4), "data_type '22' is not a supported"),
        (np.ones(1, ml_dtypes.float8_e8m0fnu), "data_type '24' is not a supported"),
        (np.array(["a"], object), "data_type '8' is not a supported"),
        (np.ones(1, "M8[s]"), "data_type 'datetime64\\[s\\]' is not a supported"),
    ],
)
def test_arrays_that_no_file_holds(values: np.ndarray[Any, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Parameter.of(values)


@pytest.mark.parametrize("version", [2**31, -(2**31) - 1])
def test_versions_are_small_numbers(version: int) -> None:
    with pytest.raises(ValueError, match="32-bit"):
        AdapterFile(adapter_version=version)
    with pytest.raises(ValueError, match="32-bit"):
        AdapterFile(model_version=version)
    with pytest.raises(ValueError, match="Unsupported lora format version: 2"):
        AdapterFile(format_version=2)


# -- files that are none


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", NO_ADAPTER),
        (CONTENT[:8], NO_ADAPTER),
        (CONTENT[:4] + b"ORTM" + CONTENT[8:], NO_ADAPTER),
        (CONTENT[:9], BROKEN),
        (CONTENT[:-1], BROKEN),
        (bytes(4) + CONTENT[4:], BROKEN),
        (made([], versions=(2, 0, 0)), "Unsupported lora format version: 2"),
        (made([], versions=(0, 0, 0)), "Unsupported lora format version: 0"),
        (made([(b"a", 6, (2,), bytes(4))]), r"Lora Param 'a': raw_data size \(4\) does not match expected size \(8\)"),
        (made([(b"a", 6, (1,), bytes(8))]), r"Lora Param 'a': raw_data size \(8\) does not match expected size \(4\)"),
        (made([(b"a", 6, (), bytes(4))]), "Lora Param 'a': dims is missing or empty"),
        (made([(b"a", 6, (-1, -1), bytes(4))]), "Lora Param 'a': dims .* are negative"),
        (made([(b"a", 6, (2**62, 4), b"")]), "Lora Param 'a': raw_data size"),
        (made([(b"a", 6, (2**62, 0), b"")]), "Lora Param 'a': dims .* are too large"),
        (made([(b"a", 6, (1,) * 65, bytes(4))]), "Lora Param 'a': it has 65 dims"),
        (made([(b"a", 8, (1,), bytes(4))]), "Lora Param 'a': data_type '8' is not a supported LoRA parameter type"),
        (made([(b"a", 9, (1,), b"\1")]), "Lora Param 'a': data_type '9' is not a supported LoRA parameter type"),
        (made([(b"a", -1, (1,), bytes(4))]), "Lora Param 'a': data_type '-1' is not a supported LoRA parameter type"),
        (made([(b"a", 6, (1,), None)]), "Lora Param 'a': raw_data is missing"),
        (made([(b"\xff", 6, (1,), bytes(4))]), "is no UTF-8"),
        (made([(b"a", 6, (1,), bytes(4))] * 2), "Lora Param 'a' is there twice"),
        (made([(None, 6, (1,), bytes(4))]), f"{BROKEN}: the offset at .* leads nowhere"),
        (without_fields(), "Lora Parameter: name is missing"),
        (without_parameters(), f"{BROKEN}: the vector of tables in field 3 is missing"),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "broken.onnx_adapter"
    path.write_bytes(content)
    for load in (read, AdapterFormat.read_adapter, LoraAdapter().Load):
        with pytest.raises(RuntimeError, match=text) as caught:
            load(str(path))
        assert type(caught.value) is RuntimeError
        assert "broken.onnx_adapter" in str(caught.value)


def test_parameters_that_overlap() -> None:
    """A small file whose many parameters are all the same bytes is not read for ever."""
    content = bytearray(made([(b"%d" % i, 2, (1000,), bytes(1000)) for i in range(3)]))
    root = struct.unpack_from("<I", content, 0)[0]
    vector = root + 16 + struct.unpack_from("<I", content, root + 16)[0]
    tables = [vector + 4 * i + struct.unpack_from("<I", content, vector + 4 * i)[0] for i in range(1, 4)]
    first = tables[0] + 16 + struct.unpack_from("<I", content, tables[0] + 16)[0]
    for table in tables[1:]:
        struct.pack_into("<I", content, table + 16, first - table - 16)
    cut = content[: first + 1004]
    with pytest.raises(ValueError, match="parameters overlap each other"):
        parse(memoryview(cut))


def only_documented(path: Path, content: bytes) -> None:
    """Reading ends well or in a RuntimeError, and both ways alike."""
    path.write_bytes(content)
    try:
        found = read(path)
    except RuntimeError:
        found = None
    adapter = LoraAdapter()
    try:
        adapter.Load(str(path))
    except RuntimeError:
        assert found is None
    else:
        assert found is not None
        assert list(adapter._parameters) == list(found.parameters)
        for name, parameter in found.parameters.items():
            assert adapter._parameters[name].numpy().tobytes() == bytes(parameter.data)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters") / "broken"


def test_every_truncation_is_noticed(broken: Path) -> None:
    for length in range(len(CONTENT)):
        broken.write_bytes(CONTENT[:length])
        with pytest.raises(RuntimeError):
            read(broken)


@settings(max_examples=400, deadline=5000)
@given(
    flips=st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    length=st.none() | st.integers(0, len(CONTENT)),
)
def test_bytes_that_changed(broken: Path, flips: list[tuple[int, int]], length: int | None) -> None:
    content = bytearray(CONTENT)
    for position, byte in flips:
        content[position] = byte
    only_documented(broken, bytes(content[:length]))


@settings(max_examples=400, deadline=5000)
@given(
    words=st.dictionaries(
        st.integers(2, len(CONTENT) // 4 - 1),
        st.sampled_from([0, 1, 2, 4, 8, 16, 2**16, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1]) | st.integers(0, 300),
        min_size=1,
        max_size=4,
    )
)
def test_offsets_that_changed(broken: Path, words: dict[int, int]) -> None:
    content = bytearray(CONTENT)
    for index, word in words.items():
        struct.pack_into("<I", content, 4 * index, word)
    only_documented(broken, bytes(content))


@settings(max_examples=200, deadline=5000)
@given(st.binary(max_size=200))
def test_any_bytes(broken: Path, tail: bytes) -> None:
    only_documented(broken, b"\x08\0\0\0TORT" + tail)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@settings(max_examples=100, deadline=5000)
@given(
    parameters=st.dictionaries(
        names, st.tuples(st.sampled_from(sorted(ELEMENTS)), st.lists(st.integers(0, 3), min_size=1, max_size=4))
    ),
    adapter_version=st.integers(-(2**31), 2**31 - 1),
    model_version=st.integers(-(2**31), 2**31 - 1),
)
def test_any_adapter(parameters: dict[str, tuple[int, list[int]]], adapter_version: int, model_version: int) -> None:
    arrays = {name: np.ones(dims, DTYPE_OF[element]) for name, (element, dims) in parameters.items()}
    file = AdapterFile(1, adapter_version, model_version, {name: Parameter.of(array) for name, array in arrays.items()})
    assert parse(memoryview(b"".join(serialize(file)))) == file


# -- the flatbuffer


@pytest.mark.parametrize("position", [1, -4, 8, 2**40])
def test_positions_are_checked(position: int) -> None:
    with pytest.raises(FlatbufferError, match=r"not aligned|lies outside"):
        Reader(memoryview(bytes(8))).u32(position)


def test_fields_of_a_later_schema_are_passed_over() -> None:
    """And those that an earlier one lacks have their defaults."""
    writer = Writer(b"TORT")
    writer.offsets(writer.root((1, 2, 3, 0, 99)) + 12, 0)
    assert parse(memoryview(b"".join(writer.finish()))) == AdapterFile(1, 2, 3)
    writer = Writer(b"TORT")
    writer.root((1, 2))
    table = Reader(memoryview(b"".join(writer.finish()))).root()
    assert [table.int32(number, -1) for number in range(3)] == [1, 2, -1]
    assert table.string(2) is None
    assert table.vector(2, 8) is None


# -- files that can't be read


@pytest.mark.parametrize("load", [AdapterFormat.read_adapter, LoraAdapter().Load])
def test_there_is_no_file(tmp_path: Path, load: Any) -> None:
    with pytest.raises(
        RuntimeError, match=r"^\[ONNXRuntimeError\] : 2 : INVALID_ARGUMENT : Adapter file doesn't exist"
    ):
        load(str(tmp_path / "missing"))
    with pytest.raises(RuntimeError, match=r"INVALID_ARGUMENT .* can't be read"):
        load("a\0b")
    with pytest.raises(RuntimeError, match=r"INVALID_ARGUMENT .* can't be read"):
        load(str(tmp_path / ("n" * 300)))
    with pytest.raises(RuntimeError, match="no regular file"):
        load(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RuntimeError, match="no regular file"):
        load(str(tmp_path / "pipe"))


@pytest.mark.parametrize("path", [3, None, b"a"])
def test_paths_are_text(path: Any) -> None:
    with pytest.raises(TypeError, match=r"^read_adapter\(\): incompatible function arguments"):
        AdapterFormat.read_adapter(path)
    with pytest.raises(TypeError, match=r"^export_adapter\(\): incompatible function arguments"):
        AdapterFormat().export_adapter(path)
    with pytest.raises(TypeError, match=r"^Load\(\): incompatible function arguments"):
        LoraAdapter().Load(path)


# -- AdapterFormat and LoraAdapter


def test_what_a_new_adapter_tells() -> None:
    adapter = AdapterFormat()
    found = (adapter.get_format_version(), adapter.get_adapter_version(), adapter.get_model_version())
    assert found == (1, 0, 0)
    assert adapter.get_parameters() == {}
    assert LoraAdapter()._parameters == {}


def test_export_and_read(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    adapter = AdapterFormat()
    adapter.set_adapter_version(True)
    adapter.set_model_version(np.int64(-7))  # type: ignore[arg-type]  # as onnxruntime takes it
    given = {"w": OrtValue.ortvalue_from_numpy(array), 3: OrtValue.ortvalue_from_numpy(array[:, ::2])}
    adapter.set_parameters(given)  # type: ignore[arg-type]  # names become text when they are written
    given.clear()
    assert list(adapter.get_parameters()) == ["w", 3]
    array[0, 0] = 9  # the value is the array, until it is written
    path = tmp_path / "a.onnx_adapter"
    adapter.export_adapter(path)
    found = AdapterFormat.read_adapter(path)
    assert (found.get_format_version(), found.get_adapter_version(), found.get_model_version()) == (1, 1, -7)
    values = found.get_parameters()
    assert list(values) == ["w", "3"]
    np.testing.assert_array_equal(values["w"].numpy(), array)
    assert (values["w"].data_type(), values["3"].shape()) == ("tensor(float)", [2, 2])
    values["w"].numpy()[:] = 0  # memory of its own, as in onnxruntime
    assert not found.get_parameters()["w"].numpy().any()
    path.unlink()
    del found
    gc.collect()
    assert not values["w"].numpy().any()


def test_load(tmp_path: Path) -> None:
    write(tmp_path / "a", SAMPLE)
    write(tmp_path / "b", AdapterFile(parameters={"other": SAMPLE.parameters["c"]}))
    adapter = LoraAdapter()
    adapter.Load(str(tmp_path / "a"))
    assert {name: (value.data_type(), value.shape()) for name, value in adapter._parameters.items()} == {
        "ab": ("tensor(float)", [3]),
        "c": ("tensor(int64)", [2, 1]),
        "é": ("tensor(bfloat16)", [1, 2]),
        "none": ("tensor(float16)", [0, 3]),
    }
    assert not adapter._parameters["ab"].numpy().flags.writeable
    with pytest.raises(RuntimeError):
        adapter.Load(str(tmp_path / "missing"))
    assert list(adapter._parameters) == list(SAMPLE.parameters)
    adapter.Load(str(tmp_path / "b"))
    assert list(adapter._parameters) == ["other"]


@pytest.mark.parametrize("version", [2**31, 1.5, "a", None])
def test_versions_that_are_none(version: Any) -> None:
    adapter = AdapterFormat()
    with pytest.raises(TypeError, match="incompatible function arguments"):
        adapter.set_adapter_version(version)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        adapter.set_model_version(version)
    assert (adapter.get_adapter_version(), adapter.get_model_version()) == (0, 0)


def test_parameters_that_are_none(tmp_path: Path) -> None:
    adapter: Any = AdapterFormat()
    for wrong in (None, [("a", 1)]):
        with pytest.raises(AttributeError, match="has no attribute 'items'"):
            adapter.set_parameters(wrong)
    with pytest.raises(AttributeError, match="'int' object has no attribute '_ortvalue'"):
        adapter.set_parameters({"a": 3})
    with pytest.raises(TypeError, match="incompatible function arguments"):
        adapter._adapter.parameters = 3
    one = NativeValue._of(np.ones(1))
    for parameters, text in (
        ({"a": 3}, "Lora adapter parameter 'a' must be an OrtValue"),
        ({"a": NativeValue._of([np.ones(1)])}, "Lora adapter parameter 'a' must be a Tensor OrtValue."),
        ({"a": NativeValue._of(np.array(1.0))}, "Lora Param 'a': dims is missing or empty"),
        ({"a": NativeValue._of(np.array(["a"], object))}, "Lora Param 'a': data_type '8' is not a supported"),
        ({3: one, "3": one}, "Lora adapter parameter '3' is there twice"),
    ):
        adapter._adapter.parameters = parameters
        with pytest.raises(RuntimeError, match=text):
            adapter.export_adapter(str(tmp_path / "a"))
    assert not list(tmp_path.iterdir())


def test_native_objects() -> None:
    for made_natively in (native.AdapterFormat(), LoraAdapter()):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(made_natively)
        with pytest.raises(AttributeError):
            made_natively.foo = 3  # type: ignore[union-attr]
    with pytest.raises(AttributeError, match="has no setter"):
        native.AdapterFormat().format_version = 3  # type: ignore[misc]
    parameters: dict[str, OrtValue] = {}
    adapter = native.AdapterFormat()
    adapter.parameters = parameters
    assert AdapterFormat(adapter)._adapter.parameters is parameters
    with pytest.raises(AttributeError, match="'int' object has no attribute 'format_version'"):
        AdapterFormat(3).get_format_version()  # type: ignore[arg-type]
