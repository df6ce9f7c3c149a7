"""Which module lowers which operator, and what a session imports for them."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest

from distort.kernels.compiler import lower
from distort.kernels.compiler.builder import LOWERINGS, lowering_of, lowers


def test_the_table_is_what_modules_register() -> None:
    """Whoever registers an operator writes it into ``lower.OPERATORS`` too."""
    for module in pkgutil.iter_modules(lower.__path__, f"{lower.__name__}."):
        import_module(module.name)
    registered = {name: function.__module__.rsplit(".", 1)[1] for name, function in LOWERINGS.items()}
    assert registered == lower.HOME


def test_an_operator_brings_its_module() -> None:
    found = lowering_of("", "Softmax")
    assert found is not None and found.__module__ == f"{lower.__name__}.rows"
    assert lowering_of("", "NonZero") is None


def test_two_lowerings_of_an_operator_are_refused() -> None:
    lowering_of("", "Softmax")
    with pytest.raises(ValueError, match=r"two lowerings of ai\.onnx:Softmax"):
        lowers("Softmax")(lambda builder, node, inputs: None)
