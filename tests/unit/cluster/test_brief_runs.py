"""Short ways of small stages: taken when they are the same run again, and only then."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from distort.cluster.brief_runs import BriefRuns
from distort.engine import load_model
from distort.kernels.compiler.program import CompiledProgram

MODEL = """<ir_version: 9, opset_import: ["" : 17]>
g (float[N] x, float[N] y) => (float[N] s, float[N] d) { s = Add (x, y) d = Sub (x, y) }"""


def nowhere(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    return None


def program(text: str = MODEL) -> CompiledProgram:
    return CompiledProgram(load_model(onnx.parser.parse_model(text).SerializeToString()).graph)


def feeds(n: int, seed: int = 0, dtype: type = np.float32) -> dict[str, np.ndarray]:
    x, y = np.random.default_rng(seed).standard_normal((2, n)).astype(dtype)
    return {"y": y, "x": x}


def long_way(compiled: CompiledProgram, brief: BriefRuns, n: int) -> None:
    given = feeds(n)
    compiled.run(given)
    brief.look_at(given)


def test_the_second_run_shows_the_way() -> None:
    compiled = program()
    brief = BriefRuns(compiled)
    assert brief.of(feeds(4), nowhere) is None
    long_way(compiled, brief, 4)
    assert brief.of(feeds(4), nowhere) is None
    long_way(compiled, brief, 4)
    for seed in range(3):
        given = feeds(4, seed)
        made = brief.of(given, nowhere)
        assert made is not None
        np.testing.assert_array_equal(made["s"], given["x"] + given["y"])
        np.testing.assert_array_equal(made["d"], given["x"] - given["y"])


@pytest.mark.parametrize(
    "other", [feeds(5), feeds(4, dtype=np.float64), {"x": feeds(4)["x"]}, {**feeds(4), "y": [1.0] * 4}]
)
def test_other_feeds_go_the_long_way(other: dict[str, np.ndarray]) -> None:
    compiled = program()
    brief = BriefRuns(compiled)
    for _ in range(2):
        long_way(compiled, brief, 4)
    assert brief.of(other, nowhere) is None
    assert brief.of(feeds(4), nowhere) is not None


def test_results_are_made_in_their_room() -> None:
    compiled = program()
    brief = BriefRuns(compiled)
    for _ in range(2):
        long_way(compiled, brief, 50_000)
    memory = np.empty(50_000, np.float32)
    asked: list[tuple[str, tuple[int, ...], np.dtype]] = []

    def room(name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
        asked.append((name, shape, dtype))
        return memory if name == "d" else None

    given = feeds(50_000, 1)
    made = brief.of(given, room)
    assert made is not None and made["d"] is memory
    np.testing.assert_array_equal(memory, given["x"] - given["y"])
    np.testing.assert_array_equal(made["s"], given["x"] + given["y"])
    assert asked == [(name, (50_000,), np.dtype(np.float32)) for name in ("s", "d")]


def test_long_work_can_be_stopped() -> None:
    text = MODEL.replace("s = Add (x, y)", "a = Erf (x) b = Erf (a) s = Erf (b)").replace("float[N]", "float[N,K]")
    compiled = program(text)
    brief = BriefRuns(compiled)
    given = {name: value.reshape(1000, 1000) for name, value in feeds(1_000_000).items()}
    for _ in range(4):
        compiled.run(given)
        brief.look_at(given)
    assert brief.of(given, nowhere) is None


def test_feeds_that_change_don_t_ask_for_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = program()
    brief = BriefRuns(compiled)
    asked: list[int] = []
    monkeypatch.setattr(compiled, "quick", lambda given: asked.append(len(given["x"])))
    for n in [*range(1, 60), 3, 5]:
        brief.look_at(feeds(n))
    assert asked == [3, 5]
    for n in range(100, 300):
        brief.look_at(feeds(n))
    assert len(brief._seen) <= 64
