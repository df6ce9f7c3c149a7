"""TfIdfVectorizer: n-grams of a vocabulary counted in rows of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel

Array = Any
#: words that are not worth arrays
_FEW = 200


@dataclass(slots=True)
class _Level:
    """The grams of one length, as pairs of a shorter gram's number and a word's number."""

    keys: Array  # int64, sorted: shorter gram * words + word
    numbers: Array  # int64 [len(keys)]: the gram's number on this level is its place; this is its output column, or -1
    found: dict[int, tuple[int, int]]  # by key: the gram's place, and its column


@dataclass(slots=True)
class _Vocabulary:
    words: dict[Any, int]
    levels: list[_Level]  # of length 1, 2, ...
    n_columns: int
    weights: Array | None  # float32 [n_columns]


def _prepare(
    *,
    mode: str,
    max_gram_length: int,
    min_gram_length: int,
    max_skip_count: int,
    ngram_counts: list[int],
    ngram_indexes: list[int],
    pool_int64s: list[int] | None = None,
    pool_strings: list[str] | None = None,
    weights: list[float] | None = None,
) -> dict[str, Any]:
    if mode not in ("TF", "IDF", "TFIDF"):
        raise InvalidInput(f"mode is '{mode}', expected TF, IDF or TFIDF")
    if not 1 <= min_gram_length <= max_gram_length or max_skip_count < 0:
        raise InvalidInput(
            f"gram lengths {min_gram_length} to {max_gram_length} with {max_skip_count} skips are out of range"
        )
    pool: list[Any] = list(pool_strings if pool_strings is not None else pool_int64s or [])
    grams = _grams(pool, ngram_counts)
    if len(grams) != len(ngram_indexes):
        raise InvalidInput(f"the pool has {len(grams)} grams, ngram_indexes has {len(ngram_indexes)} entries")
    if weights is not None and len(weights) != len(ngram_indexes):
        raise InvalidInput(f"there are {len(weights)} weights for {len(ngram_indexes)} grams")
    columns = np.asarray(ngram_indexes, dtype=np.int64)
    if columns.size and columns.min() < 0:
        raise InvalidInput("ngram_indexes must not be negative")
    n_columns = int(columns.max()) + 1 if columns.size else 0
    by_column = None
    if weights is not None:
        by_column = np.ones(n_columns, dtype=np.float32)
        by_column[columns] = weights
    words: dict[Any, int] = {}
    for word in pool:
        words.setdefault(word, len(words))
    levels = _levels(grams, columns.tolist(), words, max_gram_length)
    return {
        "vocabulary": _Vocabulary(words, levels, n_columns, by_column),
        "mode": mode,
        "shortest": min_gram_length,
        "skips": max_skip_count,
        "of_strings": pool_strings is not None,
    }


def _grams(pool: list[Any], starts: list[int]) -> list[tuple[Any, ...]]:
    """The pool cut into grams: part i, from ``starts[i]`` on, holds grams of i + 1 words."""
    grams: list[tuple[Any, ...]] = []
    for length, (start, end) in enumerate(zip(starts, [*starts[1:], len(pool)], strict=True), 1):
        if not 0 <= start <= end <= len(pool) or (end - start) % length:
            raise InvalidInput(f"ngram_counts {starts} do not cut a pool of {len(pool)} words into grams")
        grams.extend(tuple(pool[i : i + length]) for i in range(start, end, length))
    return grams


def _levels(grams: list[tuple[Any, ...]], columns: list[int], words: dict[Any, int], longest: int) -> list[_Level]:
    """A trie as sorted tables: beginnings of grams are on their levels too, without a column."""
    known: list[dict[tuple[Any, ...], int]] = [{} for _ in range(longest)]
    for gram, column in zip(grams, columns, strict=True):
        if len(gram) <= longest:
            for length in range(1, len(gram)):
                known[length - 1].setdefault(gram[:length], -1)
            known[len(gram) - 1][gram] = column
    levels: list[_Level] = []
    shorter: dict[tuple[Any, ...], int] = {(): 0}
    for table in known:
        keys = {gram: shorter[gram[:-1]] * len(words) + words[gram[-1]] for gram in table}
        ordered = sorted(table, key=keys.__getitem__)
        sorted_keys, numbers = [keys[gram] for gram in ordered], [table[gram] for gram in ordered]
        found = {key: (place, column) for place, (key, column) in enumerate(zip(sorted_keys, numbers, strict=True))}
        levels.append(_Level(np.array(sorted_keys, np.int64), np.array(numbers, np.int64), found))
        shorter = {gram: place for place, gram in enumerate(ordered)}
    return levels


@kernel("TfIdfVectorizer", 9, device="cpu", prepare=_prepare)
def tfidf_vectorizer(
    xp: Any, x: Any, *, vocabulary: _Vocabulary, mode: str, shortest: int, skips: int, of_strings: bool
) -> Any:
    """[words] or [rows, words] -> float32 [columns] or [rows, columns].

    A gram's words stand next to each other, or up to ``skips`` apart, evenly; single words count once.
    """
    if x.ndim not in (1, 2):
        raise InvalidInput(f"input shape must have either [C] or [B,C] dimensions, not {list(x.shape)}")
    if of_strings != (x.dtype == object):
        raise InvalidInput(f"input of element type {x.dtype} for a pool of {'strings' if of_strings else 'int64'}")
    rows = x.reshape(-1, x.shape[-1]) if x.shape[-1] else x.reshape(x.shape[0] if x.ndim == 2 else 1, 0)
    get = vocabulary.words.get
    if rows.size <= _FEW:
        few = [[get(word, -1) for word in row] for row in rows.tolist()]
        counts = _count_few(few, vocabulary, shortest, skips)
    else:
        known = np.array([get(word, -1) for word in rows.reshape(-1).tolist()], dtype=np.int64).reshape(rows.shape)
        counts = _count(known, vocabulary, shortest, skips)
    if mode != "TF":
        weights = np.float32(1) if vocabulary.weights is None else vocabulary.weights
        counts = (counts > 0) * weights if mode == "IDF" else counts * weights
    result = counts.astype(np.float32, copy=False)
    return xp.asarray(result if x.ndim == 2 else result[0])


def _count_few(known: list[list[int]], vocabulary: _Vocabulary, shortest: int, skips: int) -> Array:
    """As :func:`_count`, word by word: float32."""
    counts = np.zeros((len(known), vocabulary.n_columns), np.float32)
    levels, n_words = [level.found for level in vocabulary.levels], len(vocabulary.words)
    for row, words in zip(counts, known, strict=True):
        if len(levels) == 1:
            columns = levels[0]
            for word in words:
                if word >= 0 and (hit := columns.get(word)) and hit[1] >= 0:
                    row[hit[1]] += 1
            continue
        for stride in range(1, skips + 2):
            for start in range(len(words)):
                gram = 0
                for length, word in enumerate(words[start::stride][: len(levels)], 1):
                    hit = levels[length - 1].get(gram * n_words + word) if word >= 0 else None
                    if hit is None:
                        break
                    gram, column = hit
                    if column >= 0 and length >= shortest and (length > 1 or stride == 1):
                        row[column] += 1
    return counts


def _count(known: Array, vocabulary: _Vocabulary, shortest: int, skips: int) -> Array:
    """How often each column's gram is in each row. ``known``: int64 [rows, words], -1 for words of no gram."""
    n_rows, n_words = known.shape
    counts = np.zeros(n_rows * vocabulary.n_columns, dtype=np.int64)
    row_of = np.repeat(np.arange(n_rows), n_words)
    start_of = np.tile(np.arange(n_words), n_rows)
    for stride in range(1, skips + 2):
        rows, starts = row_of, start_of
        grams = np.zeros(rows.size, dtype=np.int64)
        for length, level in enumerate(vocabulary.levels, 1):
            ends = starts + (length - 1) * stride
            inside = ends < n_words
            rows, starts, grams, ends = rows[inside], starts[inside], grams[inside], ends[inside]
            word = known[rows, ends]
            keys = np.where(word >= 0, grams * len(vocabulary.words) + word, -1)
            places = np.searchsorted(level.keys, keys)
            found = places < level.keys.size
            found[found] = level.keys[places[found]] == keys[found]
            rows, starts, grams = rows[found], starts[found], places[found]
            if length >= shortest and (length > 1 or stride == 1):
                columns = level.numbers[grams]
                counted = columns >= 0
                at = rows[counted] * vocabulary.n_columns + columns[counted]
                counts += np.bincount(at, minlength=counts.size)
    return counts.reshape(n_rows, vocabulary.n_columns)


__all__ = ["tfidf_vectorizer"]
