"""OrtValue, OrtDevice and SparseTensor."""

from __future__ import annotations

import gc
import pickle
import re
import weakref

import ml_dtypes
import numpy as np
import pytest

import distort
from distort import OrtValue
from distort.capi.onnxruntime_pybind11_state import OrtValue as NativeValue
from distort.capi.onnxruntime_pybind11_state import OrtValueVector
from distort.cluster.resident import Resident, ResidentMeta

NO_STRINGS = "Creation of OrtValues is currently only supported from non-string numpy arrays"


def test_what_a_tensor_tells(x: np.ndarray) -> None:
    value = OrtValue.ortvalue_from_numpy(x)
    assert (value.device_name(), value.shape(), value.data_type(), value.element_type()) == (
        "cpu",
        [3, 2],
        "tensor(float)",
        1,
    )
    assert (value.is_tensor(), value.is_sparse_tensor(), value.is_tensor_sequence(), value.has_value()) == (
        True,
        False,
        False,
        True,
    )
    assert (value.tensor_size_in_bytes(), value.data_ptr()) == (24, x.ctypes.data)


def test_it_aliases_the_array(x: np.ndarray) -> None:
    value = OrtValue.ortvalue_from_numpy(x)
    x[0, 0] = 77
    assert value.numpy()[0, 0] == 77
    assert np.shares_memory(np.asarray(value), x)
    assert np.array(value, dtype=np.float64).dtype == np.float64
    assert not np.shares_memory(OrtValue.ortvalue_from_numpy(x[:, ::-1]).numpy(), x)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: OrtValue.ortvalue_from_numpy([1]), RuntimeError, NO_STRINGS),
        (lambda: OrtValue.ortvalue_from_numpy(np.array(["a"])), RuntimeError, NO_STRINGS),
        (
            lambda: OrtValue.ortvalue_from_numpy(np.zeros(1, np.complex64)),
            RuntimeError,
            "Numpy_type 14 can't be converted to MLDataType.",
        ),
        (lambda: OrtValue.ortvalue_from_numpy(np.zeros(1), "foo"), Exception, "Unsupported device type: foo"),
        (lambda: OrtValue.ortvalue_from_numpy(np.zeros(1), "dml"), RuntimeError, "Can't allocate memory on the device"),
        (lambda: OrtValue.ortvalue_from_shape_and_type([3], 99), RuntimeError, "tensor type 99 is not supported"),
        (lambda: OrtValue.ortvalue_from_shape_and_type([3], object), RuntimeError, NO_STRINGS),
        (lambda: OrtValue.ortvalue_from_shape_and_type([-3], 1), RuntimeError, "Tensor shape.Size() must be >= 0"),
        (
            lambda: OrtValue.ortvalue_from_numpy_with_onnx_type(np.zeros(2, np.float32), 16),
            RuntimeError,
            "Items size in the incoming array: 4 specified by onnxtype: 2",
        ),
        (lambda: OrtValue(np.zeros(1)), ValueError, "`Provided ortvalue` needs to be of type"),
        (lambda: OrtValue.from_dlpack([1]), TypeError, "from_dlpack expected a valid DLPack capsule named 'dltensor'"),
        (
            lambda: OrtValue.from_dlpack(np.zeros((2, 2))[:, ::-1]),
            RuntimeError,
            "ORT only supports contiguous tensor for now.",
        ),
        (lambda: distort.OrtDevice.make("tpu", 0), Exception, "Unsupported device type: tpu"),
        (lambda: distort.OrtDevice("cpu"), ValueError, "`Provided object` needs to be of type"),
    ],
)
def test_what_can_not_be_made(make: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("element_type", "name"),
    [(np.float32, "float"), ("float32", "float"), (float, "double"), (16, "bfloat16"), (np.dtype("int8"), "int8")],
)
def test_from_shape_and_type(element_type: object, name: str) -> None:
    value = OrtValue.ortvalue_from_shape_and_type((3, 2), element_type)
    assert (value.data_type(), value.shape(), value.device_name()) == (f"tensor({name})", [3, 2], "cpu")


def test_types_that_numpy_lacks() -> None:
    bits = np.array([0x3FC0, 0x4000], np.uint16)
    value = OrtValue.ortvalue_from_numpy_with_onnx_type(bits, 16)
    assert value.numpy().dtype == ml_dtypes.bfloat16
    assert value.numpy().tolist() == [1.5, 2]
    assert OrtValue.ortvalue_from_shape_and_type([3], 22).tensor_size_in_bytes() == 2  # two int4 in a byte


def test_update_inplace(x: np.ndarray) -> None:
    value = OrtValue.ortvalue_from_numpy(x)
    value.update_inplace(np.full((2, 3), 5, np.float32))
    assert x.tolist() == [[5, 5]] * 3
    value.update_inplace(OrtValue.ortvalue_from_numpy(np.ones((3, 2), np.float32)))
    assert x.tolist() == [[1, 1]] * 3
    for data, error, text in [
        (
            np.zeros(3, np.float32),
            RuntimeError,
            "The input size of numpy arrays does not match the size of the OrtValue.",
        ),
        (np.zeros(6), RuntimeError, "does not match the type"),
        (OrtValue.ortvalue_from_numpy(np.zeros(3, np.float32)), RuntimeError, "must have the same size"),
        (OrtValue.ortvalue_from_numpy(np.zeros(6)), RuntimeError, "must have the same data type"),
        ([1], TypeError, "data must be a numpy.ndarray or an OrtValue."),
    ]:
        with pytest.raises(error, match=re.escape(text)):
            value.update_inplace(data)
    assert x.tolist() == [[1, 1]] * 3


def test_dlpack_shares_memory(x: np.ndarray) -> None:
    value = OrtValue.from_dlpack(x)
    assert np.shares_memory(value.numpy(), x)
    assert value.__dlpack_device__() == (1, 0)
    assert np.shares_memory(np.from_dlpack(value), x)
    assert np.shares_memory(OrtValue.from_dlpack(value.__dlpack__()).numpy(), x)
    assert OrtValue.from_dlpack(x > 1).data_type() == "tensor(bool)"


class _Owner:
    """Stands for an executor: one actor's memory."""

    def __init__(self) -> None:
        self.memory: dict[str, np.ndarray] = {}
        self.fetched = 0

    def keep_value(self, value: np.ndarray, stage: int) -> Resident:
        key = f"k{len(self.memory)}"
        self.memory[key] = value
        return Resident(
            self,
            stage,
            stage,
            0,
            ResidentMeta(key, 1, value.shape, value.nbytes),
            fetch=self._fetch,
            is_current=lambda stage, epoch: True,
            release=lambda stage, epoch, key: self.memory.pop(key),
        )

    def _fetch(self, value: Resident) -> np.ndarray:
        self.fetched += 1
        return self.memory[value.meta.key].copy()


def test_a_value_on_an_actor_tells_all_without_moving(x: np.ndarray) -> None:
    owner = _Owner()
    value = OrtValue(NativeValue._of(owner.keep_value(x, 1)))
    assert (value.shape(), value.data_type(), value.element_type()) == ([3, 2], "tensor(float)", 1)
    assert (value.device_name(), value.tensor_size_in_bytes(), value.has_value(), value.is_tensor()) == (
        "cpu",
        24,
        True,
        True,
    )
    with pytest.raises(RuntimeError, match="lies in the memory of an actor"):
        value.data_ptr()
    assert owner.fetched == 0
    assert value.numpy().tolist() == x.tolist()
    assert owner.fetched == 1
    value.update_inplace(x + 1)
    assert value.numpy().tolist() == (x + 1).tolist()
    assert len(owner.memory) == 1  # what was there before is released
    del value
    assert owner.memory == {}


def test_devices() -> None:
    table = {"cpu": (0, 0), "cuda": (1, 0x10DE), "gpu": (1, 0), "npu": (3, 0), "dml": (1, 0x1414), "cann": (3, 0x19E5)}
    for name, (kind, vendor) in table.items():
        device = distort.OrtDevice.make(name, 3)
        assert (device.device_type(), device.device_id(), device.device_vendor_id()) == (kind, 3, vendor)


def test_sparse_tensors() -> None:
    cpu = distort.OrtDevice.make("cpu", 0)
    values = np.array([1, 2], np.float32)
    coo = distort.SparseTensor.sparse_coo_from_numpy([3, 3], values, np.array([0, 4]), cpu)
    assert (coo.format(), coo.dense_shape(), coo.data_type(), coo.device_name()) == (
        distort.OrtSparseFormat.ORT_SPARSE_COO,
        [3, 3],
        "sparse_tensor(float)",
        "cpu",
    )
    assert coo.as_coo_view().indices().tolist() == [0, 4]
    with pytest.raises(RuntimeError, match=re.escape("This sparse tensor does not contain CSR(C) format")):
        coo.as_csrc_view()
    with pytest.raises(RuntimeError, match="Index size: 3 must be equal to or twice the values size: 2"):
        distort.SparseTensor.sparse_coo_from_numpy([3, 3], values, np.array([0, 4, 5]), cpu)
    csr = distort.SparseTensor.sparse_csr_from_numpy([3, 3], values, np.array([0, 1]), np.array([0, 1, 2, 2]), cpu)
    assert csr.as_csrc_view().outer().tolist() == [0, 1, 2, 2]
    assert csr._get_c_tensor()._coordinates().indices.tolist() == [0, 4]
    held = OrtValue.ort_value_from_sparse_tensor(csr)
    assert (held.is_sparse_tensor(), held.is_tensor(), held.data_type()) == (True, False, "sparse_tensor(float)")
    assert held.as_sparse_tensor().format() == distort.OrtSparseFormat.ORT_SPARSE_CSRC
    with pytest.raises(RuntimeError, match="does not contain SparseTensor"):
        OrtValue.ortvalue_from_numpy(values).as_sparse_tensor()


def test_values_pickle_unless_they_lie_on_an_actor(x: np.ndarray) -> None:
    sparse = distort.SparseTensor.sparse_coo_from_numpy(
        [3], x[:2, 0], np.array([0, 2]), distort.OrtDevice.make("cpu", 0)
    )
    for value in (OrtValue.ortvalue_from_numpy(x), OrtValue.ort_value_from_sparse_tensor(sparse)):
        copied = pickle.loads(pickle.dumps(value))
        assert (copied.data_type(), copied.shape()) == (value.data_type(), value.shape())
    assert pickle.loads(pickle.dumps(OrtValue.ortvalue_from_numpy(x))).numpy().tolist() == x.tolist()
    with pytest.raises(TypeError, match="it lies on an actor"):
        pickle.dumps(OrtValue(NativeValue._of(_Owner().keep_value(x, 1))))


def test_dlpack_of_types_that_numpy_lacks() -> None:
    for name in ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"):
        array = np.array([1, 2, 4]).astype(getattr(ml_dtypes, name))
        value = OrtValue.ortvalue_from_numpy(array)
        capsule = value.__dlpack__()
        del value
        shared = OrtValue.from_dlpack(capsule)
        assert shared.data_ptr() == array.ctypes.data
        assert shared.numpy().dtype == array.dtype
        with pytest.raises(TypeError, match="valid DLPack capsule"):
            OrtValue.from_dlpack(capsule)  # it is used up
    with pytest.raises(RuntimeError, match="DLPack has no packed type for int4"):
        OrtValue.ortvalue_from_numpy(np.zeros(2, ml_dtypes.int4)).__dlpack__()


def test_memory_in_capsules_is_given_back() -> None:
    array = np.zeros(100)
    alive = weakref.ref(array)
    value = OrtValue.ortvalue_from_numpy(array)
    taken, unused = OrtValue.from_dlpack(value), value.__dlpack__()
    del array, value
    assert alive() is not None
    del taken
    assert alive() is not None
    del unused
    gc.collect()
    assert alive() is None


def test_vectors(x: np.ndarray) -> None:
    vector = OrtValueVector()
    vector.push_back(OrtValue.ortvalue_from_numpy(x))
    assert (len(vector), vector.element_type_at(0), [v.shape() for v in vector]) == (1, 1, [[3, 2]])
    with pytest.raises(IndexError):
        vector[5]


def test_a_vector_keeps_the_memory_of_what_it_was_given(x: np.ndarray) -> None:
    owner = x.copy()
    alive = weakref.ref(owner)
    cpu = distort.OrtDevice.make("cpu", 0)._get_c_device()
    vector = OrtValueVector()
    vector.push_back_batch([owner], [owner.ctypes.data], [np.float32], [owner.shape], [cpu])
    del owner
    view = vector[0].numpy()
    del vector
    assert alive() is not None and view.tolist() == x.tolist()
    del view
    assert alive() is None


def test_strings_of_sparse_tensors_are_objects() -> None:
    cpu = distort.OrtDevice.make("cpu", 0)
    made = distort.SparseTensor.sparse_coo_from_numpy([3, 3], np.array(["a", "bc"]), np.array([0, 4]), cpu)
    assert made.values().dtype == object and made.values().tolist() == ["a", "bc"]


def test_what_gpus_libraries_ask_of_a_value_on_the_host(x: np.ndarray) -> None:
    value = OrtValue.ortvalue_from_numpy(x)
    assert not hasattr(value, "__cuda_array_interface__")
    same = OrtValue.from_dlpack(value.__dlpack__(dl_device=(1, 0), max_version=(1, 0)))
    copied = OrtValue.from_dlpack(value.__dlpack__(copy=True))
    assert np.shares_memory(same.numpy(), x) and not np.shares_memory(copied.numpy(), x)
    assert copied.numpy().tolist() == x.tolist()
    with pytest.raises(BufferError, match=r"lies on DLPack's device \(1, 0\), and was to be exported to \(2, 0\)"):
        value.__dlpack__(dl_device=(2, 0))
