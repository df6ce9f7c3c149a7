"""Work that a library of NVIDIA's does: what a plan needs of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from distort.kernels.compiler.ir import Operation


class Withdrawn(Exception):
    """A library can't do after all what it said it supports, and says so from now on: lower the graph again."""


class LibraryCall(Protocol):
    """``workspace_nbytes`` of a step's scratch memory are its own while it runs."""

    @property
    def workspace_nbytes(self) -> int: ...

    def run(self, addresses: Sequence[int], workspace: int, stream: int) -> None:
        """Enqueue; nothing is allocated, nobody waits. ``addresses``: of the operation's inputs, then its outputs."""


def has_library_call(operation: Operation) -> bool:
    """Whether an operation has a ``library_call(context) -> LibraryCall``."""
    return hasattr(operation, "library_call")


def library_call_of(operation: Any, context: Any) -> LibraryCall:
    """The call of an operation that has one. ``context``: the device's libraries and options. Raises Withdrawn."""
    made: LibraryCall = operation.library_call(context)
    return made


__all__ = ["LibraryCall", "Withdrawn", "has_library_call", "library_call_of"]
