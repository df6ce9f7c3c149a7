"""Errors of ours that a session survives: in words, with the place where they came up, for who is to mend them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import FrameType

#: of a traceback that is kept: its end says most
_MOST_CHARACTERS = 6000
_PACKAGE = "distort."


def told(error: BaseException) -> str:
    """Class, first line, and the innermost place in this package: ``TypeError: … (kernels.cuda.dnn:123 in _built)``."""
    lines = str(error).strip().splitlines()
    words = f"{type(error).__name__}: {lines[0] if lines else ''}".strip(": ")
    places = list(_places(error))
    return f"{words} ({places[-1]})" if places else words


def _places(error: BaseException) -> Iterator[str]:
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = _module_of(frame)
        if module.startswith(_PACKAGE):
            yield f"{module.removeprefix(_PACKAGE)}:{line} in {frame.f_code.co_name}"


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def whole(error: BaseException) -> str:
    """The traceback as text: an exception that is kept would keep arrays of its frames."""
    return "".join(traceback.format_exception(error))[-_MOST_CHARACTERS:]


__all__ = ["told", "whole"]
