"""Which kernel: a family, and the parameters that its code is made for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from distort.graph import digests

_CODEGEN = "distort.kernels.compiler.codegen"
#: family -> where its emitter is: ``emit(function, target, *parameters)`` prints the kernel's body
FAMILIES: dict[str, str] = {
    "conv": f"{_CODEGEN}.conv:emit_conv",
    "depthwise": f"{_CODEGEN}.depthwise:emit_depthwise",
    "pool": f"{_CODEGEN}.pooling:emit_pool",
    "places": f"{_CODEGEN}.places:emit_places",
    "global_pool": f"{_CODEGEN}.pooling:emit_global_pool",
    "winograd": f"{_CODEGEN}.winograd:emit_winograd",
    "join": f"{_CODEGEN}.joining:emit_join",
    "reorder": f"{_CODEGEN}.reorder:emit_reorder",
    "map": f"{_CODEGEN}.maps:emit_map",
    "turned": f"{_CODEGEN}.turned:emit_turned",
    "gemm": f"{_CODEGEN}.gemm:emit_gemm",
    "gemm_bf16": f"{_CODEGEN}.gemm_bf16:emit_gemm_bf16",
    "resize_nearest": f"{_CODEGEN}.resize:emit_nearest",
    "resize_linear": f"{_CODEGEN}.resize:emit_linear",
    "resize_blend": f"{_CODEGEN}.resize:emit_blend",
    "resize_pixels": f"{_CODEGEN}.resize:emit_pixels",
    "squares": f"{_CODEGEN}.transposition:emit_squares",
    "interleaved": f"{_CODEGEN}.transposition:emit_interleaved",
    "reversed": f"{_CODEGEN}.gather:emit_reversed",
    "roi_align": f"{_CODEGEN}.regions:emit_roi_align",
    "max_roi_pool": f"{_CODEGEN}.regions:emit_max_roi_pool",
    "fold": f"{_CODEGEN}.folding:emit_fold",
    "grid_sample": f"{_CODEGEN}.sampling:emit_grid_sample",
    "gather_rows": f"{_CODEGEN}.gather:emit_rows",
    "gather_elements": f"{_CODEGEN}.gather:emit_elements",
    "top": f"{_CODEGEN}.selection:emit_top",
    "suppression": f"{_CODEGEN}.suppression:emit_suppression",
    "selected": f"{_CODEGEN}.suppression:emit_selected",
    "rotary": f"{_CODEGEN}.rotary:emit_rotary",
    "running": f"{_CODEGEN}.running:emit_running",
    "scatter_rows": f"{_CODEGEN}.scatter:emit_rows",
    "scatter_elements": f"{_CODEGEN}.scatter:emit_elements",
    "quantized": f"{_CODEGEN}.quantized:emit_product",
    "recurrent_inputs": f"{_CODEGEN}.recurrent:emit_inputs",
    "copy_by_round": f"{_CODEGEN}.rounds:emit_copy",
    "refuse": f"{_CODEGEN}.rounds:emit_refuse",
    "expect_rounds": f"{_CODEGEN}.rounds:emit_expect",
    "recurrent_cell": f"{_CODEGEN}.recurrent:emit_cell",
    "cache": f"{_CODEGEN}.caches:emit_cache",
    "attention": f"{_CODEGEN}.attention:emit_attention",
    "rows": f"{_CODEGEN}.rows:emit_rows",
    "columns": f"{_CODEGEN}.reductions:emit_columns",
    "quantized_conv": f"{_CODEGEN}.quantized_conv:emit_conv",
    "quantized_depthwise": f"{_CODEGEN}.quantized_depthwise:emit_depthwise",
    "interleave": f"{_CODEGEN}.interleave:emit_interleave",
    "nbits": f"{_CODEGEN}.nbits:emit_nbits",
    "nbits_bytes": f"{_CODEGEN}.nbits_bytes:emit_nbits_bytes",
    "lookup": f"{_CODEGEN}.lookups:emit_lookup",
    "find": f"{_CODEGEN}.lookups:emit_find",
    "trees": f"{_CODEGEN}.trees:emit_trees",
    "scores_softmax": f"{_CODEGEN}.trees:emit_softmax",
    "labels": f"{_CODEGEN}.trees:emit_labels",
    "couplings": f"{_CODEGEN}.couplings:emit_couplings",
    "expect_ones": f"{_CODEGEN}.couplings:emit_expect_ones",
    "counting": f"{_CODEGEN}.expecting:emit_counting",
    "nonzero": f"{_CODEGEN}.expecting:emit_nonzero",
    "expect_same": f"{_CODEGEN}.expecting:emit_expect_same",
    "range": f"{_CODEGEN}.quantized_elements:emit_range",
    "range_end": f"{_CODEGEN}.quantized_elements:emit_range_end",
}


@dataclass(frozen=True, slots=True)
class Key:
    """``parameters`` are numbers, text and tuples of them: what they are written as names the kernel."""

    family: str
    parameters: tuple[Any, ...]
    #: long parameters take a while to hash, and a key is looked up several times
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.family, self.parameters)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def symbol(self) -> str:
        """The kernel's name."""
        digest = digests.name(repr(self.parameters).encode())[:20]
        return f"{self.family}_{digest}"
