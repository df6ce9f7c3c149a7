"""One file an operator family. Importing this package fills the registry."""

from __future__ import annotations

import importlib
import pkgutil


def load_all() -> None:
    """Import every family."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


load_all()
