"""Layouts: where values have their channels in blocks, and what brings them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distort.kernels.compiler.ir import Tensor

if TYPE_CHECKING:
    from distort.kernels.compiler.builder import Builder


def unblocked(builder: Builder, tensor: Tensor) -> Tensor:
    """A copy of a tensor with its channels not in blocks."""
    raise NotImplementedError
