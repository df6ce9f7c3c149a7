"""onnxruntime's module paths below ``capi``; each is imported when it is first used."""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true; typing is not imported for it
if TYPE_CHECKING:
    from . import _pybind_state as _pybind_state
    from . import build_and_package_info as build_and_package_info
    from . import onnxruntime_inference_collection as onnxruntime_inference_collection
    from . import onnxruntime_pybind11_state as onnxruntime_pybind11_state
    from . import onnxruntime_validation as onnxruntime_validation

_SUBMODULES = frozenset(
    {
        "_pybind_state",
        "build_and_package_info",
        "onnxruntime_inference_collection",
        "onnxruntime_pybind11_state",
        "onnxruntime_validation",
    }
)


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        from importlib import import_module

        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
