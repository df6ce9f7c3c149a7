"""Memory of callers' that begins anywhere: read and written where it is, as far as kernels and libraries bear."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort import OrtValue
from distort.kernels.cuda.running import PlanRun

from .standing_in import program_of, session_of

#: text, type of x, and what an address must be a multiple of
CASES = {
    "maps": ("g (float[64,6] x) => (float[64,6] y) { y = Relu(x) }", np.float32, 4),
    "maps of halves": ("g (float16[64,6] x) => (float16[64,6] y) { a = Neg(x) y = Mul(a, x) }", np.float16, 2),
    "bytes": ("g (uint8[64,6] x) => (uint8[64,6] y) { y = Add(x, x) }", np.uint8, 1),
    "turned": ("g (float[64,6] x) => (float[6,64] y) { y = Transpose<perm=[1,0]>(x) }", np.float32, 4),
    "rows": ("g (float[64,6] x) => (float[64,6] y) { y = Softmax(x) }", np.float32, 4),
    "pools": (
        "g (float[1,2,8,8] x) => (float[1,2,4,4] y) { y = MaxPool<kernel_shape=[2,2],strides=[2,2]>(x) }",
        "f",
        4,
    ),
    "sums": ("g (float[64,6] x) => (float[64,6] y) <int64 a = {1}> { y = CumSum(x, a) }", np.float32, 4),
    "products": ("g (float[64,6] x) => (float[64,64] y) { t = Transpose(x) y = MatMul(x, t) }", np.float32, 16),
    "convolutions": ("g (float[1,2,8,8] x, float[2,2,3,3] w) => (float[1,2,6,6] y) { y = Conv(x, w) }", np.float32, 16),
}


def shape_of(text: str, name: str) -> tuple[int, ...]:
    found = text.partition(f"] {name}")[0].rpartition("[")[2]
    return tuple(map(int, found.split(",")))


@pytest.mark.parametrize("shift", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("name", CASES)
def test_values_are_where_they_are(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch, name: str, shift: int) -> None:
    """The feed begins ``shift`` elements behind an allocation's begin, and so does the result."""
    text, dtype, wanted = CASES[name]
    dtype = np.dtype(dtype)
    runs: list[PlanRun] = []
    go = PlanRun.go
    monkeypatch.setattr(PlanRun, "go", lambda self, scope: runs.append(self) or go(self, scope))
    session = session_of(text)
    rng = np.random.default_rng(shift)
    feeds = {
        name: (10 * rng.random(shape_of(text, name))).astype(dtype)
        for name in ("x", "w")
        if f"] {name}" in text.partition("=>")[0]
    }
    (want,) = session.run(None, feeds)
    binding = session.io_binding()
    given = {}
    for one, array in (*feeds.items(), ("y", want)):
        memory = fake_cuda.zeros(array.size + shift, dtype)
        given[one] = view = memory[shift:].reshape(array.shape)
        if one != "y":
            view.set(array)
        bind = binding.bind_input if one != "y" else binding.bind_output
        bind(one, "cuda", 0, dtype, list(array.shape), view.data.ptr)
    runs.clear()
    for _ in range(4):
        given["y"][...] = 0
        session.run_with_iobinding(binding)
        np.testing.assert_array_equal(given["y"].get(), want)
    is_read = {one: given[one].data.ptr in run._feeds for run in runs for one in feeds}
    assert is_read == dict.fromkeys(feeds, shift * dtype.itemsize % wanted == 0)
    assert runs[-1]._results == [given["y"].data.ptr] or shift * dtype.itemsize % wanted
    assert program_of(session).n_graph_runs >= 2


def test_a_feed_that_is_not_contiguous_is_copied(fake_cuda: Any) -> None:
    session = session_of("g (float[4,6] x) => (float[4,6] y) { y = Neg(x) }")
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    (y,) = program_of(session).run({"x": fake_cuda.asarray(np.asfortranarray(x))})
    np.testing.assert_array_equal(y.get(), -x)


def test_a_view_of_a_feed_goes_to_a_library_where_it_suits(fake_cuda: Any) -> None:
    """Half of a feed, from where it is no whole word: the product's plan is one for such addresses."""
    text = """g (float[2,9] x, float[3,3] w) => (float[2,3] y) <int64[1] b = {3}, int64[1] e = {6}, int64[1] a = {1}> {
        s = Slice(x, b, e, a) y = MatMul(s, w) }"""
    session = session_of(text)
    x = np.arange(18, dtype=np.float32).reshape(2, 9)
    w = np.eye(3, dtype=np.float32)
    for _ in range(4):
        found = session.run(None, {"x": OrtValue.ortvalue_from_numpy(x, "cuda", 0), "w": w})
        np.testing.assert_array_equal(found[0], x[:, 3:6])
