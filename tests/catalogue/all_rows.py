"""Imports the modules of rows, which fill the table."""

from __future__ import annotations

from . import (  # noqa: F401  # imported for their rows
    rows_backend,
    rows_binding,
    rows_construction,
    rows_feeds,
    rows_globals,
    rows_metadata,
    rows_options,
    rows_providers,
    rows_runs,
    rows_types,
    rows_values,
)
from .table import LEFT_OUT, ROWS

__all__ = ["LEFT_OUT", "ROWS"]
