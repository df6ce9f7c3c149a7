"""Where plans and the sources of kernels are written, for people who look into them."""

from __future__ import annotations

import os
from pathlib import Path

#: of the environment: a folder
VARIABLE = "DISTORT_DUMP"


def folder() -> Path | None:
    """The folder that the environment names; None where it names none."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


__all__ = ["VARIABLE", "folder"]
