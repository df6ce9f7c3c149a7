"""Graph optimization: passes by level, run until nothing changes.

``basic``: constants lifted and folded, shapes that are known made constant, branches that are decided inlined,
nodes that do nothing and dead code removed, chains merged, common subexpressions shared. ``extended`` and above:
batch normalization folded into convolutions, biases into Gemm. ``layout`` and ``all`` add nothing: kernels choose
their own layout.
"""

from __future__ import annotations

from collections.abc import Callable

from distort.graph.inference import InferenceFailed, inferred_types
from distort.graph.ir import Graph, Model

from . import branches, chains, cleanup, constants, convolution, gemm, shapes
from .context import Context, Evaluate

Pass = Callable[[Graph, Context], int]

LEVELS = ("disable", "basic", "extended", "layout", "all")
_BASIC: tuple[tuple[str, Pass], ...] = (
    ("constants lifted", constants.lift),
    ("nodes that do nothing removed", cleanup.remove_identities),
    ("shapes folded", shapes.fold_shapes),
    ("nodes folded", constants.fold),
    ("branches inlined", branches.inline_branches),
    ("transposes merged", chains.merge_transposes),
    ("reshapes merged", chains.merge_reshapes),
    ("duplicates removed", cleanup.remove_duplicates),
    ("dead nodes removed", cleanup.remove_dead),
)
#: operators that a pass does something about once types are known
_NEED_TYPES = frozenset(("Shape", "Size", "Cast", "Reshape", "Expand", "Flatten", "MatMul", "Mul", "Div", "Add", "Sub"))
_EXTENDED: tuple[tuple[str, Pass], ...] = (
    ("batch normalizations folded into convolutions", convolution.fold_batch_normalization),
    ("biases merged into Gemm", gemm.merge_bias),
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
    if any(node.op_type in _NEED_TYPES for node in graph.nodes):
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
