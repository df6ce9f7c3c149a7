"""What runs will be fed, as far as a graph tells: a session compiles, or packs its weights, before the first one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distort.graph.ir import Graph
from distort.graph.types import DTYPE_OF, TensorType
from distort.kernels.compiler.specialise import FeedType

#: how many samples there are where that is all that a graph leaves open
_BATCH = 1
#: stands for any other size: weights of products are packed alike for all
_SIZE = 16
#: operators whose weights lie as the sizes of what they get want it
_BY_SIZE = frozenset(["Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "NhwcConv"])


@dataclass(frozen=True, slots=True)
class Likely:
    feeds: list[FeedType]
    #: runs will have these, but for the number of samples, which is taken to be 1
    is_close: bool


def likely_feeds(graph: Graph, inputs: Sequence[str]) -> Likely | None:
    """None where nothing can be said."""
    known: dict[str, TensorType] = {}
    for name in inputs:
        found = graph.types.get(name)
        if name not in graph.initializers:
            if not isinstance(found, TensorType) or found.shape is None or found.element not in DTYPE_OF:
                return None
            if DTYPE_OF[found.element].kind == "O":  # how much text there is differs from run to run
                return None
            known[name] = found
    shapes = [kind.shape or () for kind in known.values()]
    is_close = all(isinstance(size, int) for shape in shapes for size in shape[1:])
    if not is_close and any(node.op_type in _BY_SIZE for node in graph.nodes):
        return None
    size_of_others = _BATCH if is_close else _SIZE
    feeds: list[FeedType] = []
    for name in inputs:
        kind = known.get(name)
        sizes = [size if isinstance(size, int) else size_of_others for size in kind.shape or ()] if kind else []
        feeds.append((DTYPE_OF[kind.element], tuple(sizes)) if kind else None)
    return Likely(feeds, is_close)
