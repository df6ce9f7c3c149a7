"""Transcendental functions as LLVM IR: polynomials on vectors, to 4 ulp."""

from __future__ import annotations

from distort.kernels.compiler.codegen.elements import Emitter

OPERATORS: dict[str, Emitter] = {}
