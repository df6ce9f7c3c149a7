"""LoRA adapters: their files, and onnxruntime's classes around them."""

from __future__ import annotations

from .api import AdapterFormat, LoraAdapter
from .format import AdapterFile, Parameter, read, write

__all__ = ["AdapterFile", "AdapterFormat", "LoraAdapter", "Parameter", "read", "write"]
