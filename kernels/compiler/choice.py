"""Which program runs a graph: the compiled one, the plain one, or first one and then the other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distort.graph.ir import Graph
from distort.kernels.program import Program

if TYPE_CHECKING:
    from distort.kernels.compiler.program import CompiledProgram

#: for all sessions of a process: as the config key ``distort.compile``, which it goes before
VARIABLE = "DISTORT_COMPILE"
#: ``0``: NumPy kernels; ``1``: compiled at the first run; ``auto``: so, but small graphs at the third run of a shape
MODES = ("0", "1", "auto")
#: graphs of so few nodes are not compiled for a run or two
_FEW_NODES = 8
_PLAIN_RUNS = 2


def make_program(
    graph: Graph, *, outputs: Sequence[str] | None = None, n_threads: int = 0, mode: str = "auto", spin: bool = True
) -> Program | CompiledProgram:
    """A program for a stage on this machine's processors. ``n_threads`` 0: as many as there are."""
    mode = os.environ.get(VARIABLE) or mode
    if mode not in MODES:
        raise ValueError(f"{VARIABLE} is '{mode}'; it may be {', '.join(MODES)}")
    if mode == "0" or not graph.nodes:
        return Program(graph, outputs=outputs)
    from distort.kernels.compiler.program import CompiledProgram
    from distort.kernels.compiler.team import DEFAULT_SPINS

    plain_runs = _PLAIN_RUNS if mode == "auto" and len(graph.nodes) <= _FEW_NODES else 0
    return CompiledProgram(
        graph,
        outputs=outputs,
        n_threads=n_threads or available_threads(),
        spins=DEFAULT_SPINS if spin else 0,
        plain_runs=plain_runs,
    )


def available_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
