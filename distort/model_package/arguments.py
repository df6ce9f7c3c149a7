"""Arguments are converted and refused as onnxruntime's bindings do."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from distort import errors

P = ParamSpec("P")
R = TypeVar("R")

_PLAIN = ("str", "str | None", "bool", "int", "dict", "object", "None", "list[str]")
_MISSING = inspect.Parameter.empty


def _convert(value: Any, kind: str) -> Any:
    """The value for a parameter. Raises TypeError where it has no such type."""
    if kind == "bool":
        # what has a truth value of its own; a string has only a length
        if value is None or (hasattr(type(value), "__bool__") and getattr(value, "size", 1) == 1):
            return bool(value)
    elif kind.startswith("str"):
        if value is None and kind == "str | None":
            return None
        try:
            if isinstance(value, (bytes, bytearray)):
                value = value.decode()
            if isinstance(value, str):
                return value.encode().decode().partition("\0")[0]  # there it goes on as a C string
        except UnicodeError:
            raise TypeError(kind) from None
    elif any(cls.__name__ == kind for cls in type(value).__mro__):
        return value
    raise TypeError(kind)


def _written(kind: str) -> str:
    kind = kind.replace("dict[str, Any]", "dict")
    return kind if kind in _PLAIN else f"C.{kind}"


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Raise onnxruntime's TypeError for arguments of the wrong number or type; annotations say which are right."""
    signature = inspect.signature(function)
    name = function.__name__
    class_name = function.__qualname__.split(".")[0]
    constructor = name == "__init__"
    words = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            if not constructor:
                words.append(f"self: C.{class_name}")
            continue
        default = "" if parameter.default is _MISSING else f" = {parameter.default!r}"
        words.append(f"{parameter.name}: {_written(parameter.annotation)}{default}")
    returned = "" if constructor else f" -> {_written(signature.return_annotation)}"
    text = (f"C.{class_name}" if constructor else "") + f"({', '.join(words)}){returned}"

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
            for key, value in bound.arguments.items():
                if key != "self":
                    bound.arguments[key] = _convert(value, signature.parameters[key].annotation)
        except TypeError:
            shown = args[1:] if constructor else args
            wrong = errors.incompatible(name, text, *shown, constructor=constructor)
            if kwargs:
                start = ("; " if shown else "") + "kwargs: "
                wrong = TypeError(f"{wrong}{start}{', '.join(f'{k}={v!r}' for k, v in kwargs.items())}")
            raise wrong from None
        return function(*bound.args, **bound.kwargs)

    return wrapper
