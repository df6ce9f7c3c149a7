"""Weights of convolutions that only the run knows, put as kernels read them by operations of the run.

What ``packing`` does to arrays: see :func:`blocked.pack_weights`.
"""

from __future__ import annotations

import math

import numpy as np

from distort.kernels.compiler import layout
from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.codegen.products import Form
from distort.kernels.compiler.ir import Tensor, strides_of


def packed(b: Builder, w: Tensor, lanes: int, form: Form) -> Tensor:
    """[K, C, KH, KW] as [K/(blocks·lanes), C/block, KH, KW, block, blocks, lanes], filled up with zeros.

    K/lanes is a multiple of ``blocks``.
    """
    k, c, *kernel = w.shape
    taps, blocks, block = math.prod(kernel), form.blocks, form.block
    columns, whole, rest = -(-k // lanes) // blocks, c // block, c % block
    # output channels next to each other first: [K/lanes, C·taps, lanes]
    rows = layout.memory(layout.blocked(b, b.contiguous(w).reshaped((1, k, c * taps))))
    plane = rows.strides[1]

    def some(first: int, shape: tuple[int, int]) -> Tensor:
        """Input channels from ``first`` on, so many blocks of so many: [columns, …, taps, …, blocks, lanes]."""
        steps = (blocks * plane, shape[1] * taps * lanes, lanes, taps * lanes, plane, 1)
        return rows.view((columns, shape[0], taps, shape[1], blocks, lanes), steps, first * taps * lanes)

    shape = (columns, whole + bool(rest), taps, block, blocks, lanes)
    if not rest and some(0, (whole, block)).contiguous:
        return rows
    result = b.new(np.float32, shape)
    steps = strides_of(shape)
    if whole:
        b.copy(some(0, (whole, block)), result.view((columns, whole, *shape[2:]), steps))
    if rest:
        last = whole * steps[1]
        b.copy(some(whole * block, (1, rest)), result.view((columns, 1, taps, rest, blocks, lanes), steps, last))
        beyond = result.view((columns, 1, taps, block - rest, blocks, lanes), steps, last + rest * steps[3])
        b.copy(b.constant(np.zeros(1, np.float32)).broadcast(beyond.shape), beyond)
    return result


def merged(b: Builder, w: Tensor, groups: int, merge: int) -> Tensor:
    """[K, C/groups, *kernel] of ``groups`` groups as that of ``groups / merge``: zeros where groups do not meet."""
    if merge == 1:
        return w
    k, c, *kernel = w.shape
    size = c * math.prod(kernel)
    w = b.contiguous(w).reshaped((groups // merge, merge, k // groups, size))
    made = b.new(np.float32, (groups // merge, merge, k // groups, merge, size))
    b.copy(b.constant(np.zeros(1, np.float32)).broadcast(made.shape), made)
    steps = made.strides
    b.copy(w, made.view(w.shape, (steps[0], steps[1] + steps[3], steps[2], 1)))
    return made.reshaped((k, merge * c, *kernel))


def by_channel(b: Builder, w: Tensor) -> Tensor:
    """[C, 1, *kernel] as [1, C/lanes, *kernel, lanes]."""
    c, _, *kernel = w.shape
    return layout.memory(layout.blocked(b, b.contiguous(w).reshaped((1, c, *kernel))))


__all__ = ["by_channel", "merged", "packed"]
