"""Arenas that users configure: numpy allocates here, so a configuration is checked, and kept for who asks."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from distort import errors
from distort.native.base import native
from distort.native.devices import OrtMemoryInfo

_INT = "typing.SupportsInt | typing.SupportsIndex"
_OPTIONS = (
    "max_mem",
    "arena_extend_strategy",
    "initial_chunk_size_bytes",
    "max_dead_bytes_per_chunk",
    "initial_growth_chunk_size_bytes",
    "max_power_of_two_extend_bytes",
)


@native
class OrtArenaCfg:
    """How an arena grows: four numbers (-1: the default), or a dict of them by name."""

    max_mem: int
    arena_extend_strategy: int
    initial_chunk_size_bytes: int
    max_dead_bytes_per_chunk: int
    initial_growth_chunk_size_bytes: int
    max_power_of_two_extend_bytes: int

    def __init__(self, *args: Any) -> None:
        self.max_mem = 0
        for name in _OPTIONS[1:]:
            setattr(self, name, -1)
        if len(args) == 1 and isinstance(args[0], dict):
            for name, value in args[0].items():
                if name not in _OPTIONS:
                    raise RuntimeError(f"Invalid OrtArenaCfg option: {name}")
                try:
                    setattr(self, name, operator.index(value))
                except TypeError:
                    raise RuntimeError(f"OrtArenaCfg option {name} is a number, not {value!r}") from None
            return
        try:
            numbers = [operator.index(arg) for arg in args]
        except TypeError:
            numbers = []
        if len(numbers) != 4:
            signature = f"C.OrtArenaCfg(arg0: {_INT}, arg1: {_INT}, arg2: {_INT}, arg3: {_INT})"
            raise errors.incompatible("__init__", signature, *args, constructor=True)
        for name, number in zip(_OPTIONS, numbers, strict=False):
            setattr(self, name, number)


def create_and_register_allocator(arg0: OrtMemoryInfo, arg1: OrtArenaCfg | None, /) -> None:
    """Accepted for the CPU, and without effect: numpy allocates. Raises for other memory."""
    if not isinstance(arg0, OrtMemoryInfo) or not isinstance(arg1, (OrtArenaCfg, type(None))):
        signature = "(arg0: C.OrtMemoryInfo, arg1: C.OrtArenaCfg) -> None"
        raise errors.incompatible("create_and_register_allocator", signature, arg0, arg1)
    if arg0.name != "Cpu":
        raise RuntimeError(
            f"Error when creating and registering allocator: only CPU devices are supported: {arg0.name}"
        )


def create_and_register_allocator_v2(
    arg0: str, arg1: OrtMemoryInfo, arg2: Mapping[str, str], arg3: OrtArenaCfg, /
) -> None:
    """As above, of a provider with options. Raises for providers that are not here.

    Of a GPU too it is without effect, and the log says so: each session has a pool of its own there.
    """
    from distort import logs
    from distort.providers import CUDA, available_providers, cuda_options

    if arg0 not in available_providers():
        raise RuntimeError(
            f"Error when creating and registering allocator in create_and_register_allocator_v2: {arg0} is not "
            "implemented in CreateAndRegisterAllocatorV2()"
        )
    if arg0 == CUDA and isinstance(arg1, OrtMemoryInfo) and arg1.name == "Cuda":
        cuda_options(arg2)  # raises for what can't be read
        text = "An allocator for a GPU has no effect: each session has a pool of memory of its own, whose limit is "
        logs.DEFAULT.log(logs.WARNING, f"{text}gpu_mem_limit of {CUDA}.")
        return
    create_and_register_allocator(arg1, arg3)
