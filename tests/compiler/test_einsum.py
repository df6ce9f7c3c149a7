"""Einsum of any number of operands, against the NumPy kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.compiler.program import CompiledProgram

from .movement import check, compiles_for_arm, lesser_library, one_node

SIZES = {"a": 2, "b": 3, "c": 5, "d": 7, "e": 4, "i": 6, "j": 6, "k": 9, "n": 1}
EQUATIONS = [
    "ab->ba",
    "abc->b",
    "ii->i",
    "ii",
    "aibi->ab",
    "ab,ab->ab",
    "a,b->ab",
    "ab,b->a",
    "ab,cd->",
    "abk,bkd->abd",
    "ab,bc,cd->ad",
    "abi,acj,bdij->acd",
    "abkc,abkd,abke->abcde",
    "i,j,ij->",
    "iia,ab,cb->ci",
    "a,b,c,d->dcba",
    "na,ab,bn->n",
    "...a,ab,b...->...",
]


def _feeds(equation: str, dtype: Any = np.float32) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(2)
    terms = equation.split("->")[0].replace("...", "n").split(",")
    shapes = [tuple(SIZES[letter] for letter in term) for term in terms]
    return {f"x{i}": rng.normal(0, 0.3, shape).astype(dtype) for i, shape in enumerate(shapes)}


@pytest.mark.parametrize("equation", EQUATIONS)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_equations(equation: str, n_threads: int) -> None:
    feeds = _feeds(equation)
    check(one_node("Einsum", feeds, equation=equation), feeds, exact=False, n_threads=n_threads)


@pytest.mark.parametrize("equation", ["ab,bc,cd->ad", "ii,i,ij->j"])
def test_known_operands(equation: str) -> None:
    feeds = _feeds(equation)
    known = {"x0": feeds.pop("x0"), "x2": feeds.pop("x2")}
    graph = one_node("Einsum", feeds, known, order=["x0", "x1", "x2"], equation=equation)
    check(graph, feeds, exact=False)


def test_halves() -> None:
    feeds = _feeds("ab,bc,cd->ad", np.float16)
    program = CompiledProgram(one_node("Einsum", feeds, equation="ab,bc,cd->ad"))
    (found,), (expected,) = program.run(feeds), program.plain.run(feeds)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("target", ["avx2", "sse4.2"])
def test_on_lesser_machines(target: str) -> None:
    feeds = _feeds("abi,acj,bdij->acd")
    graph = one_node("Einsum", feeds, equation="abi,acj,bdij->acd")
    check(graph, feeds, exact=False, library=lesser_library(target))
    compiles_for_arm(graph, feeds)
