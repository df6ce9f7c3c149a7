"""Where onnxruntime's own Python classes live."""

from __future__ import annotations

from distort.adapters import AdapterFormat
from distort.devices import OrtDevice, get_ort_device_type, get_vendor_id_for_device_type
from distort.enums import OrtDeviceVendorId
from distort.iobinding import IOBinding
from distort.model_compiler import (
    GetInitializerLocationFunc,
    GetInitializerLocationWrapperFunc,
    ModelCompiler,
    make_get_initializer_location_func_wrapper,
)
from distort.ortvalue import OrtValue, copy_tensors
from distort.providers import check_and_normalize_provider_args
from distort.session import InferenceSession, Session
from distort.sparse import SparseTensor

__all__ = [
    "AdapterFormat",
    "GetInitializerLocationFunc",
    "GetInitializerLocationWrapperFunc",
    "IOBinding",
    "InferenceSession",
    "ModelCompiler",
    "OrtDevice",
    "OrtDeviceVendorId",
    "OrtValue",
    "Session",
    "SparseTensor",
    "check_and_normalize_provider_args",
    "copy_tensors",
    "get_ort_device_type",
    "get_vendor_id_for_device_type",
    "make_get_initializer_location_func_wrapper",
]
