"""ONNX's own node tests through ``CudaProgram``, by the type of what they are fed, in several processes.

A case that takes its process down (an illegal address, a hang) is a row of the bad ones, and its process is replaced.
So is one whose answer is right though there was no plan for it, by an error of ours: nodes ran one at a time then.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import re
import sys
import threading
import time
import warnings
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpu_checks.report import FAILED, FIGURE, OK, SKIPPED, WRONG, Report, words_of

_N_PROCESSES = 4
#: of one case, its kernels' compilation included
_CASE_S = 30.0
#: results that nothing fixes
_RANDOM = re.compile(r"bernoulli|training_dropout|random_(normal|uniform)|multinomial|_cuda$")
#: on a machine that only stands in for one with a GPU
_FEW = ("test_add", "test_softmax_axis_1", "test_conv_with_strides_padding", "test_matmul_3d", "test_gather_0")
_SPACING = {"float16": 2e-3, "bfloat16": 1.6e-2}


class Answer(NamedTuple):
    """``dtype``: of what a case is fed. ``notes``: what was done another way than it could have been.

    ``is_lost``: the GPU does nothing more for the process.
    """

    dtype: str
    result: str
    words: str
    notes: tuple[str, ...] = ()
    is_lost: bool = False


def cases() -> dict[str, Any]:
    """By name: onnx's, with their models and data."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # expected values overflow on purpose when they are made
        found = collect_testcases(None)
    return {case.name: case for case in found if not _RANDOM.search(case.name)}


def run(report: Report) -> None:
    known = cases()
    names = [name for name in known if not report.small or name in _FEW]
    names.sort(key=lambda name: zlib.crc32(name.encode()))  # where time runs out, some of each operator were run
    found = _Pool([known[name] for name in names], report).run()
    by_type: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for name, answer in found.items():
        by_type[answer.dtype].append((name, answer.result, answer.words))
    for dtype, rows in sorted(by_type.items()):
        bad = [(name, words) for name, result, words in rows if result in (WRONG, FAILED)]
        skipped = sum(result == SKIPPED for _, result, _ in rows)
        worst = FAILED if any(result == FAILED for _, result, _ in rows) else WRONG
        figure = f"{len(rows) - len(bad) - skipped} of {len(rows) - skipped} right"
        if bad:
            figure += "; " + ", ".join(name.removeprefix("test_") for name, _ in bad[:4])
        report.add(f"node tests of {dtype}", worst if bad else OK, figure, bad=bad[:200])
    if len(found) < len(names):
        report.add("node tests not reached", SKIPPED, f"{len(names) - len(found)} of {len(names)}: no time left")
    # the same mistake in many cases is one line
    causes = Counter(answer.words for answer in found.values() if answer.result == FAILED)
    for words, n in causes.most_common(15):
        report.add(f"cause of {n} that failed", FIGURE, words)
    notes = Counter(note for answer in found.values() for note in answer.notes)
    if notes:
        report.add("done another way", FIGURE, f"{len(notes)} reasons", notes=dict(notes.most_common(60)))
    report.add("node tests run", FIGURE, str(len(found)))


class _Pool:
    """A thread for each process, which gives it a case at a time."""

    def __init__(self, cases: Sequence[Any], report: Report) -> None:
        self._cases, self._report = deque(cases), report
        self._found: dict[str, Answer] = {}

    def run(self) -> dict[str, Answer]:
        n = 1 if self._report.small else _N_PROCESSES
        threads = [threading.Thread(target=self._serve) for _ in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self._found

    def _serve(self) -> None:
        worker = _Worker()
        while self._report.left_s > 3:
            try:
                case = self._cases.popleft()
            except IndexError:
                break
            answer = worker.ask(case, self._limit_s)
            if answer is None or answer.is_lost:
                words = worker.kill()
                if answer is not None:
                    self._found[case.name] = self._named(case, answer)
                elif self._report.left_s > 1:
                    self._found[case.name] = Answer("?", FAILED, words)
                worker = _Worker()
            else:
                self._found[case.name] = answer
        worker.kill()

    @property
    def _limit_s(self) -> float:
        return min(_CASE_S, max(self._report.left_s, 1.0))

    def _named(self, case: Any, answer: Answer) -> Answer:
        """Of a case that lost the GPU: with what it was that did, which CUDA says when it waits for each launch."""
        if self._report.left_s < 10:
            return answer
        worker = _Worker(waits=True)
        again = worker.ask(case, self._limit_s)
        told = worker.kill() if again is None else again.words
        if again is not None:
            worker.kill()
        return answer._replace(words=f"{answer.words}; where each launch is waited for: {told}")


class _Worker:
    """``waits``: for each launch, which then says what is wrong with it."""

    def __init__(self, waits: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, list(sys.path), waits), daemon=True)
        self._process.start()
        theirs.close()
        self._is_ready = False

    def ask(self, case: Any, limit_s: float) -> Answer | None:
        try:
            self._pipe.send(case)
            if not self._is_ready:  # it imports, and makes itself at home on the GPU
                self._is_ready = self._pipe.poll(max(limit_s, _CASE_S)) and self._pipe.recv() == "ready"
            if not self._pipe.poll(limit_s):
                return None
            answer: Answer = self._pipe.recv()
        except (EOFError, OSError):
            return None
        return answer

    def kill(self) -> str:
        """What became of the process, in words."""
        self._process.join(0.5)  # who died is known to in a moment
        code = self._process.exitcode
        self._process.kill()
        self._process.join(10)
        self._pipe.close()
        return "it took too long" if code is None else f"its process ended with {code}"


def _work(pipe: Any, path: list[str], waits: bool) -> None:
    """The process: cases in, answers out."""
    sys.path[:] = path
    if waits:
        os.environ["CUDA_LAUNCH_BLOCKING"] = "1"
    faulthandler.enable()
    warnings.simplefilter("ignore")
    import cupy

    cupy.zeros(1)
    pipe.send("ready")
    while True:
        try:
            case = pipe.recv()
        except EOFError:
            return
        answer = run_case(case)
        try:
            cupy.cuda.runtime.deviceSynchronize()
        except cupy.cuda.runtime.CUDARuntimeError as error:  # nothing runs in this process any more
            words = answer.words if answer.result == FAILED else words_of(error)
            answer = answer._replace(result=FAILED, words=words, is_lost=True)
        pipe.send(answer)


def run_case(case: Any) -> Answer:
    from onnx import numpy_helper

    from distort.engine import load_model
    from distort.graph.inference import infer
    from distort.kernels.cuda.options import CudaOptions
    from distort.kernels.cuda.program import CudaProgram

    def plain(value: Any) -> Any:
        return numpy_helper.to_array(value) if hasattr(value, "raw_data") else value

    dtype = "no tensors"
    try:
        (inputs, outputs), *_ = case.data_sets
        inputs, outputs = [plain(value) for value in inputs], [plain(value) for value in outputs]
        dtype = next((str(v.dtype) for v in (*inputs, *outputs) if isinstance(v, (np.ndarray, np.generic))), dtype)
        model = load_model(case.model.SerializeToString())
        infer(model)
        names = [value.name for value in case.model.graph.input]
        began = time.perf_counter()
        # tolerances are those of float32; which plan of cuDNN's is the fastest is of no matter
        options = CudaOptions.read({"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})
        program = CudaProgram(model.graph, options)
        feeds = dict(zip(names, inputs, strict=False))
        for turn in range(2):  # the second run may have another plan, or be a graph
            results = [_home(value) for value in program.run(feeds)]
            for got, want in zip(results, outputs, strict=True):
                if words := differs(got, want, case.rtol, case.atol):
                    return Answer(dtype, WRONG, f"run {turn}: {words}")
        notes = (*program.not_captured, *program.context.libraries.obstacles())
        if program.faults:
            return Answer(dtype, FAILED, f"no plan: {next(program.refused[key] for key in program.faults)}", notes)
        return Answer(dtype, OK, f"{time.perf_counter() - began:.2f} s", notes)
    except Exception as error:  # noqa: BLE001  # the case's own result
        return Answer(dtype, FAILED, words_of(error))


def _home(value: Any) -> Any:
    import cupy

    if isinstance(value, cupy.ndarray):
        return cupy.asnumpy(value)
    return [_home(item) for item in value] if isinstance(value, (list, tuple)) else value


def differs(got: Any, want: Any, rtol: float, atol: float) -> str:
    if want is None or got is None:
        return "" if want is got else f"{got} for {want}"
    if isinstance(want, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(got) != len(want):
            return f"no sequence of {len(want)}"
        return next(filter(None, (differs(*pair, rtol, atol) for pair in zip(got, want, strict=True))), "")
    want = np.asarray(want)
    if not hasattr(got, "shape") or got.shape != want.shape:
        return f"{getattr(got, 'shape', type(got))} for {want.shape}"
    if got.dtype != want.dtype:  # what the GPU holds as bytes
        if got.dtype != np.uint8 or want.dtype.itemsize != 1:
            return f"{got.dtype} for {want.dtype}"
        got = got.view(want.dtype)
    if want.dtype.kind in "OUSb":
        return "" if np.array_equal(got, want) else "other elements"
    one, other = got.astype(np.complex128), want.astype(np.complex128)
    rtol = max(rtol, _SPACING.get(want.dtype.name, 0.0))
    if np.allclose(one, other, rtol, max(atol, rtol * 0.1), equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        return f"differs by {np.nanmax(np.abs(one - other)):.2e} at most"
