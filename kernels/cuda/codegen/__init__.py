"""Tensor operations as CUDA C: each kind of operation has a printer, from which launches come."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from distort.kernels.compiler.ir import Operation
from distort.kernels.cuda.launch import Launch

Printer = Callable[[Any], list[Launch]]


def launches(operation: Operation) -> list[Launch] | None:
    """The kernels that do an operation, in order; None where no CUDA C is printed for its kind."""
    printer = printer_of(operation.kind)
    return None if printer is None else printer(operation)


#: kind -> module, function
_PRINTERS = {
    "native": ("natives", "native_launches"),
    "map": ("maps", "map_launches"),
    "rows": ("rows", "row_launches"),
    "cuda_byte_conv": ("byte_windows", "byte_conv_launches"),
    "cuda_cells": ("recurrent", "cell_launches"),
    "cuda_expect": ("expecting", "expect_launches"),
    "cuda_gather": ("gathering", "gather_launches"),
    "cuda_n_bits": ("nbits", "n_bits_launches"),
    "cuda_patches": ("byte_windows", "patches_launches"),
    "cuda_places": ("expecting", "places_launches"),
    "cuda_pool": ("pooling", "pool_launches"),
    "cuda_resize": ("resizing", "resize_launches"),
    "cuda_sample": ("sampling", "sample_launches"),
    "cuda_scan": ("scans", "scan_launches"),
    "cuda_scatter": ("scattering", "scatter_launches"),
    "cuda_selected": ("suppression", "selected_launches"),
    "cuda_suppress": ("suppression", "suppress_launches"),
    "cuda_unpack": ("nbits", "unpack_launches"),
    "cuda_top_k": ("selection", "top_k_launches"),
}


def printer_of(kind: str) -> Printer | None:
    """By an operation's kind; modules are imported when a plan has one of theirs."""
    if kind not in _PRINTERS:
        return None
    module, function = _PRINTERS[kind]
    found: Printer = getattr(import_module(f"{__name__}.{module}"), function)
    return found


def prints(operation: Operation) -> bool:
    """Whether CUDA C is printed for an operation."""
    if operation.kind == "native":
        from distort.kernels.cuda.codegen.natives import has_twins

        return has_twins(operation)
    return printer_of(operation.kind) is not None


__all__ = ["Printer", "launches", "printer_of", "prints"]
