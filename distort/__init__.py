"""ONNX Runtime's Python API on an actor runtime."""

from __future__ import annotations
import os

_checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if os.path.isfile(os.path.join(_checkout, "kernels", "registry.py")):
    __path__.append(_checkout)
