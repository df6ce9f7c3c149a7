"""ONNX Runtime's Python API on an actor runtime.

Names are imported when they are first used, so that ``import distort`` costs next to nothing.
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
