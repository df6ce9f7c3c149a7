"""The two parts of the ``onnx`` package that a session needs, without the rest of its import.

``import onnx`` costs about 0.1 s beyond numpy: helpers, JSON and text formats, package metadata. A session
reads protobuf messages and schemas; both are loadable on their own, under their ordinary module names, so that
a later ``import onnx`` finds and shares them.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


@functools.cache
def folder() -> Path:
    """Where the package ``onnx`` is."""
    spec = importlib.util.find_spec("onnx")  # finds, does not import
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("distort needs the package 'onnx': pip install onnx", name="onnx")
    return Path(spec.origin).parent


def _spec(full_name: str) -> importlib.machinery.ModuleSpec:
    spec = importlib.machinery.PathFinder.find_spec(full_name, [str(folder())])
    if spec is None or spec.loader is None:
        name = full_name.rpartition(".")[2]
        raise ModuleNotFoundError(f"the installed package 'onnx' has no module {name!r}", name=full_name)
    return spec


def native_file() -> Path:
    """The file of :func:`native`, which need not be loaded."""
    return Path(_spec("onnx.onnx_cpp2py_export").origin or "")


def _load(name: str) -> ModuleType:
    full_name = f"onnx.{name}"
    if full_name in sys.modules:
        return sys.modules[full_name]
    spec = _spec(full_name)
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    spec.loader.exec_module(module)
    return module


@functools.cache
def protobuf() -> Any:
    """The generated message classes: ``ModelProto``, ``TensorProto``, …"""
    return _load("onnx_ml_pb2")


@functools.cache
def native() -> Any:
    """onnx's native module: ``defs`` (schemas), ``shape_inference``, ``checker``, ``version_converter``."""
    protobuf()
    return _load("onnx_cpp2py_export")


@functools.cache
def schema(op_type: str, domain: str, opset: int) -> Any | None:
    """The schema of an operator at an opset version of its domain, or None where onnx has none."""
    defs = native().defs
    if not 0 < opset < 1 << 31 or not isinstance(op_type, str) or not isinstance(domain, str):
        return None  # text that is no UTF-8 is bytes
    try:
        found = defs.get_schema(op_type, opset, domain)
    except defs.SchemaError:
        return None
    return found
