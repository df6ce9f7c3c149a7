"""What is launched on a GPU: a kernel's source, and a call of it with its arguments and grid."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from distort.kernels.compiler.ir import Address, ErrorWord

#: pointers, numbers that the kernel takes as ``long long``, and such that it takes as ``float``
Argument = Address | ErrorWord | int | float


class Kernel(NamedTuple):
    """``source``: CUDA C of one ``__global__`` function, with its helpers, which are guarded by ``#ifndef``."""

    name: str
    source: str


@dataclass(slots=True)
class Launch:
    """A kernel with its arguments. ``n_threads`` items of work make the grid, or ``blocks`` where that is not 0.

    Kernels stride over the grid: any number of blocks, and of threads a block that is 1 or a multiple of 32, is right.
    """

    kernel: Kernel
    arguments: list[Argument]
    n_threads: int
    block: int = 256
    shared_nbytes: int = 0
    blocks: int = 0

    def grid(self, most_blocks: int) -> int:
        """Blocks to launch, at least one."""
        wanted = self.blocks or -(-self.n_threads // self.block)
        return max(1, min(wanted, most_blocks))


#: stands for the kernel's name in a text, until that is known
NAME = "KERNEL_NAME"


@functools.lru_cache(4096)
def kernel_of(family: str, text: str) -> Kernel:
    """A kernel that is named by its text. ``text`` says ``NAME`` where the name belongs."""
    name = f"{family}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return Kernel(name, text.replace(NAME, name))


__all__ = ["NAME", "Argument", "Kernel", "Launch", "kernel_of"]
