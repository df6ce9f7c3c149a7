"""Three small models to try things on: ``get_example("mul_1.onnx")`` is a path."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FLOAT, _INT64 = 1, 7


def get_example(name: str) -> str:
    """The path of an example: ``logreg_iris.onnx``, ``mul_1.onnx`` or ``sigmoid.onnx``.

    The file is made when it is first asked for, in the user's cache folder.
    """
    if name not in _EXAMPLES:
        raise FileNotFoundError(f"Unable to find example '{name}'")
    content = _EXAMPLES[name]().SerializeToString()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distort" / "datasets"
    path = folder / name
    if not path.is_file() or path.read_bytes() != content:
        folder.mkdir(parents=True, exist_ok=True)
        # another process may do the same: the file is never seen half written
        handle, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    return str(path)


def _model(graph_name: str, producer: str, **opsets: int) -> Any:
    from distort.graph.onnx_parts import protobuf

    model = protobuf().ModelProto()
    model.ir_version = 8
    model.producer_name = producer
    model.graph.name = graph_name
    for domain, version in opsets.items():
        opset = model.opset_import.add()
        opset.domain = "" if domain == "onnx" else "ai.onnx.ml"
        opset.version = version
    return model


def _declare(infos: Any, name: str, element: int, shape: tuple[int, ...]) -> None:
    info = infos.add()
    info.name = name
    info.type.tensor_type.elem_type = element
    info.type.tensor_type.shape.SetInParent()
    for size in shape:
        info.type.tensor_type.shape.dim.add().dim_value = size


def _node(model: Any, op_type: str, name: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
    node = model.graph.node.add()
    node.op_type = op_type
    node.name = name
    node.input.extend(inputs)
    node.output.extend(outputs)
    node.domain = "ai.onnx.ml" if attributes else ""
    for key, value in attributes.items():
        attribute = node.attribute.add()
        attribute.name = key
        if isinstance(value, str):
            attribute.type, attribute.s = 3, value.encode()
        elif isinstance(value, int):
            attribute.type, attribute.i = 2, value
        elif isinstance(value[0], int):
            attribute.type = 7
            attribute.ints.extend(value)
        else:
            attribute.type = 6
            attribute.floats.extend(value)


def _mul_1() -> Any:
    """Y = X * [[1, 2], [3, 4], [5, 6]]."""
    import numpy as np

    from distort.graph.tensors import array_to_proto

    model = _model("mul test", "distort", onnx=7)
    _declare(model.graph.input, "X", _FLOAT, (3, 2))
    model.graph.initializer.add().CopyFrom(array_to_proto(np.arange(1, 7, dtype=np.float32).reshape(3, 2), "W"))
    _node(model, "Mul", "mul_1", ["X", "W"], ["Y"])
    _declare(model.graph.output, "Y", _FLOAT, (3, 2))
    return model


def _sigmoid() -> Any:
    """y = sigmoid(x) over [3, 4, 5]."""
    model = _model("sigmoid", "distort", onnx=7)
    _declare(model.graph.input, "x", _FLOAT, (3, 4, 5))
    _node(model, "Sigmoid", "", ["x"], ["y"])
    _declare(model.graph.output, "y", _FLOAT, (3, 4, 5))
    return model


def _logreg_iris() -> Any:
    """A logistic regression on two measures of a flower: its kind, and a map of probabilities for each row."""
    model = _model("logreg_iris", "distort", onnx=9, ml=1)
    _declare(model.graph.input, "float_input", _FLOAT, (3, 2))
    _node(
        model,
        "LinearClassifier",
        "classifier",
        ["float_input"],
        ["label", "scores"],
        classlabels_ints=[0, 1, 2],
        coefficients=[-2.5, 2.0, 0.5, -1.5, 2.0, -0.5],
        intercepts=[7.0, 2.0, -10.0],
        multi_class=1,
        post_transform="SOFTMAX",
    )
    _node(model, "ZipMap", "zipmap", ["scores"], ["probabilities"], classlabels_int64s=[0, 1, 2])
    _declare(model.graph.output, "label", _INT64, (3,))
    output = model.graph.output.add()
    output.name = "probabilities"
    mapped = output.type.sequence_type.elem_type.map_type
    mapped.key_type = _INT64
    mapped.value_type.tensor_type.elem_type = _FLOAT
    return model


_EXAMPLES: dict[str, Callable[[], Any]] = {
    "logreg_iris.onnx": _logreg_iris,
    "mul_1.onnx": _mul_1,
    "sigmoid.onnx": _sigmoid,
}

__all__ = ["get_example"]
