"""docs/gpu_operators.md says what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from distort.kernels.cuda.fallback import REASONS
from distort.kernels.cuda.table import table_text
from distort.kernels.cuda.waits import WAITS
from distort.kernels.registry import find

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "gpu_operators.md"


@pytest.mark.filterwarnings("ignore")  # what onnx warns of while it makes its cases
def test_the_table_of_operators_on_a_gpu_is_current() -> None:
    assert DOCUMENT.read_text() == table_text(), "run python -m distort.kernels.cuda.table"


@pytest.mark.parametrize("operator", sorted({*REASONS, *WAITS}))
def test_its_lists_are_of_operators_that_there_are(operator: tuple[str, str]) -> None:
    assert find(*operator, 1000) is not None
    assert not (operator in REASONS and operator in WAITS), "what runs on the CPU does not wait"
