"""onnxruntime's module paths below ``capi``; each is imported when it is first used."""

from __future__ import annotations

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
