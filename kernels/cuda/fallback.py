"""Operators whose bodies CuPy can't run, and why: they run on the CPU, counted and told."""

from __future__ import annotations

#: (domain, operator) -> why
REASONS: dict[tuple[str, str], str] = {}


def reason(domain: str, op_type: str) -> str | None:
    """Why an operator's body is the CPU's; None where it runs over CuPy."""
    return REASONS.get((domain, op_type))
