"""Products whose algorithms are timed: once in a process, for sessions that ask for it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distort.kernels.cuda import timing, tuning
from distort.kernels.cuda.product_problems import Matrix, ProductProblem

from .standing_in import program_of, session_of

TEXT = """g (float[N,64] x) => (float[N,64] y) <float[64,64] w, float[64] b> {
    m = MatMul(x, w)
    a = Add(m, b)
    y = Relu(a)
}"""
X = np.ones((3, 64), np.float32)
BOTH = {"tunable_op_enable": "1", "tunable_op_tuning_enable": "1"}


@pytest.fixture
def timed(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The streams of what was timed: of three algorithms the second is the fastest."""
    streams: list[int] = []
    took = itertools.cycle([3.0, 1.0, 2.0])

    def milliseconds(enqueue: Callable[[int], None], stream: int) -> float:
        enqueue(stream)
        streams.append(stream)
        return next(took)

    monkeypatch.setattr(timing, "milliseconds", milliseconds)
    return streams


def last_algorithm() -> int:
    import cublaslt

    return int(cublaslt.library().fake_last_algorithm())


def session(**options: Any) -> Any:
    text = TEXT.replace("float[64,64] w", f"float[64,64] w = {{{', '.join(['0.0078125'] * 4096)}}}")
    return session_of(text.replace("float[64] b", f"float[64] b = {{{', '.join(['1'] * 64)}}}"), **options)


def test_the_fastest_is_used_and_told(timed: list[int]) -> None:
    made = session(**BOTH)
    for _ in range(4):
        (y,) = made.run(None, {"x": X})
        np.testing.assert_allclose(y, np.full((3, 64), 1.5), rtol=1e-3)
        assert last_algorithm() == 1
    assert timed == [program_of(made).stream.ptr] * 3  # the product with what it absorbed, and no other
    told = made.explain()
    assert "with bias + relu: the fastest of 3 algorithms is number 1, 1 ms; the library's own choice takes 3" in told
    assert not [note for note in made.plan.notes if "tunable" in note]


def test_sessions_share_what_was_found(timed: list[int]) -> None:
    session(**BOTH).run(None, {"x": X})
    assert len(timed) == 3
    session(tunable_op_enable="1").run(None, {"x": X})
    assert last_algorithm() == 1
    session(**BOTH).run(None, {"x": X})
    assert len(timed) == 3
    session().run(None, {"x": X})
    assert last_algorithm() == 0
    session(**BOTH, device_id=1).run(None, {"x": X})  # another GPU
    assert len(timed) == 6


def test_without_leave_to_search_nothing_is_timed(timed: list[int]) -> None:
    session(tunable_op_enable="1").run(None, {"x": X})
    assert not timed and last_algorithm() == 0
    alone = session(tunable_op_tuning_enable="1", tunable_op_max_tuning_duration_ms="5")
    alone.run(None, {"x": X})
    assert not timed
    notes = [note for note in alone.plan.notes if "tunable" in note]
    assert [note.partition("=")[0].rpartition(" ")[2] for note in notes] == [
        "tunable_op_tuning_enable",
        "tunable_op_max_tuning_duration_ms",
    ]
    assert all("tunable_op_enable=0 leaves the choice to the libraries" in note for note in notes)


def test_timing_ends_after_its_time(timed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(step=1)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    made = session(**BOTH, tunable_op_max_tuning_duration_ms="1500")
    made.run(None, {"x": X})
    assert len(timed) == 2


def test_no_memory_to_time_in_is_told(timed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    made = session(**BOTH, gpu_mem_limit=1 << 20)  # the workspace alone is larger
    (y,) = made.run(None, {"x": X})
    np.testing.assert_allclose(y, np.full((3, 64), 1.5), rtol=1e-3)
    assert not timed and "not timed, for there is no memory for its operands: Failed to allocate" in made.explain()


def test_operands_span_what_they_are_said_to() -> None:
    problem = ProductProblem(
        "float16", 3, 5, 7, Matrix(8, False, 30), Matrix(9, True, 0), Matrix(6, False, 20), 4, "float32", 1.0, 1.0,
        Matrix(5, False, 15), True,
    )  # fmt: skip
    assert tuning.nbytes_of(problem) == {
        "a": (3 * 30 + 2 * 8 + 7) * 2,
        "b": (4 * 9 + 7) * 2,
        "out": (3 * 20 + 2 * 6 + 5) * 4,
        "c": (3 * 15 + 2 * 5 + 5) * 4,
        "bias": 20,
    }
