"""TfIdfVectorizer: few words are counted one by one, many by arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.ops import tfidf


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize(("shortest", "longest", "skips"), [(1, 1, 0), (1, 2, 0), (2, 3, 2), (1, 3, 1), (3, 3, 5)])
def test_few_words_as_many(mode: str, shortest: int, longest: int, skips: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pairs, triples = rng.integers(0, 9, (12, 2)), rng.integers(0, 9, (15, 3))
    pool = [*range(6), *np.unique(pairs, axis=0).reshape(-1), *np.unique(triples, axis=0).reshape(-1)]
    starts = [0, 6, 6 + np.unique(pairs, axis=0).size]
    n = 6 + len(np.unique(pairs, axis=0)) + len(np.unique(triples, axis=0))
    known: dict[str, Any] = tfidf._prepare(
        mode=mode,
        max_gram_length=longest,
        min_gram_length=shortest,
        max_skip_count=skips,
        ngram_counts=starts,
        ngram_indexes=list(rng.permutation(n)),
        pool_int64s=[int(word) for word in pool],
        weights=rng.random(n).tolist(),
    )
    for shape in ((3, 20), (25,), (1, 1), (2, 0)):
        words = rng.integers(0, 10, shape)
        few = tfidf.tfidf_vectorizer(np, words, **known)
        with monkeypatch.context() as patch:
            patch.setattr(tfidf, "_FEW", -1)
            many = tfidf.tfidf_vectorizer(np, words, **known)
        assert (few.dtype, few.shape) == (many.dtype, many.shape)
        np.testing.assert_array_equal(few, many)
