"""Matrix products by cuBLASLt: how the library is told, and runs that only enqueue.

Matrices are row-major here and column-major there. The library computes outᵀ = bᵀ · aᵀ: its A is our ``b``, its rows
are our columns, so that its bias of one number a row is ours of one a column. Nothing is transposed in memory.
"""

from __future__ import annotations

import ctypes
import functools
import math
import operator
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from distort.kernels.cuda import blaslt_api as api
from distort.kernels.cuda.blaslt_api import Algorithm, Descriptor, HeuristicResult, check
from distort.kernels.cuda.libraries import LibraryFailed, open_library
from distort.kernels.cuda.product_problems import ACTIVATIONS, ITEM_NBYTES, Matrix, ProductProblem, refusal

#: NVIDIA's advice: 32 MiB from Hopper on, 4 MiB before
WORKSPACE_NBYTES, HOPPER_WORKSPACE_NBYTES, _HOPPER = 4 << 20, 32 << 20, 90
#: no algorithm asks for more
_ALIGNMENT_NBYTES = 256
#: algorithms that are timed where they are
_CANDIDATES = 8
#: what takes how long: (enqueue on a stream, stream) -> milliseconds
Timer = Callable[[Callable[[int], None], int], float]


class Tuned(NamedTuple):
    """An algorithm that was timed for a problem."""

    algorithm: Algorithm
    workspace_nbytes: int
    number: int  # of those that the heuristic named
    n_timed: int
    ms: float
    first_ms: float  # of the heuristic's own choice


def alignment_of(*addresses: int) -> int:
    """What all of them are multiples of, in bytes: a power of two, as far as algorithms care."""
    bits = functools.reduce(operator.or_, addresses, _ALIGNMENT_NBYTES)
    return bits & -bits


class ProductPlan:
    """A product that is ready to run: by several threads, on several streams with workspaces of their own."""

    def __init__(self, products: Products, problem: ProductProblem) -> None:
        self.problem = problem
        self._products, self._functions = products, products.functions
        self._text = str(problem)
        p, what = problem, self._text
        functions = self._functions
        compute, scale, number = _computed(p)
        self._alpha, self._beta = number(p.alpha), number(p.beta)
        self._lock = threading.Lock()
        self._bias = 0
        #: by the alignment of addresses, in bytes
        self._algorithms: dict[int, Algorithm] = {}
        self.workspace_nbytes = 0
        self._desc = Descriptor(functions, "MatmulDesc", what, compute, api.DATA_TYPES[scale])
        self._made = [self._desc]
        try:
            self._describe()
            first = self._candidates(_ALIGNMENT_NBYTES, products.workspace_nbytes, 1)[0]
        except LibraryFailed:
            self.close()
            raise
        products.made.update(self._made)
        self.workspace_nbytes = int(first.workspace_nbytes)
        self._algorithms[_ALIGNMENT_NBYTES] = first.algorithm

    def _describe(self) -> None:
        p = self.problem
        # the library's A is b
        self._desc.set(api.DESC_TRANSA, api.OP_T if p.b.transposed else api.OP_N, ctypes.c_int32)
        self._desc.set(api.DESC_TRANSB, api.OP_T if p.a.transposed else api.OP_N, ctypes.c_int32)
        epilogue = ACTIVATIONS[p.activation] | (api.EPILOGUE_BIAS if p.bias else 0)
        self._desc.set(api.DESC_EPILOGUE, epilogue or api.EPILOGUE_DEFAULT, ctypes.c_uint32)
        if p.bias:
            self._desc.set(api.DESC_BIAS_DATA_TYPE, api.DATA_TYPES[p.result], ctypes.c_int32)
        self._layouts = [
            self._layout(p.dtype, p.b, p.depth, p.columns),
            self._layout(p.dtype, p.a, p.rows, p.depth),
            self._layout(p.result, p.c or p.out, p.rows, p.columns),
            self._layout(p.result, p.out, p.rows, p.columns),
        ]

    def _layout(self, dtype: str, matrix: Matrix, rows: int, columns: int) -> Descriptor:
        """A row-major matrix as the library sees it."""
        lines = (rows, columns) if matrix.transposed else (columns, rows)
        made = Descriptor(self._functions, "MatrixLayout", self._text, api.DATA_TYPES[dtype], *lines, matrix.leading)
        self._made.append(made)
        if self.problem.batch > 1:
            made.set(api.LAYOUT_BATCH_COUNT, self.problem.batch, ctypes.c_int32)
            made.set(api.LAYOUT_BATCH_STRIDE, matrix.batch_stride, ctypes.c_int64)
        return made

    def _candidates(self, alignment: int, workspace_nbytes: int, count: int) -> list[HeuristicResult]:
        """Algorithms for addresses of this alignment, the best first. Raises LibraryFailed where there is none."""
        preference = Descriptor(self._functions, "MatmulPreference", self._text)
        try:
            preference.set(api.PREFERENCE_WORKSPACE, workspace_nbytes, ctypes.c_uint64)
            for attribute in range(api.PREFERENCE_ALIGNMENT_A, api.PREFERENCE_ALIGNMENT_A + 4):
                preference.set(attribute, alignment, ctypes.c_uint32)
            if self.problem.bias:
                # only its alignment is looked at
                self._set_bias(alignment)
            found, returned = (HeuristicResult * count)(), ctypes.c_int()
            status = self._functions.cublasLtMatmulAlgoGetHeuristic(
                self._products.handle,
                self._desc.handle,
                *(layout.handle for layout in self._layouts),
                preference.handle,
                count,
                ctypes.byref(found),
                ctypes.byref(returned),
            )
        finally:
            preference.close()
        good = [found[i] for i in range(returned.value) if not status and not found[i].state]
        check(status or (0 if good else api.NOT_SUPPORTED), f"looking for an algorithm for {self._text}")
        return good

    def _set_bias(self, address: int) -> None:
        if address != self._bias:
            self._desc.set(api.DESC_BIAS_POINTER, address, ctypes.c_void_p)
            self._bias = address

    def run(self, a: int, b: int, out: int, bias: int, stream: int, c: int = 0, workspace: int = 0) -> None:
        """Enqueue the product: addresses on the device; ``workspace`` has ``workspace_nbytes``, for this stream alone.

        It neither allocates nor waits, so it can be captured.
        """
        if self.workspace_nbytes and (not workspace or workspace % _ALIGNMENT_NBYTES):
            raise LibraryFailed(f"a workspace of {self.workspace_nbytes} bytes, aligned, is needed for {self._text}")
        p = self.problem
        c = c if p.c is not None else out
        alignment = alignment_of(a, b, out, c, bias if p.bias else 0)
        with self._lock:
            algorithm = self._algorithm_for(alignment)
            self._enqueue(algorithm, (b, a, c, out), bias, stream, workspace, self.workspace_nbytes)

    def can_run(self, alignment: int) -> bool:
        """Whether there is an algorithm for operands that are aligned to so many bytes."""
        with self._lock:
            try:
                self._algorithm_for(alignment)
            except LibraryFailed:
                return False
        return True

    def _algorithm_for(self, alignment: int) -> Algorithm:
        """With the lock held."""
        algorithm, p = self._algorithms.get(alignment), self.problem
        if algorithm is None:
            if alignment < max(ITEM_NBYTES[p.dtype], ITEM_NBYTES[p.result]):
                raise LibraryFailed(f"addresses are aligned to {alignment} bytes alone, for {self._text}")
            algorithm = self._candidates(alignment, self.workspace_nbytes, 1)[0].algorithm
            self._algorithms[alignment] = algorithm
        return algorithm

    def _enqueue(
        self,
        algorithm: Algorithm,
        addresses: tuple[int, int, int, int],
        bias: int,
        stream: int,
        workspace: int,
        workspace_nbytes: int,
    ) -> None:
        """``addresses``: of the library's A, B, C, D."""
        if self.problem.bias:
            self._set_bias(bias)
        of_a, of_b, of_c, of_d = self._layouts
        a, b, c, d = addresses
        status = self._functions.cublasLtMatmul(
            self._products.handle,
            self._desc.handle,
            ctypes.byref(self._alpha),
            a,
            of_a.handle,
            b,
            of_b.handle,
            ctypes.byref(self._beta),
            c,
            of_c.handle,
            d,
            of_d.handle,
            ctypes.byref(algorithm),
            workspace or None,
            workspace_nbytes,
            stream or None,
        )
        check(status, f"enqueuing {self._text}")

    @property
    def most_workspace_nbytes(self) -> int:
        """What an algorithm may ask for."""
        return self._products.workspace_nbytes

    def tuned(
        self,
        a: int,
        b: int,
        out: int,
        bias: int,
        stream: int,
        timer: Timer,
        c: int = 0,
        workspace: int = 0,
        *,
        limit_s: float = math.inf,
    ) -> Tuned:
        """The fastest of the best few algorithms, timed on these operands, which are aligned; ``out`` is written.

        ``workspace`` has ``most_workspace_nbytes``. After ``limit_s`` no more are timed. Not to be called while the
        stream is captured, nor where ``c`` is ``out``.
        """
        if self.problem.c is not None and c == out:
            raise LibraryFailed(f"a product that adds to what it overwrites can't be timed: {self._text}")
        addresses, most = (b, a, c if self.problem.c is not None else out, out), self.most_workspace_nbytes
        begin_s = time.monotonic()
        timed: list[tuple[float, int, HeuristicResult]] = []
        with self._lock:
            for number, found in enumerate(self._candidates(_ALIGNMENT_NBYTES, most, _CANDIDATES)):
                if timed and time.monotonic() - begin_s > limit_s:
                    break

                def enqueue(stream: int, algorithm: Algorithm = found.algorithm) -> None:
                    self._enqueue(algorithm, addresses, bias, stream, workspace, most)

                timed.append((timer(enqueue, stream), number, found))
        ms, number, best = min(timed, key=lambda one: one[:2])
        return Tuned(best.algorithm, int(best.workspace_nbytes), number, len(timed), ms, timed[0][0])

    def adopt(self, found: Tuned) -> None:
        """Use what was timed, of this or another plan of the problem. Before the plan is run."""
        with self._lock:
            self._algorithms = {_ALIGNMENT_NBYTES: found.algorithm}
            self.workspace_nbytes = found.workspace_nbytes

    def close(self) -> None:
        for made in self._made:
            made.close()
            self._products.made.discard(made)


def _computed(p: ProductProblem) -> tuple[int, str, Any]:
    """How sums are made, the dtype of alpha and beta, and that as ctypes has it."""
    if p.dtype == "float64":
        return api.COMPUTE_64F, "float64", ctypes.c_double
    if p.dtype == "int8":
        return api.COMPUTE_32I, "int32", lambda value: ctypes.c_int32(round(value))
    fast = p.dtype == "float32" and p.tf32
    return api.COMPUTE_32F_FAST_TF32 if fast else api.COMPUTE_32F, "float32", ctypes.c_float


class Products:
    """cuBLASLt on the device that is current when this is made. ``compute_capability``: 90 for 9.0.

    ``workspace_nbytes``: what plans may ask for at most. Workspaces are the callers', one a stream.
    """

    def __init__(self, compute_capability: int, library: Any = None) -> None:
        self.functions = api.functions_of(library if library is not None else open_library("cublasLt"))
        self.workspace_nbytes = HOPPER_WORKSPACE_NBYTES if compute_capability >= _HOPPER else WORKSPACE_NBYTES
        self.handle = ctypes.c_void_p()
        check(self.functions.cublasLtCreate(ctypes.byref(self.handle)), "making a handle")
        #: descriptors of all plans
        self.made: set[Descriptor] = set()
        #: gives back all that the library has, when nobody has this any more; at exit CUDA does
        self._given_back = weakref.finalize(self, _give_back, self.functions, self.handle, self.made)
        self._given_back.atexit = False
        self._lock = threading.Lock()
        self._plans: dict[ProductProblem, ProductPlan | None] = {}
        #: why there is no plan for a problem
        self.reasons: dict[ProductProblem, str] = {}

    def plan(self, problem: ProductProblem) -> ProductPlan | None:
        """A plan, kept for all who ask; None where the library has no such product, see ``reasons``."""
        if problem.tf32 and problem.dtype != "float32":
            problem = replace(problem, tf32=False)
        with self._lock:
            if problem not in self._plans:
                self._plans[problem] = self._planned(problem)
            return self._plans[problem]

    def _planned(self, problem: ProductProblem) -> ProductPlan | None:
        reason = refusal(problem)
        if not reason:
            try:
                return ProductPlan(self, problem)
            except LibraryFailed as error:
                # of what is impossible the library says the one or the other
                if not any(api.STATUSES[status] in error.text for status in api.IMPOSSIBLE):
                    raise
                reason = error.text
        self.reasons[problem] = reason
        return None

    def withdraw(self, problem: ProductProblem, why: str) -> None:
        """There is no plan for it any more, for who asks from now on."""
        with self._lock:
            self._plans[problem] = None
            self.reasons[problem] = why

    def close(self) -> None:
        """Give back descriptors and the handle; plans are of no use then."""
        with self._lock:
            self._plans.clear()
            self._given_back()
            self.handle = ctypes.c_void_p()


def _give_back(functions: Any, handle: ctypes.c_void_p, made: set[Descriptor]) -> None:
    for descriptor in made:
        descriptor.close()
    made.clear()
    functions.cublasLtDestroy(handle)


__all__ = ["ProductPlan", "Products", "Timer", "Tuned", "alignment_of"]
