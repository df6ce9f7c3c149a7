"""One file an operator family. The registry imports a family when one of its operators is first looked for."""

from __future__ import annotations

import importlib

_NO_FAMILY = frozenset({"__main__", "index"})


def families() -> list[str]:
    """Names of the modules here that hold kernels."""
    import pkgutil

    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_FAMILY)


def load_all() -> None:
    """Import every family."""
    for name in families():
        importlib.import_module(f"{__name__}.{name}")
