"""Where arrays lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.kernels.compiler.addresses import address_of


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(3, np.float32),
        np.zeros((4, 5), np.int64)[1:, 2:],
        np.zeros(()),
        np.zeros(0),
        np.frombuffer(b"abcdef", np.uint8),
    ],
)
def test_addresses_are_those_that_numpy_tells(array: np.ndarray[Any, Any]) -> None:
    assert address_of(array) == array.__array_interface__["data"][0]
