"""The table of the GPU's own lowerings."""

from __future__ import annotations

from importlib import import_module

import pytest

from distort.kernels.cuda import lower


@pytest.mark.parametrize(("domain", "module"), lower.OPERATORS)
def test_the_table_is_what_modules_register(domain: str, module: str) -> None:
    found = import_module(f"{lower.__name__}.{module}")
    registered = {
        op_type
        for (own, op_type), function in lower.LOWERINGS.items()
        if own == domain and function.__module__ == found.__name__
    }
    assert registered == set(lower.OPERATORS[domain, module].split())
