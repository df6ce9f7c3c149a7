"""Tensor operations as CUDA C: each kind of operation has a printer, from which launches come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distort.kernels.compiler.ir import Operation
from distort.kernels.cuda.launch import Launch

Printer = Callable[[Any], list[Launch]]


def launches(operation: Operation) -> list[Launch] | None:
    """The kernels that do an operation, in order; None where no CUDA C is printed for its kind."""
    printer = printer_of(operation.kind)
    return None if printer is None else printer(operation)


def printer_of(kind: str) -> Printer | None:
    """By an operation's kind; modules are imported when a plan has one of theirs."""
    if kind == "map":
        from distort.kernels.cuda.codegen.maps import map_launches

        return map_launches
    if kind == "rows":
        from distort.kernels.cuda.codegen.rows import row_launches

        return row_launches
    return None


__all__ = ["Printer", "launches", "printer_of"]
