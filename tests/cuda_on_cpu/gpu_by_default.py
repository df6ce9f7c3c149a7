"""Sessions that ask for the CPU, or for nothing, run on the GPU, three times a run: by nodes, by a plan, as a graph.

``pytest -p tests.cuda_on_cpu.gpu_by_default TESTS``, for tests of what sessions compute. Products are exact
(``use_tf32=0``), as these tests expect them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

import distort
from distort.capi import onnxruntime_inference_collection as collection

N_RUNS = 3
_CPU = "CPUExecutionProvider"
_GPU: list[Any] = [("CUDAExecutionProvider", {"use_tf32": "0"}), _CPU]
_session = collection.InferenceSession
_open, _run = _session.__init__, _session.run
_counted: Counter[str] = Counter()


def _open_on_gpu(
    self: Any, path_or_bytes: Any, sess_options: Any = None, providers: Any = None, *args: Any, **more: Any
) -> None:
    parallel = getattr(sess_options, "execution_mode", None) == distort.ExecutionMode.ORT_PARALLEL
    if not parallel and (not providers or list(providers) == [_CPU]):
        providers = _GPU
    _open(self, path_or_bytes, sess_options, providers, *args, **more)


def _run_again(
    self: Any, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], *args: Any, **more: Any
) -> Any:
    gpu = self._sess._loaded.engine.gpu
    for _ in range(1 if gpu is None else N_RUNS):
        results = _run(self, output_names, input_feed, *args, **more)
    _counted["sessions"] += 1
    _counted["on a GPU"] += gpu is not None
    _counted["as graphs"] += bool(gpu is not None and gpu.n_graph_runs)
    return results


_session.__init__, _session.run = _open_on_gpu, _run_again


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Of this process: workers of xdist count their own."""
    if _counted:
        terminalreporter.write_line(", ".join(f"{n} {what}" for what, n in _counted.items()))
