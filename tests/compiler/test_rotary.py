"""Rotary embeddings in one pass, of heads of odd sizes, on machines and threads of all kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .movement import check, compiles_for_arm, lesser_library, one_node


def _feeds(heads: int, steps: int, size: int, turned: int, rank: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(9)
    shape = (2, heads, steps, size) if rank == 4 else (2, steps, heads * size)
    angles = rng.uniform(0, 6, (2, steps, turned // 2))
    x = rng.normal(size=shape)
    return {"x": x.astype(np.float32), "cos": np.cos(angles, dtype="f4"), "sin": np.sin(angles, dtype="f4")}


@pytest.mark.parametrize("sizes", [(3, 5, 64, 64), (1, 1, 26, 26), (2, 7, 90, 54), (5, 3, 7, 2)])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("rank", [3, 4])
def test_turned(sizes: tuple[int, int, int, int], interleaved: int, rank: int) -> None:
    heads, _, _, turned = sizes
    feeds = _feeds(*sizes, rank)
    attributes = {"interleaved": interleaved, "num_heads": heads, "rotary_embedding_dim": turned}
    graph = one_node("RotaryEmbedding", feeds, opset=23, **attributes)
    (alone,) = check(graph, feeds, exact=False)
    (shared,) = check(graph, feeds, exact=False, n_threads=2)
    np.testing.assert_array_equal(alone, shared)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_on_lesser_machines(target: str, interleaved: int) -> None:
    feeds = _feeds(2, 3, 52, 46, 4)
    graph = one_node("RotaryEmbedding", feeds, opset=23, interleaved=interleaved, rotary_embedding_dim=46)
    check(graph, feeds, exact=False, library=lesser_library(target))
    compiles_for_arm(graph, feeds)
