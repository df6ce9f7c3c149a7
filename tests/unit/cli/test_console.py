"""What is drawn while people wait."""

from __future__ import annotations

import io
import sys

import pytest

from distort.cli import console
from distort.kernels.compiler.library import shared


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_tells_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with console.compiling("loading"):
        watch = shared().watch
        assert watch is not None
        watch(3, 7)
    assert "compiling kernels, 3 of 7" in screen.getvalue()
    assert shared().watch is None


def test_nothing_is_drawn_or_watched_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with console.compiling("loading"):
        assert shared().watch is None
    assert not sys.stderr.getvalue()  # type: ignore[attr-defined]
