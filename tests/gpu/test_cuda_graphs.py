"""Any graph of operators that move elements, lowered, fused and printed for a GPU."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ..compiler.test_graphs_of_moves import graph_of_moves
from .graphs import check_graph
from .simulating import WAYS


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_any_graph_of_moves(data: st.DataObject) -> None:
    graph, feeds = graph_of_moves(data)
    check_graph(graph, feeds, rtol=0, atol=0, ways=[data.draw(st.sampled_from(WAYS))])
