"""Other runtimes that a model is run by for comparison. None of them is a dependency: an error says what to install."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from distort.cli.errors import TaskFailed

Feeds = Mapping[str, Any]


@dataclass(slots=True)
class Rival:
    """A model in another runtime. ``run`` gives its outputs, in the model's order, with nothing of ours around it."""

    name: str  # with its version
    run: Callable[[Feeds], Sequence[Any]]


def require(name: str) -> Any:
    """A rival's module, which nothing else imports. Raises TaskFailed."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise TaskFailed(f"--against {name}: it is not installed here. pip install {name}") from error


def open_rival(name: str, model: str, threads: int) -> Rival:
    """``threads`` 0: as many as it takes by itself. Raises TaskFailed where it is missing or refuses the model."""
    module = require(name)
    try:
        return _OPENERS[name](module, model, threads)
    except Exception as error:  # a rival's own classes
        raise TaskFailed(f"{name} does not load {model}: {error}") from error


def _onnxruntime(module: Any, model: str, threads: int) -> Rival:
    options = module.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    session = module.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return Rival(f"onnxruntime {module.__version__}", partial(session.run, None))


def _openvino(module: Any, model: str, threads: int) -> Rival:
    # by itself it would compute in bfloat16 where the processor can
    config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    core = module.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", config)
    version = module.get_version().split("-")[0]

    def run(feeds: Feeds) -> Sequence[Any]:
        made = compiled(dict(feeds), share_inputs=True, share_outputs=True)
        return [made[port] for port in compiled.outputs]

    return Rival(f"openvino {version}", run)


_OPENERS: dict[str, Callable[[Any, str, int], Rival]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
NAMES = tuple(_OPENERS)


@dataclass(frozen=True, slots=True)
class Difference:
    """The output that differs most between two runtimes."""

    output: str = ""
    #: largest absolute difference; None where shapes, types or text differ
    absolute: float | None = 0.0
    #: the same by the largest magnitude in that output
    relative: float = 0.0

    def text(self) -> str:
        if not self.output:
            return "the same values"
        if self.absolute is None:
            return f"'{self.output}' is another value"
        return f"at most {self.absolute:.1e} off, in '{self.output}' ({self.relative:.1e} of its largest value)"


def difference(names: Sequence[str], ours: Sequence[Any], theirs: Sequence[Any]) -> Difference:
    """Of the outputs of one run each. NaN and infinities must be at the same places."""
    worst = Difference()
    for name, one, other in zip(names, ours, theirs, strict=True):
        found = _of_values(name, one, other)
        if found.absolute is None:
            return found
        assert worst.absolute is not None
        if found.absolute > worst.absolute:
            worst = found
    return worst


def _of_values(name: str, one: Any, other: Any) -> Difference:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        return difference([name] * len(one), one, other)
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape or a.dtype.kind not in "fiubV" or b.dtype.kind not in "fiubV":
        same = a.shape == b.shape and bool(np.all(a == b))
        return Difference() if same else Difference(name, None)
    wide, other_wide = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(other_wide)
    if not np.array_equal(wide[~finite], other_wide[~finite], equal_nan=True) or not np.isfinite(wide[finite]).all():
        return Difference(name, None)
    gap = float(np.max(np.abs(wide[finite] - other_wide[finite]), initial=0.0))
    largest = float(np.max(np.abs(other_wide)[finite], initial=0.0))
    return Difference(name, gap, gap / largest if largest else float(gap > 0)) if gap else Difference()
