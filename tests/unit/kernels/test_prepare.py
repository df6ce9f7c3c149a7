"""``prepare``: attributes become tables once, when a node is lowered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.graph.ir import Graph, Node
from distort.kernels.errors import MissingKernel
from distort.kernels.program import Program
from distort.kernels.registry import kernel

CALLS: list[list[int]] = []


def _table(*, values: list[int], shift: int = 0) -> dict[str, Any]:
    CALLS.append(values)
    return {"table": np.array(values) + shift}


@kernel("Pick", domain="test.prepare", prepare=_table)
def pick(xp: Any, x: Any, *, table: Any, opset: int) -> Any:
    return table[x] * opset


def graph(**attributes: Any) -> Graph:
    node = Node("Pick", "test.prepare", ["x"], ["y"], attributes, opset=2)
    return Graph(inputs=["x"], outputs=["y"], nodes=[node])


def test_once_a_node_not_once_a_run() -> None:
    CALLS.clear()
    program = Program(graph(values=[5, 7], shift=1))
    for position, want in ((0, 12), (1, 16), (0, 12)):
        assert program.run({"x": np.int64([position])})[0].tolist() == [want]
    assert CALLS == [[5, 7]]


def test_attributes_that_it_lacks_are_errors() -> None:
    with pytest.raises(MissingKernel, match="lacks attribute table"):
        Program(graph(values=[1], table=np.zeros(1)))
