"""Convolutions and attention by cuDNN: graphs of its frontend, planned once a problem, run by addresses."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from distort.kernels.cuda import timing
from distort.kernels.cuda.dnn_graphs import UIDS, AttentionProblem, ConvProblem, graph_of, nbytes_of, refusal
from distort.kernels.cuda.libraries import LibraryFailed, cudnn_frontend
from distort.kernels.errors import OutOfMemory

#: onnxruntime's cudnn_conv_algo_search -> which of cuDNN's heuristics are asked, one after another
HEURISTICS = {"DEFAULT": ("A", "FALLBACK"), "HEURISTIC": ("B", "A", "FALLBACK"), "EXHAUSTIVE": ("A", "FALLBACK")}
#: what a plan may ask for with cudnn_conv_use_max_workspace=0
SMALL_WORKSPACE_NBYTES = 32 << 20
#: plans that are built and timed, at most, and after how many seconds no more of one problem are: some take long to
#: build, and heuristics name good ones first
_MOST_TIMED, _TIMING_S = 12, 1.0
#: problems of one kind that no engine was found for, until no more of that kind are looked for: each costs as much as a
#: plan
_MOST_DECLINED = 4
#: what the frontend says where it isn't the problem that is wrong
_BROKEN = (
    "LOADING_FAILED",
    "Create failed",
    "ALLOC_FAILED",
    "NOT_INITIALIZED",
    "cudaGetDevice",
    "VERSION_MISMATCH",
    "libcudart",  # there are several, or none
)

Problem = ConvProblem | AttentionProblem
#: memory of the device for a while: nbytes -> what keeps it, with its address as ``ptr``
Allocate = Callable[[int], Any]


class GraphPlan:
    """A graph that is ready to run. Streams may run it at once, with workspaces of their own."""

    def __init__(
        self, networks: Networks, graph: Any, index: int | None, nbytes: int, names: tuple[str, ...], problem: Problem
    ) -> None:
        self.workspace_nbytes = nbytes
        self.problem = problem
        #: of the tensors whose addresses a run wants
        self.names = names
        self._networks, self._graph = networks, graph
        self._index = index  # of a plan that was chosen; None: cuDNN's own choice
        self._uids = [(name, UIDS[name]) for name in names]

    def run(self, addresses: Mapping[str, int], workspace: int, stream: int) -> None:
        """Enqueue it: addresses by name; ``workspace`` has ``workspace_nbytes``, for this stream alone.

        It neither allocates nor waits, so it can be captured.
        """
        pack = {uid: addresses[name] for name, uid in self._uids}
        networks = self._networks
        with networks.lock:
            try:
                networks.cudnn.set_stream(handle=networks.handle, stream=stream)
                if self._index is None:
                    self._graph.execute(pack, workspace, handle=networks.handle)
                else:
                    self._graph.execute_plan_at_index(pack, workspace, self._index, handle=networks.handle)
            # ValueError: what the frontend itself finds wrong
            except (networks.cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError) as error:
                raise LibraryFailed(
                    f"cuDNN: {_first_line(error)} while running {self.problem}. Remedy: look at earlier kernels of the"
                    " stream with CUDA_LAUNCH_BLOCKING=1, or run with enable_cudnn=0."
                ) from error


class Networks:
    """cuDNN on the device that is current when this is made. ``compute_capability``: 90 for 9.0.

    ``algorithm_search``: onnxruntime's cudnn_conv_algo_search, for convolutions; ``any_workspace``: its
    cudnn_conv_use_max_workspace. EXHAUSTIVE times plans, in memory that ``allocate`` gives.
    """

    def __init__(
        self,
        compute_capability: int,
        algorithm_search: str = "EXHAUSTIVE",
        any_workspace: bool = True,
        allocate: Allocate | None = None,
        timer: Callable[[Callable[[int], None], int], float] = timing.milliseconds,
        timing_s: float = _TIMING_S,
    ) -> None:
        if algorithm_search not in HEURISTICS:
            raise ValueError(f"unknown algorithm search {algorithm_search!r}: there are {', '.join(HEURISTICS)}")
        self.cudnn: Any = cudnn_frontend()
        self.compute_capability = compute_capability
        self._search, self._any_workspace = algorithm_search, any_workspace
        self._allocate, self._timer, self._timing_s = allocate or _allocate, timer, timing_s
        try:
            self.handle: Any = self.cudnn.create_handle()
        except RuntimeError as error:
            raise LibraryFailed(
                f"cuDNN: {_first_line(error)}. Remedy: look whether the driver is at least as new as this CUDA."
            ) from error
        #: gives the handle back when nobody has this any more; at exit CUDA does
        self._given_back = weakref.finalize(self, self.cudnn.destroy_handle, self.handle)
        self._given_back.atexit = False
        #: the handle has one stream at a time
        self.lock = threading.RLock()
        self._graphs: dict[Problem, Any] = {}
        #: by kinds of convolutions with an epilogue: how many had no engine, -1 where one had
        self._declined: dict[tuple[Any, ...], int] = {}
        self._plans: dict[Problem, GraphPlan | None] = {}
        #: why there is no plan for a problem
        self.reasons: dict[Problem, str] = {}

    def convolution(self, problem: ConvProblem) -> GraphPlan | None:
        """A plan, kept for all who ask; None where cuDNN has no engine for it, see ``reasons``."""
        return self._plan(problem)

    def attention(self, problem: AttentionProblem) -> GraphPlan | None:
        """As :meth:`convolution`."""
        return self._plan(problem)

    def supports(self, problem: Problem) -> bool:
        """Whether there is a plan, without building and timing more of them than it takes to know."""
        with self.lock:
            return self._supported(problem) is not None

    def _plan(self, problem: Problem) -> GraphPlan | None:
        with self.lock:
            if problem not in self._plans:
                graph = self._supported(problem)
                made = None if graph is None else self._asked(problem, lambda: self._built(problem, graph))
                if made is None:
                    self._graphs[problem] = None  # what was supported, and can't be built, is not any more
                self._plans[problem] = made
            return self._plans[problem]

    def _supported(self, problem: Problem) -> Any:
        """A graph that some engine runs; None where there is none, see ``reasons``."""
        if problem not in self._graphs:
            kind = _kind_of(problem)
            reason = refusal(problem, self.compute_capability)
            if not reason and kind is not None and self._declined.get(kind, 0) >= _MOST_DECLINED:
                reason = f"cuDNN had no engine for any of {_MOST_DECLINED} like {problem}"
            if reason:
                self.reasons[problem] = reason
            made = None if reason else self._asked(problem, lambda: self._checked(problem))
            if kind is not None and not reason and self._declined.get(kind, 0) >= 0:
                self._declined[kind] = -1 if made is not None else self._declined.get(kind, 0) + 1
            self._graphs[problem] = made
        return self._graphs[problem]

    def _asked(self, problem: Problem, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        # ValueError: what the frontend itself finds wrong
        except (self.cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError) as error:
            if any(word in str(error) for word in _BROKEN):
                raise LibraryFailed(
                    f"cuDNN: {_first_line(error)} while planning {problem}. Remedy: look whether all of cuDNN's"
                    " libraries are of one version, or run with enable_cudnn=0."
                ) from error
            self.reasons[problem] = f"cuDNN has no engine for {problem}: {_first_line(error)}"
            return None

    def _search_of(self, problem: Problem) -> str:
        return self._search if isinstance(problem, ConvProblem) else "DEFAULT"

    def _limit_of(self, problem: Problem) -> int | None:
        """How large a workspace may be; None: as large as it likes."""
        return None if self._any_workspace or not isinstance(problem, ConvProblem) else SMALL_WORKSPACE_NBYTES

    def _checked(self, problem: Problem) -> Any:
        cudnn, limit = self.cudnn, self._limit_of(problem)
        graph = graph_of(cudnn, problem, self.handle)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([getattr(cudnn.heur_mode, mode) for mode in HEURISTICS[self._search_of(problem)]])
        if isinstance(problem, ConvProblem) and problem.dtype == "float32":
            notes = cudnn.numerical_note  # TF32 is a rounding in tensor cores; to convert to half precision is another
            graph.deselect_numeric_notes([notes.DOWN_CONVERT_INPUTS, *([] if problem.tf32 else [notes.TENSOR_CORE])])
        if limit is not None:
            graph.deselect_workspace_greater_than(limit)
        graph.check_support()
        return graph

    def _built(self, problem: Problem, graph: Any) -> GraphPlan:
        names = tuple(nbytes_of(problem))
        if self._search_of(problem) == "EXHAUSTIVE":
            fastest = self._fastest(problem, graph, names, self._limit_of(problem))
            if fastest is not None:
                return fastest
        graph.build_plans()
        return GraphPlan(self, graph, None, int(graph.get_workspace_size()), names, problem)

    def _fastest(self, problem: Problem, graph: Any, names: tuple[str, ...], limit: int | None) -> GraphPlan | None:
        """All plans timed in memory of their own. None where there is no memory for that."""
        best: tuple[float, int, GraphPlan] | None = None
        try:
            memory = {name: self._allocate(nbytes) for name, nbytes in nbytes_of(problem).items()}
        except (MemoryError, OutOfMemory):
            return None
        addresses = {name: int(kept.ptr) for name, kept in memory.items()}
        # a pool's memory is in the order of the stream that is current: on another one, work before might still use it
        stream = _current_stream()
        begin_s, n_built = time.monotonic(), 0
        for index in range(graph.get_execution_plan_count()):  # among them those that were deselected
            if n_built == _MOST_TIMED or (best is not None and time.monotonic() - begin_s > self._timing_s):
                break
            try:
                graph.build_plan_at_index(index)
                n_built += 1
                nbytes = int(graph.get_workspace_size_plan_at_index(index))
                if limit is not None and nbytes > limit:
                    continue
                workspace = self._allocate(nbytes) if nbytes else None
                plan = GraphPlan(self, graph, index, nbytes, names, problem)
                address = int(workspace.ptr) if workspace is not None else 0

                def enqueue(stream: int, plan: GraphPlan = plan, address: int = address) -> None:
                    plan.run(addresses, address, stream)

                taken = self._timer(enqueue, stream)
            except _declines(self.cudnn):
                continue  # one that doesn't fit, or was only thought to go
            if best is None or taken < best[0]:
                best = (taken, index, plan)
        return best[2] if best is not None else None

    def close(self) -> None:
        """Give back the handle; plans are of no use then."""
        with self.lock:
            self._plans.clear()
            self._graphs.clear()
            self._given_back()
            self.handle = None


def _kind_of(problem: Problem) -> tuple[Any, ...] | None:
    """What engines of convolutions with an epilogue go by, beside sizes; None where there is no epilogue."""
    p = problem
    if not isinstance(p, ConvProblem) or not (p.bias or p.z_strides or p.activation):
        return None
    layouts = [strides[1] == 1 for strides in (p.x_strides, p.y_strides)]
    what = (p.dtype, p.tf32, len(p.x), p.transposed, p.w[1] == p.x[1], *layouts)
    return (*what, p.bias, p.z_strides is not None, p.activation)


def _declines(cudnn: Any) -> tuple[type[Exception], ...]:
    """What building and running one of several plans may raise where another one goes."""
    return (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError, LibraryFailed, MemoryError, OutOfMemory)


def _current_stream() -> int:
    import cupy

    return int(cupy.cuda.get_current_stream().ptr)


def _allocate(nbytes: int) -> Any:
    import cupy

    try:
        return cupy.cuda.alloc(nbytes)
    except cupy.cuda.memory.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


__all__ = ["AttentionProblem", "ConvProblem", "GraphPlan", "Networks"]
