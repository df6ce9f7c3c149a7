"""Which of cuBLASLt's algorithms is the fastest for a product: timed once in a process, on the stream that will run it.

onnxruntime's options ``tunable_op_*`` ask for it. The library's heuristic names a few algorithms, the best first as it
thinks; what it is wrong about is worth the time where a model runs for long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distort.kernels.cuda import timing
from distort.kernels.cuda.blaslt import ProductPlan, Tuned
from distort.kernels.cuda.product_problems import ITEM_NBYTES, Matrix, ProductProblem
from distort.kernels.errors import OutOfMemory


@dataclass(slots=True)
class Tuning:
    """Of one session. ``allocate``: where operands lie while they are timed; ``stream``: where that is done.

    ``searches``: what nobody has timed yet is timed, for ``limit_s`` at most after the first; else what others of this
    process have found is used.
    """

    device_id: int
    stream: int
    allocate: Callable[[int], Any]
    searches: bool
    limit_s: float
    #: by problem, what became of it, in words
    told: dict[ProductProblem, str] = field(default_factory=dict)

    def settle(self, plan: ProductPlan) -> None:
        """Let a plan, which nobody runs yet, use the fastest algorithm that is known for its problem.

        Waits for the stream where that is timed now: it must not be captured.
        """
        problem = plan.problem
        if problem in self.told:
            return
        with _lock:
            found = _found.get((self.device_id, problem))
            if found is None and self.searches:
                try:
                    found = _found[self.device_id, problem] = self._timed(plan)
                except OutOfMemory as error:
                    self.told[problem] = f"not timed, for there is no memory for its operands: {error.text}"
                    return
        if found is None:
            return  # it may be later, by somebody who searches
        plan.adopt(found)
        text = f"the fastest of {found.n_timed} algorithms is number {found.number}, {found.ms:.4g} ms"
        self.told[problem] = f"{text}; the library's own choice takes {found.first_ms:.4g} ms" if found.number else text

    def _timed(self, plan: ProductPlan) -> Tuned:
        kept = {name: self.allocate(nbytes) for name, nbytes in nbytes_of(plan.problem).items()}
        workspace = self.allocate(plan.most_workspace_nbytes)
        address = {name: int(memory.ptr) for name, memory in kept.items()}
        return plan.tuned(
            address["a"],
            address["b"],
            address["out"],
            address.get("bias", 0),
            self.stream,
            timing.milliseconds,
            address.get("c", 0),
            int(workspace.ptr),
            limit_s=self.limit_s,
        )


def nbytes_of(problem: ProductProblem) -> dict[str, int]:
    """By operand: the memory that it spans."""
    p = problem

    def spanned(matrix: Matrix, rows: int, columns: int, dtype: str) -> int:
        lines, length = (columns, rows) if matrix.transposed else (rows, columns)
        last = (p.batch - 1) * matrix.batch_stride + (lines - 1) * matrix.leading + length
        return last * ITEM_NBYTES[dtype]

    found = {"a": spanned(p.a, p.rows, p.depth, p.dtype), "b": spanned(p.b, p.depth, p.columns, p.dtype)}
    found["out"] = spanned(p.out, p.rows, p.columns, p.result)
    if p.c is not None:
        found["c"] = spanned(p.c, p.rows, p.columns, p.result)
    if p.bias:
        found["bias"] = p.columns * ITEM_NBYTES[p.result]
    return found


#: by a GPU of this process and the problem
_found: dict[tuple[int, ProductProblem], Tuned] = {}
_lock = threading.Lock()


def forget() -> None:
    """For tests, which take GPUs away."""
    with _lock:
        _found.clear()


__all__ = ["Tuning", "forget", "nbytes_of"]
