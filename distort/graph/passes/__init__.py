"""Graph optimization: passes by level, run until nothing changes.

``basic``: constants lifted and folded, shapes that are known made constant, branches that are decided inlined,
nodes that do nothing and dead code removed, items of sequences read themselves, chains merged, common
subexpressions shared. ``extended`` and above: batch normalization folded into convolutions, biases into Gemm.
``layout`` and ``all`` add nothing: kernels choose their own layout.
"""

from __future__ import annotations

from collections.abc import Callable

from distort.graph.inference import InferenceFailed, inferred_types
from distort.graph.ir import Graph, Model

from . import branches, chains, cleanup, constants, convolution, gemm, sequences, shapes
from .context import Context, Evaluate

Pass = Callable[[Graph, Context], int]

LEVELS = ("disable", "basic", "extended", "layout", "all")
_FOLDING = frozenset({"ConstantFolding"})
_NOTHING = frozenset(
    (
        "EliminateIdentity",
        "EliminateSlice",
        "UnsqueezeElimination",
        "EliminateDropout",
        "ExpandElimination",
        "CastElimination",
        "CastChainElimination",
        "NoopElimination",
    )
)
#: what a pass does, the pass, and onnxruntime's names of what does it there: one disabled, and the pass doesn't run
_BASIC: tuple[tuple[str, Pass, frozenset[str]], ...] = (
    ("constants lifted", constants.lift, frozenset()),
    ("nodes that do nothing removed", cleanup.remove_identities, _NOTHING),
    ("shapes folded", shapes.fold_shapes, _FOLDING | {"PreShapeNodeElimination"}),
    ("nodes folded", constants.fold, _FOLDING),
    ("branches inlined", branches.inline_branches, _FOLDING),
    ("transposes merged", chains.merge_transposes, frozenset({"TransposeOptimizer"})),
    ("reshapes merged", chains.merge_reshapes, frozenset({"ReshapeFusion"})),
    ("columns read where they come from", chains.read_columns, frozenset()),
    ("labels gathered", chains.gather_labels, frozenset()),
    ("items of sequences read where they come from", sequences.read_items, frozenset()),
    ("duplicates removed", cleanup.remove_duplicates, frozenset({"CommonSubexpressionElimination"})),
    ("dead nodes removed", cleanup.remove_dead, frozenset()),
)
#: operators that a pass does something about once types are known
_NEED_TYPES = frozenset(
    ("Shape", "Size", "Cast", "Reshape", "Expand", "Flatten", "MatMul", "Mul", "Div", "Add", "Sub", "SplitToSequence")
)
_EXTENDED: tuple[tuple[str, Pass, frozenset[str]], ...] = (
    (
        "batch normalizations folded into convolutions",
        convolution.fold_batch_normalization,
        frozenset({"ConvBNFusion", "ConvMulFusion", "ConvAddFusion"}),
    ),
    ("biases merged into Gemm", gemm.merge_bias, frozenset({"GemmSumFusion", "MatMulAddFusion"})),
)
#: each round removes at least one node; models settle in two or three
_MAX_ROUNDS = 10


def optimize(
    model: Model,
    level: str,
    evaluate: Evaluate,
    disabled: frozenset[str] = frozenset(),
    fold_nbytes: int | None = None,
) -> list[str]:
    """Run the passes of ``level`` on the model in place, without those that do what ``disabled`` names.

    Returns what changed, for people.
    """
    if level not in LEVELS:
        raise ValueError(f"unknown optimization level {level!r}; there are {', '.join(LEVELS)}")
    if level == "disable":
        return []
    known = _BASIC if level == "basic" else _BASIC + _EXTENDED
    passes = tuple((what, run) for what, run, names in known if not names & disabled)
    context = Context(evaluate, fold_nbytes=fold_nbytes)
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
    n_idle = 0  # passes since something was changed
    for what, run in passes * _MAX_ROUNDS:
        n_idle = 0 if context.count(what, run(graph, context)) else n_idle + 1
        if n_idle == len(passes):
            break
    for node in graph.nodes:
        for body in node.subgraphs():
            inner = Context(
                context.evaluate, context.constants(graph), {}, context.changes, fold_nbytes=context.fold_nbytes
            )
            _run(body, passes, inner)
    cleanup.remove_dead(graph, context)  # what only the bodies read before


__all__ = ["LEVELS", "optimize"]
