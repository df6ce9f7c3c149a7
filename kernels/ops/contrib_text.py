"""onnxruntime's Tokenizer: strings to rows of tokens. Strings live on the host."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel

Array = Any
_MS = "com.microsoft"
_START, _END = "\x02", "\x03"


@functools.lru_cache(maxsize=64)
def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidInput(f"Tokenizer can't compile the expression {text!r}: {error}") from None


def _by_separators(texts: Sequence[str], least: int) -> Callable[[str], list[str]]:
    """Each separator cuts what the ones before it left."""
    patterns = [_pattern(text) for text in texts]

    def tokens(text: str) -> list[str]:
        parts = [text]
        for pattern in patterns:
            parts = [piece for part in parts for piece in _cut(part, pattern)]
        return [part for part in parts if len(part) >= max(least, 1)]

    return tokens


def _cut(text: str, separator: re.Pattern[str]) -> list[str]:
    pieces, start = [], 0
    for match in separator.finditer(text):
        if match.end() > match.start():
            pieces.append(text[start : match.start()])
            start = match.end()
    return [*pieces, text[start:]]


def _by_expression(expression: str, least: int) -> Callable[[str], list[str]]:
    pattern, least = _pattern(expression), max(least, 1)
    if not pattern.groups:
        find = pattern.findall
        return lambda text: [token for token in find(text) if len(token) >= least]
    return lambda text: [m.group() for m in pattern.finditer(text) if len(m.group()) >= least]


@functools.lru_cache(maxsize=64)
def _splitter(separators: tuple[str, ...], expression: str | None, least: int) -> Callable[[str], list[str]]:
    if expression == "." or separators == ("",):
        if least > 1:
            raise InvalidInput("mincharnum is more than 1, and tokens are single characters")
        return list
    return _by_separators(separators, least) if separators else _by_expression(str(expression), least)


@kernel("Tokenizer", domain=_MS, device="cpu")
def tokenizer(
    xp: ModuleType,
    x: Array,
    *,
    mark: int,
    mincharnum: int,
    pad_value: str,
    separators: Sequence[str] | None = None,
    tokenexp: str | None = None,
) -> Array:
    """Strings [C] or [N, C] -> tokens [*, most], rows filled up with ``pad_value``."""
    if x.ndim not in (1, 2):
        raise InvalidInput(f"Input dimensions are either [C] or [N][C] allowed, got {list(x.shape)}")
    if mincharnum < 1:
        raise InvalidInput(f"mincharnum must be at least 1, got {mincharnum}")
    if bool(separators) == bool(tokenexp):
        raise InvalidInput("exactly one of separators and tokenexp must be given")
    if not x.size:
        return np.empty(x.shape, object)
    split = _splitter(tuple(separators or ()), tokenexp, mincharnum)
    rows = [split(text) for text in x.reshape(-1).tolist()]
    most = max(map(len, rows))
    if not most:
        return np.empty((*x.shape, 0), object)
    if len(rows) == 1 and not mark:
        return np.array(rows, object).reshape(*x.shape, -1)
    result = np.full((len(rows), most + 2 * bool(mark)), pad_value, object)
    for line, tokens in zip(result, rows, strict=True):
        if mark:
            tokens = [_START, *tokens, _END]
        line[: len(tokens)] = tokens
    return result.reshape(*x.shape, -1)
