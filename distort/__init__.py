"""ONNX Runtime's Python API on an actor runtime.

What every session needs is imported with the package; other names when they are first used.
"""

from __future__ import annotations

import os

_checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if os.path.isfile(os.path.join(_checkout, "kernels", "registry.py")):
    __path__.append(_checkout)

__version__ = "0.1.0"

#: what onnxruntime's package says of its build
package_name = "distort"
version = __version__
cuda_version = ""

TYPE_CHECKING = False  # type checkers take it for true; typing is not imported for it
if TYPE_CHECKING:  # what the table below brings when it is first used
    from . import backend as backend
    from . import capi as capi
    from . import compat as compat
    from . import datasets as datasets
    from .adapters import AdapterFormat as AdapterFormat
    from .adapters import LoraAdapter as LoraAdapter
    from .custom_operators import TensorSpec as TensorSpec
    from .custom_operators import register_kernel as register_kernel
    from .custom_operators import unregister_kernel as unregister_kernel
    from .devices import OrtDevice as OrtDevice
    from .enums import ExecutionMode as ExecutionMode
    from .enums import ExecutionOrder as ExecutionOrder
    from .enums import GraphOptimizationLevel as GraphOptimizationLevel
    from .enums import OrtAllocatorType as OrtAllocatorType
    from .enums import OrtCompileApiFlags as OrtCompileApiFlags
    from .enums import OrtDeviceMemoryType as OrtDeviceMemoryType
    from .enums import OrtDeviceVendorId as OrtDeviceVendorId
    from .enums import OrtExecutionProviderDevicePolicy as OrtExecutionProviderDevicePolicy
    from .enums import OrtHardwareDeviceType as OrtHardwareDeviceType
    from .enums import OrtMemoryInfoDeviceType as OrtMemoryInfoDeviceType
    from .enums import OrtMemType as OrtMemType
    from .enums import OrtSparseFormat as OrtSparseFormat
    from .iobinding import IOBinding as IOBinding
    from .metadata import ModelMetadata as ModelMetadata
    from .metadata import NodeArg as NodeArg
    from .model_compiler import ModelCompiler as ModelCompiler
    from .model_package import ModelPackage as ModelPackage
    from .model_package import ModelPackageComponentContext as ModelPackageComponentContext
    from .model_package import ModelPackageContext as ModelPackageContext
    from .model_package import ModelPackageOptions as ModelPackageOptions
    from .model_package import ModelPackageWriteMode as ModelPackageWriteMode
    from .native.allocators import OrtArenaCfg as OrtArenaCfg
    from .native.allocators import create_and_register_allocator as create_and_register_allocator
    from .native.allocators import create_and_register_allocator_v2 as create_and_register_allocator_v2
    from .native.binding import SessionIOBinding as SessionIOBinding
    from .native.compiler import OrtEpContextData as OrtEpContextData
    from .native.compiler import OrtEpContextDataBuffer as OrtEpContextDataBuffer
    from .native.compiler import OrtExternalInitializerInfo as OrtExternalInitializerInfo
    from .native.devices import OrtMemoryInfo as OrtMemoryInfo
    from .native.hardware import OrtEpAssignedNode as OrtEpAssignedNode
    from .native.hardware import OrtEpAssignedSubgraph as OrtEpAssignedSubgraph
    from .native.hardware import OrtEpDevice as OrtEpDevice
    from .native.hardware import OrtHardwareDevice as OrtHardwareDevice
    from .native.hardware import OrtSyncStream as OrtSyncStream
    from .native.hardware import get_ep_devices as get_ep_devices
    from .native.hardware import register_execution_provider_library as register_execution_provider_library
    from .native.hardware import unregister_execution_provider_library as unregister_execution_provider_library
    from .options import RunOptions as RunOptions
    from .options import SessionOptions as SessionOptions
    from .ortvalue import OrtValue as OrtValue
    from .ortvalue import copy_tensors as copy_tensors
    from .process import disable_telemetry_events as disable_telemetry_events
    from .process import enable_telemetry_events as enable_telemetry_events
    from .process import get_build_info as get_build_info
    from .process import get_version_string as get_version_string
    from .process import has_collective_ops as has_collective_ops
    from .process import preload_dlls as preload_dlls
    from .process import print_debug_info as print_debug_info
    from .process import set_default_logger_callback as set_default_logger_callback
    from .process import set_default_logger_severity as set_default_logger_severity
    from .process import set_default_logger_verbosity as set_default_logger_verbosity
    from .process import set_global_thread_pool_sizes as set_global_thread_pool_sizes
    from .process import set_seed as set_seed
    from .providers import get_all_providers as get_all_providers
    from .providers import get_available_providers as get_available_providers
    from .providers import get_device as get_device
    from .session import InferenceSession as InferenceSession
    from .sparse import SparseTensor as SparseTensor

_MODULES = {
    "session": ("InferenceSession",),
    "iobinding": ("IOBinding",),
    "options": ("RunOptions", "SessionOptions"),
    "metadata": ("ModelMetadata", "NodeArg"),
    "custom_operators": ("TensorSpec", "register_kernel", "unregister_kernel"),
    "devices": ("OrtDevice",),
    "native.devices": ("OrtMemoryInfo",),
    "native.hardware": (
        "OrtEpAssignedNode",
        "OrtEpAssignedSubgraph",
        "OrtEpDevice",
        "OrtHardwareDevice",
        "OrtSyncStream",
        "get_ep_devices",
        "register_execution_provider_library",
        "unregister_execution_provider_library",
    ),
    "native.allocators": ("OrtArenaCfg", "create_and_register_allocator", "create_and_register_allocator_v2"),
    "native.compiler": ("OrtEpContextData", "OrtEpContextDataBuffer", "OrtExternalInitializerInfo"),
    "adapters": ("AdapterFormat", "LoraAdapter"),
    "model_compiler": ("ModelCompiler",),
    "model_package": (
        "ModelPackage",
        "ModelPackageComponentContext",
        "ModelPackageContext",
        "ModelPackageOptions",
        "ModelPackageWriteMode",
    ),
    "native.binding": ("SessionIOBinding",),
    "ortvalue": ("OrtValue", "copy_tensors"),
    "sparse": ("SparseTensor",),
    "providers": ("get_all_providers", "get_available_providers", "get_device"),
    "enums": (
        "ExecutionMode",
        "ExecutionOrder",
        "GraphOptimizationLevel",
        "OrtAllocatorType",
        "OrtCompileApiFlags",
        "OrtDeviceMemoryType",
        "OrtDeviceVendorId",
        "OrtExecutionProviderDevicePolicy",
        "OrtHardwareDeviceType",
        "OrtMemType",
        "OrtMemoryInfoDeviceType",
        "OrtSparseFormat",
    ),
    "process": (
        "disable_telemetry_events",
        "enable_telemetry_events",
        "get_build_info",
        "get_version_string",
        "has_collective_ops",
        "preload_dlls",
        "print_debug_info",
        "set_default_logger_callback",
        "set_default_logger_severity",
        "set_default_logger_verbosity",
        "set_global_thread_pool_sizes",
        "set_seed",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_SUBMODULES = frozenset({"backend", "capi", "compat", "datasets"})

__all__ = [*_HOME, "__version__"]  # noqa: PLE0604  # the names of the table above


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_SUBMODULES})


def _import_ahead() -> None:
    from contextlib import suppress

    from .graph.collecting import uncollected

    # looking for garbage takes a tenth of an import; and a package that is missing is named by what needs it, not by
    # ``distort doctor`` or the package's version
    with uncollected(), suppress(ImportError):
        from . import startup as startup


_import_ahead()
