"""Graph optimization: passes by level, run until nothing changes.

``basic``: constants lifted and folded, identities and dead code removed, transposes merged, common subexpressions
shared. ``extended`` and above: batch normalization folded into convolutions.
"""

from __future__ import annotations

from collections.abc import Callable

from distort.graph.inference import InferenceFailed, inferred_types
from distort.graph.ir import Graph, Model

from . import cleanup, constants, convolution
from .context import Context, Evaluate

Pass = Callable[[Graph, Context], int]

LEVELS = ("disable", "basic", "extended", "layout", "all")
_BASIC: tuple[tuple[str, Pass], ...] = (
    ("constants lifted", constants.lift),
    ("identities removed", cleanup.remove_identities),
    ("nodes folded", constants.fold),
    ("transposes merged", cleanup.merge_transposes),
    ("duplicates removed", cleanup.remove_duplicates),
    ("dead nodes removed", cleanup.remove_dead),
)
_EXTENDED: tuple[tuple[str, Pass], ...] = (
    ("batch normalizations folded into convolutions", convolution.fold_batch_normalization),
)
#: each round removes at least one node; models settle in two or three
_MAX_ROUNDS = 10


def optimize(model: Model, level: str, evaluate: Evaluate) -> list[str]:
    """Run the passes of ``level`` on the model in place. Returns what changed, for people."""
    if level not in LEVELS:
        raise ValueError(f"unknown optimization level {level!r}; there are {', '.join(LEVELS)}")
    if level == "disable":
        return []
    passes = _BASIC if level == "basic" else _BASIC + _EXTENDED
    context = Context(evaluate)
    graph = model.graph
    context.count("constants lifted", constants.lift(graph, context))
    if any(node.op_type in ("Shape", "Size", "Cast") for node in graph.nodes):
        try:
            context.types = {**inferred_types(model), **{name: graph.types[name] for name in graph.inputs}}
        except (InferenceFailed, KeyError):
            context.types = {}
    _run(graph, passes, context)
    return [f"{n} {what}" for what, n in context.changes.items()]


def _run(graph: Graph, passes: tuple[tuple[str, Pass], ...], context: Context) -> None:
    for _ in range(_MAX_ROUNDS):
        changed = 0
        for what, run in passes:
            changed += context.count(what, run(graph, context))
        if not changed:
            break
    for node in graph.nodes:
        for body in node.subgraphs():
            inner = Context(context.evaluate, context.constants(graph), {}, context.changes)
            _run(body, passes, inner)
    cleanup.remove_dead(graph, context)  # what only the bodies read before


__all__ = ["LEVELS", "optimize"]
