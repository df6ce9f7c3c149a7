"""OrtValue as users make and hold it: a native handle, with devices by name."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort import errors
from distort.native import values
from distort.native.base import public

if TYPE_CHECKING:
    from distort.enums import OrtDeviceVendorId
    from distort.native.devices import OrtDevice as NativeDevice
    from distort.native.devices import OrtMemoryInfo
    from distort.sparse import SparseTensor

Array = np.ndarray[Any, Any]
_DLPACK_CPU = 1


@public
class OrtValue:
    """A tensor, a sequence, a map, a sparse tensor, or nothing; in this process, or where a run left it."""

    __slots__ = ("__weakref__", "_numpy_obj", "_ortvalue", "_session")

    def __init__(self, ortvalue: values.OrtValue, numpy_obj: Array | None = None, session: Any = None) -> None:
        if not isinstance(ortvalue, values.OrtValue):
            raise ValueError(f"`Provided ortvalue` needs to be of type `{errors.MODULE}.OrtValue`")
        self._ortvalue = ortvalue
        self._numpy_obj = numpy_obj
        self._session = session

    def __reduce_ex__(self, protocol: Any) -> Any:
        return OrtValue, (self._ortvalue,)

    def _get_c_value(self) -> values.OrtValue:
        return self._ortvalue

    # -- making

    @classmethod
    def ortvalue_from_numpy(
        cls,
        numpy_obj: Array,
        /,
        device_type: str = "cpu",
        device_id: int = 0,
        vendor_id: int | OrtDeviceVendorId = -1,
    ) -> OrtValue:
        """A tensor over the array's own memory; an array that is not contiguous is copied. On a GPU, a copy there."""
        device = _device(device_type, device_id, vendor_id)
        return cls(values.OrtValue.ortvalue_from_numpy(numpy_obj, device), numpy_obj)

    @classmethod
    def ortvalue_from_numpy_with_onnx_type(cls, data: Array, /, onnx_element_type: int) -> OrtValue:
        """A tensor whose elements are the array's bytes, read as an ONNX type that numpy may lack."""
        return cls(values.OrtValue.ortvalue_from_numpy_with_onnx_type(data, onnx_element_type), data)

    @classmethod
    def ortvalue_from_shape_and_type(
        cls,
        shape: Sequence[int],
        element_type: Any,
        device_type: str = "cpu",
        device_id: int = 0,
        vendor_id: int | OrtDeviceVendorId = -1,
        memory_info: OrtMemoryInfo | None = None,
    ) -> OrtValue:
        """A tensor of zeros. ``element_type`` is a numpy dtype or ONNX's number."""
        if memory_info is not None:
            if (device_type, device_id, vendor_id) != ("cpu", 0, -1):
                text = "device_type, device_id, and vendor_id are ignored when memory_info is provided."
                warnings.warn(text, stacklevel=2)
            return cls(values.OrtValue.ortvalue_from_shape_and_type_for_memory_info(shape, element_type, memory_info))
        device = _device(device_type, device_id, vendor_id)
        return cls(values.OrtValue.ortvalue_from_shape_and_type(shape, element_type, device))

    @classmethod
    def ort_value_from_sparse_tensor(cls, sparse_tensor: SparseTensor) -> OrtValue:
        return cls(values.OrtValue.ort_value_from_sparse_tensor(sparse_tensor._get_c_tensor()))

    @classmethod
    def from_dlpack(cls, data: Any, /) -> OrtValue:
        """A tensor over the memory of a DLPack capsule, or of an object that makes one, in this process or on a GPU."""
        if hasattr(data, "__dlpack__"):
            return cls(values.OrtValue._from_dlpack_object(data))
        return cls(values.OrtValue.from_dlpack(data))

    # -- asking

    def numpy(self) -> Array:
        """The values: a view of this process's memory, or a copy of what lies on a GPU or an actor."""
        return self._ortvalue.numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def as_sparse_tensor(self) -> SparseTensor:
        from distort.sparse import SparseTensor

        return SparseTensor(self._ortvalue.as_sparse_tensor())

    def data_ptr(self) -> int:
        """The address of the first element, in this process's memory or a GPU's."""
        return self._ortvalue.data_ptr()

    def device_name(self) -> str:
        return self._ortvalue.device_name()

    def shape(self) -> list[int]:
        return self._ortvalue.shape()

    def data_type(self) -> str:
        return self._ortvalue.data_type()

    def element_type(self) -> int:
        return self._ortvalue.element_type()

    def tensor_size_in_bytes(self) -> int:
        return self._ortvalue.tensor_size_in_bytes()

    def has_value(self) -> bool:
        return self._ortvalue.has_value()

    def is_tensor(self) -> bool:
        return self._ortvalue.is_tensor()

    def is_sparse_tensor(self) -> bool:
        return self._ortvalue.is_sparse_tensor()

    def is_tensor_sequence(self) -> bool:
        return self._ortvalue.is_tensor_sequence()

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule of DLPack's first version, to be read in ``stream``. Raises BufferError for another device."""
        own = self._ortvalue.__dlpack_device__()
        if dl_device is not None and (int(dl_device[0]), int(dl_device[1])) != own:
            if int(dl_device[0]) != _DLPACK_CPU or copy is False:
                raise BufferError(f"the value lies on DLPack's device {own}, and was to be exported to {dl_device}")
            return OrtValue.ortvalue_from_numpy(self.numpy().copy()).__dlpack__()
        if copy:
            name = "cuda" if own[0] != _DLPACK_CPU else "cpu"
            made = OrtValue.ortvalue_from_shape_and_type(self.shape(), self.element_type(), name, own[1])
            made.update_inplace(self)
            return made._ortvalue.__dlpack__(stream)
        return self._ortvalue.__dlpack__(stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._ortvalue.__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """What libraries for GPUs read. Raises AttributeError for values elsewhere, as hasattr wants."""
        found = self._ortvalue._cuda_array_interface()
        if found is None:
            raise AttributeError("__cuda_array_interface__: the value doesn't lie on a GPU")
        return found

    # -- changing

    def update_inplace(self, data: Array | OrtValue) -> None:
        """Write the elements of ``data``, of the same dtype and count, where this value's are."""
        if not isinstance(data, (OrtValue, np.ndarray)):
            raise TypeError("data must be a numpy.ndarray or an OrtValue.")
        self._ortvalue.update_inplace(data._ortvalue if isinstance(data, OrtValue) else data)


def _device(device_type: str, device_id: int, vendor_id: int | OrtDeviceVendorId) -> NativeDevice:
    from distort.devices import OrtDevice

    return OrtDevice.make(device_type, device_id, vendor_id)._get_c_device()


def copy_tensors(src: Sequence[OrtValue], dst: Sequence[OrtValue], stream: Any = None) -> None:
    """Copy tensors into tensors of the same types and shapes, all or none."""
    values.copy_tensors([value._get_c_value() for value in src], [value._get_c_value() for value in dst], stream)
