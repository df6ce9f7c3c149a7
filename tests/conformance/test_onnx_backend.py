"""ONNX's backend test suite, through our backend: a session a case, plain arrays in and out.

``expected_failures.txt`` names the cases left out: random by the standard's own word, without a seed that fixes them.
"""

from __future__ import annotations

import re
import unittest
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx.backend.test
import pytest

import distort.backend

EXPECTED_FAILURES = Path(__file__).with_name("expected_failures.txt").read_text().split()


class Suite(onnx.backend.test.BackendTest):
    """The suite, comparing sequences item by item (its own comparison iterates over the items, 0-d ones too)."""

    @classmethod
    def assert_similar_outputs(
        cls, ref_outputs: Sequence[Any], outputs: Sequence[Any], rtol: float, atol: float, model_dir: str | None = None
    ) -> None:
        assert len(outputs) == len(ref_outputs)
        for want, got in zip(ref_outputs, outputs, strict=True):
            if isinstance(want, (list, tuple)):
                assert isinstance(got, list), f"a sequence is expected, not {type(got)}"
                cls.assert_similar_outputs(want, got, rtol, atol, model_dir)
            elif want is None:
                assert got is None
            else:
                assert isinstance(got, np.ndarray), f"an array is expected, not {type(got)}"
                super().assert_similar_outputs([np.asarray(want)], [got], rtol, atol, model_dir)


def _suite() -> dict[str, type[unittest.TestCase]]:
    """The suite's classes with its CPU cases; others would be skipped one by one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases' expected values overflow on purpose when they are made
        suite = Suite(distort.backend, __name__)
        for name in EXPECTED_FAILURES:
            suite.exclude(f"^{re.escape(name)}$")
        classes = suite.test_cases
    return {
        name: type(
            name,
            (unittest.TestCase,),
            {case: getattr(cls, case) for case in dir(cls) if case.startswith("test_") and case.endswith("_cpu")},
        )
        for name, cls in classes.items()
    }


@pytest.fixture(autouse=True, scope="module")
def models_in_a_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The suite makes folders for models that it downloads; none is, but the folders stay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNX_MODELS", str(tmp_path_factory.mktemp("models")))
        yield


pytestmark = pytest.mark.filterwarnings("ignore")  # what onnx warns of while it reads its own cases
globals().update(_suite())


def test_only_the_random_cases_are_left_out() -> None:
    assert len(EXPECTED_FAILURES) == 6
    assert all("bernoulli" in name for name in EXPECTED_FAILURES)


def test_every_case_is_here() -> None:
    """onnx 1.23 has 2033 cases; versions before and after it have others."""
    cases = [name for cls in _suite().values() for name in dir(cls) if name.startswith("test_")]
    if not onnx.__version__.startswith("1.23."):
        pytest.skip(f"onnx {onnx.__version__} has other cases")
    assert len(cases) == 2033
