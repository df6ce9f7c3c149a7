"""What a session may have of a GPU, for memory outside its pool: what other processes and streams read and write."""

from __future__ import annotations

from typing import Protocol


class Budget(Protocol):
    """``gpu_mem_limit``, as ``kernels/cuda/memory.py`` keeps it."""

    def set_aside(self, nbytes: int) -> bool:
        """Whether so much more may be taken."""
        ...

    def give_back(self, nbytes: int) -> None: ...

    def shrink(self) -> None:
        """Free what the pool has and does not use."""
        ...
