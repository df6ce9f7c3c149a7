"""Which program runs a graph: the compiled one, the plain one, or first one and then the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distort.graph.ir import Graph
from distort.kernels.errors import InvalidInput, MissingKernel
from distort.kernels.program import Program

if TYPE_CHECKING:
    from distort.kernels.compiler.constants import Share
    from distort.kernels.compiler.program import CompiledProgram

#: for all sessions of a process: as the config key ``distort.compile``, which it goes before
VARIABLE = "DISTORT_COMPILE"
#: ``0``: NumPy kernels; ``1``: compiled at the first run of each shape, so that all runs give the same bits
MODES = ("0", "1")
#: what products with weights may round their operands to (``distort.compute_precision``)
PRECISIONS = ("float32", "bf16")


def make_program(
    graph: Graph,
    *,
    outputs: Sequence[str] | None = None,
    n_threads: int = 0,
    mode: str = "1",
    spin: bool = True,
    precision: str = "float32",
    keep_qdq: bool = False,
    share: Share | None = None,
) -> Program | CompiledProgram:
    """A program for a stage on this machine's processors. ``n_threads`` 0: as many as there are.

    ``keep_qdq``: what was dequantized is computed in floating point. ``share`` gives another array
    for what is made of weights, with the same elements: where replicas have it once.
    Raises as :func:`check_precision`.
    """
    mode = mode_of(mode)
    check_precision(precision, mode)
    if mode == "0" or not graph.nodes:
        return Program(graph, outputs=outputs)
    from distort.kernels.compiler.program import CompiledProgram
    from distort.kernels.compiler.team import DEFAULT_SPINS

    return CompiledProgram(
        graph,
        outputs=outputs,
        n_threads=n_threads or available_threads(),
        spins=DEFAULT_SPINS if spin else 0,
        precision=precision,
        keep_qdq=keep_qdq,
        share=share,
    )


def describe_program(program: Program | CompiledProgram) -> list[str]:
    """Lines about what of a program is compiled, and what NumPy kernels run and why."""
    if isinstance(program, Program):
        return [f"NumPy kernels run every node (distort.compile, or {VARIABLE}, is 0)"]
    from distort.kernels.compiler import account

    return account.lines(program)


def mode_of(mode: str) -> str:
    """What a process says of all its sessions, else ``mode``. Raises ValueError for what is none."""
    mode = os.environ.get(VARIABLE) or mode
    if mode not in MODES:
        raise ValueError(f"{VARIABLE} is '{mode}'; it may be {', '.join(MODES)}")
    return mode


def check_precision(precision: str, mode: str) -> None:
    """Raise a KernelError where stages can't be computed so: without the instructions, or without a compiler."""
    if precision == "float32":
        return
    if mode_of(mode) == "0":
        raise InvalidInput(
            f"distort.compute_precision={precision} is for compiled stages: distort.compile, or {VARIABLE}, is 0."
        )
    from distort.kernels.compiler.codegen.gemm_bf16 import has_bf16_tiles
    from distort.kernels.compiler.codegen.target import host

    if not has_bf16_tiles(host()):
        raise MissingKernel(
            f"distort.compute_precision={precision} needs a processor with AMX for bfloat16 (amx_bf16 and amx_tile in "
            "/proc/cpuinfo), and this one has none that may be used. Leave the key out: float32 runs everywhere."
        )


def available_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
