"""ONNX's backend interface: ``prepare(model).run(inputs)``."""

from __future__ import annotations

from .backend import is_compatible, prepare, run, supports_device

__all__ = ["is_compatible", "prepare", "run", "supports_device"]
