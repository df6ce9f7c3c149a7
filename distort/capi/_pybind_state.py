"""onnxruntime's second name of its native module."""

from __future__ import annotations

from .onnxruntime_pybind11_state import *  # noqa: F403  # the same names, as in onnxruntime
from .onnxruntime_pybind11_state import __all__ as __all__


def __getattr__(name: str) -> object:
    from . import onnxruntime_pybind11_state

    return getattr(onnxruntime_pybind11_state, name)
