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


def _onnx_folder() -> Path:
    spec = importlib.util.find_spec("onnx")  # finds, does not import
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("distort needs the package 'onnx': pip install onnx", name="onnx")
    return Path(spec.origin).parent


def _load(name: str) -> ModuleType:
    full_name = f"onnx.{name}"
    if full_name in sys.modules:
        return sys.modules[full_name]
    spec = importlib.machinery.PathFinder.find_spec(full_name, [str(_onnx_folder())])
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"the installed package 'onnx' has no module {name!r}", name=full_name)
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


@functools.cache
def latest_opsets() -> dict[str, int]:
    """Domain -> its newest version: the installed onnx's, and onnxruntime's own domain."""
    newest = {domain: int(versions[1]) for domain, versions in native().defs.schema_version_map().items()}
    return {**newest, "com.microsoft": 1}
