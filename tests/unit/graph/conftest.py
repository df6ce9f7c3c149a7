"""Models as ONNX text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from distort.graph import reader
from distort.graph.ir import Model

HEADER = '<ir_version: 9, opset_import: ["" : 17]>\n'
ReadText = Callable[[str], Model]


@pytest.fixture
def read() -> ReadText:
    """A function from text to our model; text that doesn't begin with a header gets opset 17."""
    parser = pytest.importorskip("onnx.parser")

    def read_text(text: str) -> Model:
        proto = parser.parse_model(text if text.lstrip().startswith("<") else HEADER + text)
        return reader.read_model(proto)

    return read_text
