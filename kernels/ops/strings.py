"""Strings: StringConcat, StringSplit, StringNormalizer, RegexFullMatch. Tensors of strings are object arrays."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel


def _strings(items: list[str], shape: tuple[int, ...]) -> Any:
    values = np.empty(len(items), dtype=object)
    values[:] = items
    return values.reshape(shape)


@kernel("StringConcat", 20, device="cpu")
def string_concat(xp: Any, x: Any, y: Any) -> Any:
    try:
        return np.asarray(x + y, dtype=object)
    except ValueError:
        raise InvalidInput(f"shapes {list(x.shape)} and {list(y.shape)} don't broadcast") from None


@kernel("StringSplit", 20, device="cpu")
def string_split(xp: Any, x: Any, *, delimiter: str = "", maxsplit: int | None = None) -> Any:
    """Parts along a new last axis, filled up with empty strings, and how many each string has.

    Without a delimiter runs of white space part, and those at the ends are dropped. An empty string has no part.
    """
    if maxsplit is not None and maxsplit < 0:
        raise InvalidInput(f"maxsplit is {maxsplit}, expected 0 or more")
    limit = -1 if maxsplit is None else maxsplit
    separator = delimiter or None
    parts = [text.split(separator, limit) if text else [] for text in x.reshape(-1).tolist()]
    counts = np.array([len(part) for part in parts], dtype=np.int64)
    longest = max(map(len, parts), default=0)
    padded = [text for part in parts for text in (*part, *[""] * (longest - len(part)))]
    return _strings(padded, (*x.shape, longest)), counts.reshape(x.shape)


def _prepare_match(*, pattern: str = "") -> dict[str, Any]:
    try:
        return {"expression": re.compile(pattern)}
    except re.error as error:
        raise InvalidInput(f"Invalid regex pattern: '{pattern}' is no regular expression: {error}") from None


@kernel("RegexFullMatch", 20, device="cpu", prepare=_prepare_match)
def regex_full_match(xp: Any, x: Any, *, expression: re.Pattern[str]) -> Any:
    matched = [expression.fullmatch(text) is not None for text in x.reshape(-1).tolist()]
    return np.array(matched, dtype=bool).reshape(x.shape)


_CHANGES = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}


@kernel("StringNormalizer", 10, device="cpu")
def string_normalizer(
    xp: Any,
    x: Any,
    *,
    case_change_action: str = "NONE",
    is_case_sensitive: int = 0,
    locale: str = "",
    stopwords: list[str] | None = None,
) -> Any:
    """Drops stopwords from [words] or [1, words] and changes the case; one empty string where none is left.

    Case is Unicode's, the same whatever ``locale`` says.
    """
    change = _CHANGES.get(case_change_action)
    if change is None:
        raise InvalidInput(f"case_change_action is '{case_change_action}', expected NONE, LOWER or UPPER")
    if x.ndim not in (1, 2) or (x.ndim == 2 and x.shape[0] != 1):
        raise InvalidInput(f"Input dimensions are either [C > 0] or [1][C > 0] allowed, not {list(x.shape)}")
    words = x.reshape(-1).tolist()
    if stopwords:
        fold = str if is_case_sensitive else str.lower
        dropped = {fold(word) for word in stopwords}
        words = [word for word in words if fold(word) not in dropped]
    result = [change(word) for word in words] or [""]
    return _strings(result, (len(result),) if x.ndim == 1 else (1, len(result)))
