"""``set_seed``: nodes that draw random numbers without a seed of their own get one, on whatever actor they run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from distort.graph.ir import Graph, Model, Node

#: operator -> the type of its attribute ``seed``
_SEED_TYPES = {
    **dict.fromkeys(("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"), float),
    **dict.fromkeys(("Bernoulli", "Multinomial"), float),
    "Dropout": int,
}
#: the first version of Dropout with a seed
_DROPOUT_SEEDED = 12


def seed_nodes(model: Model, seed: int) -> None:
    """Give the n-th unseeded node the seed ``seed`` + n: the same model draws the same numbers in every session."""
    for offset, node in zip(itertools.count(), _unseeded(model.graph), strict=False):
        node.attributes["seed"] = _SEED_TYPES[node.op_type]((seed + offset) & 0xFFFFFF)


def _unseeded(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        takes_seed = node.domain == "" and node.op_type in _SEED_TYPES
        if (
            takes_seed
            and (node.op_type != "Dropout" or node.opset >= _DROPOUT_SEEDED)
            and "seed" not in node.attributes
        ):
            yield node
        for body in node.subgraphs():
            yield from _unseeded(body)
