"""OrtValue: a handle of a value, which lies in this process or in the memory of an actor.

A tensor made from numpy aliases the array, as onnxruntime's does on the CPU. A value that stayed on an actor answers
what it is (type, shape, device) without moving; ``numpy()`` fetches it. A tensor on a GPU of this process is a CuPy
array, of bytes where CuPy lacks the element type (see ``kernels/cuda/memory.py``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from distort import errors
from distort.enums import OrtDeviceVendorId
from distort.graph.ir import SparseInitializer
from distort.graph.types import (
    DTYPE_OF,
    SUB_BYTE_BITS,
    OptionalType,
    SequenceType,
    SparseTensorType,
    TensorType,
    ValueType,
    element_of,
)
from distort.native.base import native
from distort.native.devices import GPU, OrtDevice, OrtMemoryInfo, is_cuda, is_host, on_gpu, require_here
from distort.native.sparse import SparseTensor

_STRING = 8
_NO_STRINGS = "Creation of OrtValues is currently only supported from non-string numpy arrays"
_INT = "typing.SupportsInt | typing.SupportsIndex"
_SHAPE = f"arg0: collections.abc.Sequence[{_INT}]"

Array = np.ndarray[Any, Any]


def tensor_element(array: Array) -> int:
    """ONNX's number of an array's dtype. Raises RuntimeError for strings and for dtypes onnxruntime lacks."""
    if array.dtype.kind in "OUST" or array.dtype.num == np.dtype(np.void).num:
        raise RuntimeError(_NO_STRINGS)
    try:
        element = element_of(array.dtype)
    except KeyError:
        element = 0
    if element in (0, 14, 15):
        raise RuntimeError(f"Numpy_type {array.dtype.num} can't be converted to MLDataType.")
    return element


def element_of_argument(element_type: Any) -> int:
    """A numpy dtype, whatever makes one, or ONNX's number."""
    if isinstance(element_type, (int, np.integer)) and not isinstance(element_type, bool):
        element = int(element_type)
        if element not in DTYPE_OF or element in (14, 15):
            raise RuntimeError(f"tensor type {element} is not supported")
        if element == _STRING:
            raise RuntimeError(_NO_STRINGS)
        return element
    try:
        dtype = np.dtype(element_type)
    except TypeError:
        raise RuntimeError("Not a valid numpy type") from None
    return tensor_element(np.empty(0, dtype))


def type_of(value: Any) -> ValueType | None:
    """The type of a value that a run handed out; None where the value is absent."""
    if isinstance(value, np.ndarray):
        return TensorType(element_of(value.dtype))
    if isinstance(value, SparseInitializer):
        return SparseTensorType(element_of(value.values.dtype))
    if on_gpu(value):
        return TensorType(element_of(value.dtype))
    if hasattr(value, "fetch"):
        return TensorType(value.element) if value.element else None
    return None


@native
class OrtValue:
    """A tensor, a sequence, a map, a sparse tensor, or nothing."""

    _value: Any
    _type: ValueType | None
    _sparse: SparseTensor | None = None  # what the value was made from, where that has a format of its own
    _told: Callable[[str, int], None] | None = None  # told ("d2h", bytes) when the value of a run is copied from a GPU
    _settle: Callable[[], None] | None = None  # waits for the run that makes the value, where the run itself didn't

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"{errors.MODULE}.OrtValue: No constructor defined!")

    @classmethod
    def _of(cls, value: Any, value_type: ValueType | None = None) -> OrtValue:
        """A handle of a value of a run: array, Resident, list, dict, SparseInitializer or None."""
        made = cls.__new__(cls)
        made._value = value
        declared = value_type.item if isinstance(value_type, OptionalType) else value_type
        made._type = type_of(value) or declared
        if isinstance(declared, TensorType) and declared.element and on_gpu(value):
            made._type = TensorType(declared.element)  # its array may be of bytes
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        """A value of this process is copied; one on an actor can't follow."""
        if hasattr(self._value, "fetch"):
            raise TypeError(f"cannot pickle '{errors.MODULE}.OrtValue' object: it lies on an actor; numpy() fetches it")
        # what lies on a GPU is read where it may be another
        return _unpickled, (self._tensor() if on_gpu(self._value) else self._value, self._type)

    # -- making

    @staticmethod
    def ortvalue_from_numpy(arg0: Any, arg1: OrtDevice, /) -> OrtValue:
        """A tensor over the array's own memory; an array that is not contiguous is copied. On a GPU, a copy there."""
        _check_device("ortvalue_from_numpy", f"(arg0: object, {_DEVICE}) -> C.OrtValue", arg0, arg1)
        require_here(arg1)
        if not isinstance(arg0, np.ndarray):
            raise RuntimeError(_NO_STRINGS)
        declared = TensorType(tensor_element(arg0))
        if not is_host(arg1):
            from distort.native import gpu_values

            return OrtValue._of(gpu_values.place(arg0, arg1.device_id()), declared)
        return OrtValue._of(np.asarray(arg0, order="C"), declared)

    @staticmethod
    def ortvalue_from_numpy_with_onnx_type(arg0: Array, arg1: int, /) -> OrtValue:
        """A tensor whose elements are the array's bytes, read as an ONNX type that numpy may lack."""
        signature = f"(arg0: numpy.ndarray, arg1: {_INT}) -> C.OrtValue"
        if not isinstance(arg0, np.ndarray):
            raise errors.incompatible("ortvalue_from_numpy_with_onnx_type", signature, arg0, arg1)
        element = element_of_argument(operator.index(arg1))
        dtype = DTYPE_OF[element]
        if arg0.dtype.itemsize != dtype.itemsize:
            raise RuntimeError(
                f"Items size in the incoming array: {arg0.dtype.itemsize} specified by onnxtype: {dtype.itemsize}"
            )
        whole = np.ascontiguousarray(arg0).reshape(arg0.shape)
        if element in SUB_BYTE_BITS:
            from distort.graph.tensors import unpack

            return OrtValue._of(unpack(whole.reshape(-1).view(np.uint8), element, whole.size).reshape(whole.shape))
        return OrtValue._of(whole.view(dtype))

    @staticmethod
    def ortvalue_from_shape_and_type(arg0: Sequence[int], arg1: Any, arg2: OrtDevice, /) -> OrtValue:
        """A tensor of zeros. ``arg1`` is a numpy dtype."""
        function, signature = "ortvalue_from_shape_and_type", f"({_SHAPE}, arg1: object, {_DEVICE_2}) -> C.OrtValue"
        _check_device(function, signature, arg0, arg1, arg2)
        return _zeros(function, signature, arg0, arg1, arg2)

    @staticmethod
    def ortvalue_from_shape_and_onnx_type(arg0: Sequence[int], arg1: int, arg2: OrtDevice, /) -> OrtValue:
        """A tensor of zeros. ``arg1`` is ONNX's number of its element type."""
        function = "ortvalue_from_shape_and_onnx_type"
        signature = f"({_SHAPE}, arg1: {_INT}, {_DEVICE_2}) -> C.OrtValue"
        _check_device(function, signature, arg0, arg1, arg2)
        return _zeros(function, signature, arg0, arg1, arg2)

    @staticmethod
    def ortvalue_from_shape_and_type_for_memory_info(
        arg0: Sequence[int], arg1: Any, arg2: OrtMemoryInfo, /
    ) -> OrtValue:
        """A tensor of zeros in the memory that a memory info names: this process's, in every case here."""
        function = "ortvalue_from_shape_and_type_for_memory_info"
        return _zeros(function, f"({_SHAPE}, arg1: object, arg2: C.OrtMemoryInfo) -> C.OrtValue", arg0, arg1, arg2)

    @staticmethod
    def ortvalue_from_shape_and_onnx_type_for_memory_info(
        arg0: Sequence[int], arg1: int, arg2: OrtMemoryInfo, /
    ) -> OrtValue:
        """As above, with ONNX's number of the element type."""
        function = "ortvalue_from_shape_and_onnx_type_for_memory_info"
        return _zeros(function, f"({_SHAPE}, arg1: {_INT}, arg2: C.OrtMemoryInfo) -> C.OrtValue", arg0, arg1, arg2)

    @staticmethod
    def ort_value_from_sparse_tensor(arg0: SparseTensor, /) -> OrtValue:
        made = OrtValue._of(arg0._coordinates())
        made._sparse = arg0
        return made

    @staticmethod
    def from_dlpack(data: Any) -> OrtValue:
        """A tensor over the memory of a DLPack capsule, in this process or on a GPU."""
        from distort.native import dlpack

        if dlpack.device_of(data)[0] == dlpack.CUDA:
            return _of_gpu_capsule(data, None)
        return OrtValue._of(dlpack.take(data))

    @staticmethod
    def _from_dlpack_object(data: Any) -> OrtValue:
        """As :meth:`from_dlpack`, of an object with DLPack's methods, which is told in which stream it is read."""
        from distort.native import dlpack

        kind, number = data.__dlpack_device__() if hasattr(data, "__dlpack_device__") else (dlpack.CPU, 0)
        if int(kind) == dlpack.CUDA:
            return _of_gpu_capsule(data, int(number))
        return OrtValue.from_dlpack(data.__dlpack__())

    # -- asking

    def _tensor(self) -> Array:
        """The values in this process."""
        value = self._value
        if hasattr(value, "fetch"):
            with errors.translated():
                value = value.fetch()
        elif on_gpu(value):
            value = self._from_gpu()
        if not isinstance(value, np.ndarray):
            raise RuntimeError("Only OrtValues that are Tensors are convertible to Numpy objects")
        return value

    def _from_gpu(self) -> Array:
        """A copy of what lies on a GPU."""
        from distort.native import gpu_values

        self._wait()
        if self._told is not None:
            self._told("d2h", int(self._value.nbytes))
        return gpu_values.fetch(self._value, self.element_type())

    def _wait(self) -> None:
        """Until the value is there: a run that was told not to wait for the GPU may still be making it."""
        if self._settle is not None:
            self._settle()
            self._settle = None

    def numpy(self) -> Array:
        """The values: a view of this process's memory, or a copy of what lies on a GPU or an actor."""
        value = self._tensor()
        resident = value is not self._value
        if value.dtype == object or (resident and not value.flags.writeable):
            return value.copy()
        return value.view()

    def data_ptr(self) -> int:
        """The address of the first element, in this process's memory or a GPU's."""
        if hasattr(self._value, "fetch"):
            raise RuntimeError("The value lies in the memory of an actor; numpy() fetches it.")
        if on_gpu(self._value):
            return int(self._value.data.ptr)
        value = self._tensor()
        if value.dtype == object:
            raise RuntimeError(_NO_STRINGS)
        return int(value.ctypes.data)

    def device_name(self) -> str:
        if on_gpu(self._value):
            return "cuda"
        return str(getattr(self._value, "device", "cpu")) if hasattr(self._value, "fetch") else "cpu"

    def _device_id(self) -> int:
        """The number of the GPU that the value lies on; 0 elsewhere."""
        return int(self._value.device.id) if on_gpu(self._value) else 0

    def shape(self) -> list[int]:
        if isinstance(self._value, SparseInitializer):
            return list(self._value.dims)
        if not self.is_tensor():
            raise RuntimeError("The value is no tensor and has no shape")
        return [int(dim) for dim in self._value.shape]

    def data_type(self) -> str:
        return str(self._type)

    def element_type(self) -> int:
        found = self._type
        while isinstance(found, SequenceType):
            found = found.item
        return found.element if isinstance(found, (TensorType, SparseTensorType)) else 0

    def tensor_size_in_bytes(self) -> int:
        if not self.is_tensor():
            raise RuntimeError("Only OrtValues that are Tensors are currently supported")
        if self.element_type() == _STRING:
            raise RuntimeError(_NO_STRINGS)
        bits = SUB_BYTE_BITS.get(self.element_type())
        count = 1
        for dim in self._value.shape:
            count *= dim
        return (count * bits + 7) // 8 if bits else int(self._value.nbytes)

    def has_value(self) -> bool:
        return self._value is not None

    def is_tensor(self) -> bool:
        return self._value is not None and isinstance(self._type, TensorType)

    def is_sparse_tensor(self) -> bool:
        return isinstance(self._value, SparseInitializer)

    def is_tensor_sequence(self) -> bool:
        return isinstance(self._type, SequenceType) and isinstance(self._type.item, TensorType)

    def as_sparse_tensor(self) -> SparseTensor:
        if not isinstance(self._value, SparseInitializer):
            raise RuntimeError("This OrtValue does not contain SparseTensor. Check data_type() value.")
        return self._sparse or SparseTensor._of(self._value)

    def __dlpack__(self, stream: Any = None) -> Any:
        if on_gpu(self._value):
            from distort.native import gpu_values

            self._wait()
            return gpu_values.export(self._value, self.element_type(), stream)
        value = self._tensor()
        if value.dtype == object:
            raise RuntimeError(_NO_STRINGS)
        from distort.native import dlpack

        return dlpack.export(value)

    def to_dlpack(self) -> Any:
        """A DLPack capsule over the tensor's memory."""
        return self.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self._device_id()) if on_gpu(self._value) else (1, 0)

    def _cuda_array_interface(self) -> dict[str, Any] | None:
        """Numba's description of memory on a GPU, ready to be read in any stream; None where it lies elsewhere."""
        if not on_gpu(self._value):
            return None
        self._wait()
        return {**self._value.__cuda_array_interface__, "stream": None}

    def _is_webgpu_buffer(self) -> bool:
        return False

    # -- changing

    def update_inplace(self, arg0: Array | OrtValue, /) -> None:
        """Write the elements of an array or a value, of the same dtype and count, where this value's are."""
        data = arg0
        source: Any
        if isinstance(data, OrtValue):
            data._wait()
            source = data._value if on_gpu(data._value) else data._tensor()
            if data._dtype() != self._dtype():
                raise RuntimeError("The source and destination OrtValues must have the same data type")
            if source.size != int(np.prod(self.shape(), dtype=np.int64)):
                raise RuntimeError("The source and destination OrtValues must have the same size")
        elif isinstance(data, np.ndarray):
            source = data
            tensor_element(source)
            if source.size != int(np.prod(self.shape(), dtype=np.int64)):
                raise RuntimeError("The input size of numpy arrays does not match the size of the OrtValue.")
            if source.dtype != self._dtype():
                raise RuntimeError("The input data type of numpy arrays does not match the type of the OrtValue.")
        else:
            raise TypeError("data must be a numpy.ndarray or an OrtValue.")
        self._wait()
        if on_gpu(self._value) or on_gpu(source):
            self._copy_of_gpu(data, source)
            return
        source = source.reshape(self.shape())
        if hasattr(self._value, "fetch"):
            with errors.translated():
                self._value = self._value.owner.keep_value(np.ascontiguousarray(source), self._value.stage)
        else:
            np.copyto(self._value, source)

    def _copy_of_gpu(self, data: Array | OrtValue, source: Any) -> None:
        """Write ``source``, which is the value of ``data``, where at least one end is on a GPU."""
        from distort.native import gpu_values

        if on_gpu(self._value):
            if not on_gpu(source) and self._told is not None:
                self._told("h2d", int(source.nbytes))
            gpu_values.write(self._value, source)
            return
        assert isinstance(data, OrtValue)  # a numpy array lies on no GPU
        if isinstance(self._value, np.ndarray) and self._value.flags.c_contiguous:
            if data._told is not None:
                data._told("d2h", int(source.nbytes))
            gpu_values.read_into(self._value, source)
            return
        self.update_inplace(data._from_gpu())

    def _dtype(self) -> np.dtype[Any]:
        if not self.is_tensor() or self.element_type() == _STRING:
            raise RuntimeError(_NO_STRINGS)
        return DTYPE_OF[self.element_type()]


def _unpickled(value: Any, value_type: ValueType | None) -> OrtValue:
    return OrtValue._of(value, value_type)


_DEVICE = "arg1: C.OrtDevice"
_DEVICE_2 = "arg2: C.OrtDevice"


def _check_device(function: str, signature: str, *arguments: Any) -> None:
    if not isinstance(arguments[-1], OrtDevice):
        raise errors.incompatible(function, signature, *arguments)


def _zeros(function: str, signature: str, shape: Sequence[int], element_type: Any, place: Any) -> OrtValue:
    if not isinstance(place, (OrtDevice, OrtMemoryInfo)):
        raise errors.incompatible(function, signature, shape, element_type, place)
    try:
        sizes = tuple(operator.index(dim) for dim in shape)
    except TypeError:
        raise errors.incompatible(function, signature, shape, element_type, place) from None
    element = element_of_argument(element_type)
    pinned = isinstance(place, OrtMemoryInfo) and place.name == "CudaPinned"
    if isinstance(place, OrtMemoryInfo):
        if place.name not in ("Cpu", "Cuda", "CudaPinned"):
            raise RuntimeError(f"No shared allocator found for: OrtMemoryInfo:[name:{place.name}]")
        kind = 0 if place.name == "Cpu" else GPU
        place = OrtDevice(kind, 0, int(OrtDeviceVendorId.NVIDIA) if kind else 0, place.device_id)
    require_here(place)
    if any(dim < 0 for dim in sizes):
        raise RuntimeError(errors.prefix("FAIL") + "Tensor shape.Size() must be >= 0")
    if is_host(place):
        return OrtValue._of(np.zeros(sizes, DTYPE_OF[element]))
    from distort.native import gpu_values

    if pinned:
        return OrtValue._of(gpu_values.pinned_zeros(sizes, element, place.device_id()))
    return OrtValue._of(gpu_values.zeros(sizes, element, place.device_id()), TensorType(element))


def _of_gpu_capsule(data: Any, device_id: int | None) -> OrtValue:
    """A tensor over a GPU's memory: of a capsule, or of an object that makes one on a GPU."""
    from distort.kernels.cuda import device as gpus
    from distort.native import gpu_values

    if not gpus.count():
        raise RuntimeError(f"The tensor lies on a GPU, which can't be used here. {gpus.why_not()}")
    value, element = gpu_values.taken_capsule(data) if device_id is None else gpu_values.taken(data, device_id)
    return OrtValue._of(value, TensorType(element))


def copy_tensors(arg0: Sequence[OrtValue], arg1: Sequence[OrtValue], arg2: Any, /) -> None:
    """Copy tensors into tensors of the same types and shapes, all or none. Raises RuntimeError.

    ``arg2`` is a stream of a GPU, or None: what it has yet to do is done before, and the copies are there afterwards.
    """
    sources, targets = list(arg0), list(arg1)
    if not all(isinstance(value, OrtValue) for value in (*sources, *targets)):
        signature = "(arg0: collections.abc.Sequence[OrtValue], arg1: collections.abc.Sequence[OrtValue], arg2: object)"
        raise errors.incompatible("copy_tensors", f"{signature} -> None", arg0, arg1, arg2)
    if len(sources) != len(targets):
        raise RuntimeError("Invalid arguments provided to CopyTensors.")
    for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
        if (source.data_type(), source.shape()) != (target.data_type(), target.shape()):
            raise RuntimeError(
                f"copy_tensors: tensor {i} is {source.data_type()} {source.shape()}, and is to be copied into "
                f"{target.data_type()} {target.shape()}."
            )
    if getattr(arg2, "_stream", None) is not None:
        arg2._stream.synchronize()  # what it has yet to write may be among the sources
    for source, target in zip(sources, targets, strict=True):
        target.update_inplace(source)


@native
class OrtValueVector:
    """A list of OrtValues, as ``run_with_ortvaluevector`` takes and fills."""

    def __init__(self) -> None:
        self._values: list[OrtValue] = []

    def push_back(self, arg0: Any, /) -> None:
        """Append a value, or the tensor of a DLPack capsule."""
        if hasattr(arg0, "_get_c_value"):
            arg0 = arg0._get_c_value()
        self._values.append(arg0 if isinstance(arg0, OrtValue) else OrtValue.from_dlpack(arg0))

    def push_back_batch(
        self, arg0: Sequence[Any], arg1: Sequence[int], arg2: Sequence[Any], arg3: Sequence[Any], arg4: Any, /
    ) -> None:
        """Tensors over foreign memory: objects that keep it alive, addresses, dtypes, shapes, devices."""
        places = arg4 if isinstance(arg4, Sequence) else [arg4] * len(arg0)
        for owner, pointer, element_type, shape, place in zip(arg0, arg1, arg2, arg3, places, strict=True):
            self._values.append(from_pointer(pointer, element_type, shape, owner, place))

    def reserve(self, arg0: int, /) -> None:
        """Nothing to do: Python's lists grow by themselves."""

    def shrink_to_fit(self) -> None:
        """Nothing to do: Python's lists shrink by themselves."""

    def element_type_at(self, idx: int) -> int:
        return self[idx].element_type()

    def dlpack_at(self, arg0: int, /) -> Any:
        return self[arg0].__dlpack__()

    def to_dlpacks(self, to_tensor: Any) -> list[Any]:
        """DLPack capsules of all values, or what ``to_tensor`` makes of them."""
        capsules = [value.__dlpack__() for value in self._values]
        return capsules if to_tensor is None else [to_tensor(capsule) for capsule in capsules]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[OrtValue]:
        return iter(self._values)

    def __getitem__(self, index: int) -> OrtValue:
        if not -len(self._values) <= index < len(self._values):
            raise IndexError(f"index {index} is out of range of a vector of {len(self._values)}")
        return self._values[index]


def from_pointer(
    pointer: int, element_type: Any, shape: Sequence[int], owner: object = None, place: OrtDevice | None = None
) -> OrtValue:
    """A tensor over memory of this process, or of the GPU ``place``.

    Somebody else keeps it alive, or it lives as long as ``owner``.
    """
    import ctypes

    element = element_of_argument(element_type)
    if element in SUB_BYTE_BITS:
        raise RuntimeError("Elements smaller than a byte are packed in memory, which arrays here are not: bind a value")
    dtype = DTYPE_OF[element]
    sizes = tuple(operator.index(dim) for dim in shape)
    if any(dim < 0 for dim in sizes):
        raise RuntimeError("shape.Size() must >=0")
    if isinstance(place, OrtDevice) and is_cuda(place):
        from distort.native import gpu_values

        return OrtValue._of(gpu_values.over(pointer, sizes, element, place.device_id(), owner), TensorType(element))
    count = int(np.prod(sizes, dtype=np.int64))
    if count == 0:
        return OrtValue._of(np.zeros(sizes, dtype))
    memory: Any = (ctypes.c_char * (count * dtype.itemsize)).from_address(pointer)
    memory.owner = owner
    return OrtValue._of(np.frombuffer(memoryview(memory), np.uint8).view(dtype).reshape(sizes))
