"""Rows of a batch that end before others: what recurrent layers are told of it, and what becomes of their results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor
from distort.kernels.compiler.lower.expecting import expect


def checked(b: Builder, given: Tensor, n_steps: int) -> Tensor:
    """As int64 [B]; a run in which one isn't from 0 to ``n_steps`` is refused."""
    wide = b.contiguous(given if given.dtype == np.int64 else b.map("cast", [given], np.int64))
    begins = b.map("greater_or_equal", [wide, b.constant(np.asarray(0))], np.bool_)
    ends = b.map("less_or_equal", [wide, b.number("steps", n_steps)], np.bool_)
    expect(b, b.map("cast", [b.map("and", [begins, ends])], np.int64), [1] * given.size)
    return wide


def ended(
    b: Builder, made: Sequence[Tensor | None], lengths: Tensor, n_steps: int, batch_first: bool
) -> list[Tensor | None]:
    """All states, 0 behind a row's end, then last ones, 0 where it has no step."""
    batch = lengths.size
    times = np.arange(n_steps).reshape((1, -1, 1, 1) if batch_first else (-1, 1, 1, 1))
    zero = b.constant(np.zeros((), np.float32))
    results: list[Tensor | None] = []
    for number, value in enumerate(made):
        if value is None:
            results.append(None)
            continue
        early, rank = (np.asarray(0), 3) if number else (times, 4)
        rows = lengths.reshaped((batch, *[1] * (rank - 1)) if batch_first else (*[1] * (rank - 2), batch, 1))
        lasts = b.map("less", [b.constant(early), rows], np.bool_)
        results.append(b.map("where", [lasts, value, zero], np.float32))
    return results
