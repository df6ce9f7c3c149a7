"""Ensembles of trees: the lanes of a warp go down a tree each for one row, then they vote, tree by tree.

A lane has every 32nd target, so that sums are made in the CPU's order. Of few trees a thread has a row by itself. A
twin of the CPU's kernel, whose nodes and words it takes.
"""

from __future__ import annotations

from collections.abc import Sequence

from distort.kernels.compiler.codegen.trees import (
    ADD,
    ALL,
    EQUAL,
    GREATER,
    LESS,
    MINIMUM,
    MIXED,
    NAN,
    NEUTRAL,
    ONE,
    PAIR,
    TREES,
)
from distort.kernels.compiler.ir import Word
from distort.kernels.cuda.codegen.device_functions import with_helpers
from distort.kernels.cuda.codegen.dtypes import literal
from distort.kernels.cuda.codegen.grids import BLOCK
from distort.kernels.cuda.codegen.natives import Twin
from distort.kernels.cuda.launch import NAME, kernel_of

_WARP = 32
_COMPARED = {"ole": "<=", "olt": "<", "oge": ">=", "ogt": ">", "oeq": "==", "une": "!="}


def _holds(condition: str, tracks_missing: bool) -> str:
    """Whether a row goes to the second child: of ``value``, ``split`` and the node's ``last`` word."""
    if condition == MIXED:
        outcome = f"value < split ? {LESS} : value == split ? {EQUAL} : value > split ? {GREATER} : {NAN}"
        return f"split == split && (last & ({outcome})) != 0"
    holds = f"value {_COMPARED[condition]} split"
    return f"{holds} || (last != 0 && value != value && split == split)" if tracks_missing else holds


def _vote(votes: str, joined: str, flags: bool) -> str:
    """Statements: what tree ``j`` of the lanes' has for the row, its leaf's last word being ``leaf``."""
    flag = "flagged[row * n_targets + target] = 1; " if flags else ""
    if votes == ALL:
        weight = "weights[leaf * n_targets + target]"
        return (
            "for (long long target = lane; target < n_targets; target += lanes) "
            f"{{ const real weight = {weight}; cell = &scores[row * n_targets + target]; {joined} }}"
        )
    first, end = ("leaf", "leaf < 0 ? leaf : leaf + 1") if votes == PAIR else ("spans[2 * leaf]", "spans[2 * leaf + 1]")
    return (
        f"for (long long k = {first}, end = {end}; k < end; ++k) {{ const long long target = pairs[k].target; "
        f"if (target % lanes != lane) continue; const real weight = pairs[k].weight; "
        f"cell = &scores[row * n_targets + target]; {joined} {flag}}}"
    )


def trees(
    condition: str,
    tracks_missing: bool,
    votes: str,
    by_rows: bool,
    combined: str,
    flags: bool,
    wide: bool,
    x_element: str,
) -> Twin:
    real, whole = ("double", "long long") if wide else ("float", "int")
    way = "smaller" if combined == MINIMUM else "larger"
    total = "total + weight" if combined == ADD else f"{way}<{real}>(total, weight)"
    joined = f"{{ const real total = *cell; *cell = {total}; }}"
    parameters = ["long long n_rows", "long long unit", "long long row_nbytes", "const unsigned char* x"]
    parameters += [
        "const unsigned char* nodes",
        "long long n_groups",
        "const long long* roots",
        "const long long* levels",
    ]
    parameters += ["long long n_targets", f"{real}* scores", f"const {real}* weights", "const int* spans"]
    parameters += ["unsigned char* flagged"] if flags else []
    neutral = literal(NEUTRAL[combined], "float64" if wide else "float32")
    clear = f"scores[row * n_targets + target] = {neutral};"
    clear += " flagged[row * n_targets + target] = 0;" if flags else ""
    if votes == ONE:
        voting = f"""for (int j = 0; j < lanes; ++j) {{
                const real weight = lanes > 1 ? __shfl_sync(0xffffffffu, own.as_real, j) : own.as_real;
                if (tree + j < n_trees) so_far = {total.replace("total", "so_far")};
            }}"""
        stored = "if (lane == 0) scores[row] = so_far;"
    else:
        voting = f"""for (int j = 0; j < lanes && tree + j < n_trees; ++j) {{
                const whole leaf = lanes > 1 ? __shfl_sync(0xffffffffu, own.as_whole, j) : own.as_whole;
                real* cell;
                {_vote(votes, joined, flags)}
            }}"""
        stored = ""
    text = f"""extern "C" __global__ void __launch_bounds__({BLOCK})
{NAME}({", ".join([*parameters, "long long n_items"])}) {{
    typedef {real} real;
    typedef {whole} whole;
    struct Node {{ real split; int feature; int child; whole last; {"whole none; " if wide else ""}}};
    struct Vote {{ whole target; real weight; }};
    union Last {{ whole as_whole; real as_real; }};
    const Vote* const pairs = reinterpret_cast<const Vote*>(weights);
    const int lanes = {"1" if by_rows else f"blockDim.x < {_WARP} ? (int)blockDim.x : {_WARP}"};
    const int lane = threadIdx.x % lanes, n_warps = (int)blockDim.x / lanes;
    const long long n_trees = n_groups * {1 if by_rows else TREES};
    const long long step = (long long)gridDim.x * n_warps;
    for (long long first = (long long)blockIdx.x * n_warps; first < n_rows; first += step) {{
        const long long row = first + threadIdx.x / lanes;
        // all lanes of a warp have the same row
        if (row >= n_rows) continue;
        const unsigned char* const values = x + row * row_nbytes;
        real so_far = {neutral};
        {"" if votes == ONE else f"for (long long target = lane; target < n_targets; target += lanes) {{ {clear} }}"}
        for (long long tree = 0; tree < n_trees; tree += lanes) {{
            long long at = tree + lane < n_trees ? roots[tree + lane] : roots[0];
            Last own;
            for (;;) {{
                const Node* const node = reinterpret_cast<const Node*>(nodes + at);
                const real split = node->split;
                const whole last = node->last;
                const real value = (real)*reinterpret_cast<const {x_element}*>(values + node->feature);
                const bool holds = {_holds(condition, tracks_missing)};
                const long long next = node->child + (holds ? (long long)sizeof(Node) : 0ll);
                own.as_whole = last;
                if (next == at) break;
                at = next;
            }}
            {voting}
        }}
        {stored}
    }}
}}
"""
    return Twin(kernel_of("trees", with_helpers(text)), _rows, BLOCK if by_rows else BLOCK // _WARP)


def _rows(words: Sequence[Word]) -> int:
    n_rows = words[0]
    assert isinstance(n_rows, int)
    return n_rows


__all__ = ["trees"]
