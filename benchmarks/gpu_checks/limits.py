"""Out of memory at gpu_mem_limit: the error's class and words, and a session that goes on afterwards."""

from __future__ import annotations

import numpy as np

from gpu_checks import programs
from gpu_checks.arrays import Array
from gpu_checks.report import Report
from gpu_checks.sketch import Sketch


def run(report: Report) -> None:
    limit_nbytes = (1 if report.small else 64) << 20
    made = Sketch()
    y = made.node("Softmax", made.node("Exp", made.input("x", "N", 256)), axis=-1)
    session = programs.session_of(made.model(y=(y, ("N", 256))), gpu_mem_limit=limit_nbytes)
    few, many = 16, 2 * limit_nbytes // 1024

    def right() -> bool:
        x: Array = np.random.default_rng(0).standard_normal((few, 256), np.float32)
        (got,) = session.run(None, {"x": x})
        e = np.exp(np.exp(x.astype(np.float64)))
        return bool(np.allclose(got, e / e.sum(1, keepdims=True), 1e-4, 1e-6))

    report.judge("a small batch within gpu_mem_limit", right())
    words, kind = "", "nothing"
    try:
        session.run(None, {"x": np.zeros((many, 256), np.float32)})
    except Exception as error:  # noqa: BLE001  # what it is, is what is looked at
        words, kind = " ".join(str(error).split()), f"{type(error).__module__}.{type(error).__name__}"
    said = "Failed to allocate memory" in words and "gpu_mem_limit" in words
    report.judge("a batch beyond it", said, f"{kind}: {words[:140]}")
    report.judge("the session goes on", right() and right())
