"""Libraries of kernels for several processors; the compiler's own errors are not to be gone around."""

from __future__ import annotations

import platform

import pytest

from distort.kernels.compiler import program
from distort.kernels.compiler.library import Library

from .comparing import limited


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "STRICT", True)


@pytest.fixture(scope="module", params=["", "avx2", "sse4.2"])
def library(request: pytest.FixtureRequest) -> Library:
    """Of this processor, and of others that it can stand for."""
    if not request.param:
        return Library()
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("another machine")
    return limited(request.param)
