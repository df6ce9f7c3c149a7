"""The compiler's own errors are not to be gone around."""

from __future__ import annotations

import pytest

from distort.kernels.compiler import program


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "STRICT", True)
