"""JSON as packages have it: strictly read, and written so that onnxruntime would write the same text.

Objects keep the order of their members; a member that comes twice has the last value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

#: the range of numbers without a point that stay integers
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
#: repr gives numbers below this with all their digits, packages give those from 1e15 on with an exponent
_FIRST_EXPONENT, _FIRST_EXPONENT_OF_REPR = 1e15, 1e16
_SURROGATE = re.compile("[\ud800-\udfff]")


class InvalidJson(ValueError):
    """The text is no JSON."""


def _refuse(text: str) -> NoReturn:
    raise InvalidJson(text)


def _integer(text: str) -> int | float:
    # no int() of thousands of digits, which would be slow or refused
    value = int(text) if len(text) <= len(str(_MIN_INT)) else None
    return value if value is not None and _MIN_INT <= value <= _MAX_INT else _number(text)


def _number(text: str) -> float:
    value = float(text)
    return value if value not in (float("inf"), float("-inf")) else _refuse(text)


def parse(data: str | bytes) -> Any:
    """The value that the text stands for. Raises InvalidJson; NaN, comments and lone surrogates are no JSON."""
    try:
        text = (data.decode("utf-8") if isinstance(data, bytes) else data).removeprefix("\ufeff")
        value = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_refuse)
        if "\\" in text and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
            raise InvalidJson("a lone surrogate")
    except (ValueError, RecursionError) as error:
        raise InvalidJson(str(error)) from error
    return value


def _pieces(value: Any, indent: int, level: int) -> Iterator[str]:
    if isinstance(value, (dict, list)):
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        if not value:
            yield opening + closing
            return
        inner = "\n" + " " * indent * (level + 1) if indent else ""
        items = value.items() if isinstance(value, dict) else ((None, item) for item in value)
        for position, (key, item) in enumerate(items):
            yield ("," if position else opening) + inner
            if key is not None:
                yield json.dumps(key, ensure_ascii=False) + (": " if indent else ":")
            yield from _pieces(item, indent, level + 1)
        yield ("\n" + " " * indent * level if indent else "") + closing
    elif isinstance(value, float) and _FIRST_EXPONENT <= abs(value) < _FIRST_EXPONENT_OF_REPR:
        digits = str(abs(int(value)))
        fraction = digits[1:].rstrip("0")
        yield ("-" if value < 0 else "") + digits[0] + ("." + fraction if fraction else "") + "e+15"
    else:
        yield json.dumps(value, ensure_ascii=False)


def compact(value: Any) -> str:
    """On one line, without spaces."""
    return "".join(_pieces(value, 0, 0))


def pretty(value: Any) -> str:
    """Indented by two, as in files, with a newline at the end."""
    return "".join(_pieces(value, 2, 0)) + "\n"
