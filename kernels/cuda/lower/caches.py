"""Caches of keys and values of which each entry of a batch uses a part: what is new goes where its tokens end."""

from __future__ import annotations

import numpy as np

from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Tensor


def cached(b: Builder, past: Tensor | None, new: Tensor, limits: Tensor, keys: int) -> Tensor:
    """As :meth:`Builder.cached`: by the number of a new token for each place, and whether it has one."""
    batch, groups, steps, size = new.shape
    whole = (batch, groups, keys, size)
    limits = limits.view((batch, 1), (limits.strides[0], 0))
    places = b.constant(np.arange(keys))
    starts = b.map("sub", [limits, b.map("min", [limits, b.number("steps", steps)])])
    number = b.map("sub", [places, starts])  # [B, keys]
    zero, last = b.constant(np.zeros((), np.int64)), b.number("last", steps - 1)
    is_new = b.map("greater_or_equal", [number, zero], np.bool_)
    is_new = b.map("and", [is_new, b.map("less", [places, limits], np.bool_)], np.bool_)
    number = b.contiguous(b.map("min", [b.map("max", [number, zero]), last]))
    taken = b.gathered_elements(b.plain(new), 2, number.view(whole, (keys, 0, 1, 0)))
    old = b.constant(np.zeros((), new.dtype))
    if past is not None and past.shape[2]:
        old = b.plain(past)
        n_past = past.shape[2]
        if n_past < keys:
            longer = b.new(new.dtype, whole)
            steps_of = longer.strides
            b.copy(old, longer.view(past.shape, steps_of))
            rest = longer.view((batch, groups, keys - n_past, size), steps_of, n_past * steps_of[2])
            b.copy(b.constant(np.zeros((), new.dtype)).broadcast(rest.shape), rest)
            old = longer
    is_new = is_new.view((batch, 1, keys, 1), (is_new.strides[0], 0, is_new.strides[1], 0))
    return b.map("where", [is_new, taken, old], new.dtype)


__all__ = ["cached"]
