"""Errors of the graph layer. The facade turns ``status`` into onnxruntime's exception class."""

from __future__ import annotations


class ModelError(Exception):
    """A model that can't be used. ``status`` is one of onnxruntime's code names, e.g. ``INVALID_GRAPH``."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text

    def __reduce__(self) -> tuple[type[ModelError], tuple[str, str]]:
        return (ModelError, (self.status, self.text))
