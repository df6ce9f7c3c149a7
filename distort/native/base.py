"""What the classes of the native module have in common: its name, and no constructor where users make none."""

from __future__ import annotations

from typing import Any, TypeVar

from distort import errors

_Class = TypeVar("_Class", bound=type)


def native(cls: _Class) -> _Class:
    """A class is written with the native module's name, which is where users find it."""
    cls.__module__ = errors.MODULE
    return cls


def public(cls: _Class) -> _Class:
    """A class is written with the name of the module that has onnxruntime's Python classes."""
    cls.__module__ = errors.COLLECTION
    return cls


class Made:
    """Objects that functions hand out and nobody constructs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"{errors.MODULE}.{type(self).__name__}: No constructor defined!")
