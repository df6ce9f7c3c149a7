"""Which module lowers which operator, and what a session imports for them."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import onnx.parser
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
    assert lowering_of("", "NoSuchOperator") is None


def test_two_lowerings_of_an_operator_are_refused() -> None:
    lowering_of("", "Softmax")
    with pytest.raises(ValueError, match=r"two lowerings of ai\.onnx:Softmax"):
        lowers("Softmax")(lambda builder, node, inputs: None)


_SCRIPT = """
import sys
import numpy as np
import distort
session = distort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {"x": np.ones((2, 4), np.float32)})
print(*sorted(name for name in sys.modules if name.startswith("distort.kernels.")))
"""
_MODEL = """<ir_version: 9, opset_import: ["" : 17]>
g (float[N,4] x) => (float[N,4] y) <float[4,4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}> {
  a = MatMul (x, w) y = Relu (a)
}"""


def test_a_small_model_imports_little(tmp_path: Path) -> None:
    """What comes with the package, and no more: not what is for attention, recurrent layers, bytes and trees."""
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(_MODEL), path)
    environment = {**os.environ, "DISTORT_CACHE_DIR": str(tmp_path / "cache")}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(path)], check=True, capture_output=True, text=True, env=environment
        )
    of_compiler = {name.removeprefix("distort.kernels.compiler.") for name in done.stdout.split()}
    lowerings = {name for name in of_compiler if name.startswith("lower.")}
    begun = subprocess.run(
        [sys.executable, "-c", "import sys, distort; print(*sys.modules)"], check=True, capture_output=True, text=True
    )
    assert {f"distort.kernels.compiler.{name}" for name in lowerings} <= set(begun.stdout.split())
    assert not lowerings & {"lower.attention", "lower.recurrent", "lower.quantization", "lower.trees", "lower.resizing"}
    assert not of_compiler & {"quantized", "attention", "attending", "trees", "nbits", "dump"}
