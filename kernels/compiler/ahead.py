"""What runs will be fed, as far as a graph tells: a session compiles, or packs its weights, before the first one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distort.graph import caching, digests
from distort.graph.ir import Graph, Model
from distort.graph.outline import outline
from distort.graph.types import DTYPE_OF, TensorType
from distort.kernels.compiler.objects import code_version
from distort.kernels.compiler.specialise import FeedType

#: graphs that are noted
_MOST_NOTES = 1024
#: how many samples there are where that is all that a graph leaves open
_BATCH = 1
#: stands for any other size: weights of products are packed alike for all
_SIZE = 16
#: operators whose weights lie as the sizes of what they get want it
_BY_SIZE = frozenset(["Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "NhwcConv"])


@dataclass(frozen=True, slots=True)
class Likely:
    feeds: list[FeedType]
    #: runs will have just these
    is_exact: bool
    #: but for the number of samples they will, which is taken to be 1
    is_close: bool


class Note:
    """On disk: that a graph was compiled for such feeds, so that the object cache has its kernels."""

    def __init__(self, graph: Graph, likely: Likely, *about: object) -> None:
        """``about``: what else kernels depend on."""
        feeds = [None if feed is None else (str(feed[0]), feed[1]) for feed in likely.feeds]
        named = f"{code_version()} {feeds} {about}".encode() + outline(Model(graph, {}))
        self._path = caching.folder("compiled") / (digests.name(named) + ".note")

    def is_there(self) -> bool:
        return caching.read(self._path) is not None

    def keep(self) -> None:
        caching.keep(self._path, b"", _MOST_NOTES, 1 << 20)


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
    is_exact = is_close and all(isinstance(size, int) for shape in shapes for size in shape)
    if not is_close and any(node.op_type in _BY_SIZE for node in graph.nodes):
        return None
    size_of_others = _BATCH if is_close else _SIZE
    feeds: list[FeedType] = []
    for name in inputs:
        kind = known.get(name)
        sizes = [size if isinstance(size, int) else size_of_others for size in kind.shape or ()] if kind else []
        feeds.append((DTYPE_OF[kind.element], tuple(sizes)) if kind else None)
    return Likely(feeds, is_exact, is_close)
