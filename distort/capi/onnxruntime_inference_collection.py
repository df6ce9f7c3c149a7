"""Where onnxruntime's own Python classes live."""

from __future__ import annotations

from distort.devices import OrtDevice, get_ort_device_type
from distort.enums import OrtDeviceVendorId
from distort.iobinding import IOBinding
from distort.ortvalue import OrtValue
from distort.providers import check_and_normalize_provider_args
from distort.session import InferenceSession, Session
from distort.sparse import SparseTensor

__all__ = [
    "IOBinding",
    "InferenceSession",
    "OrtDevice",
    "OrtDeviceVendorId",
    "OrtValue",
    "Session",
    "SparseTensor",
    "check_and_normalize_provider_args",
    "get_ort_device_type",
]
