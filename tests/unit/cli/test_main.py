"""The command as a whole: exit codes, plain text, files that are whole or not there."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import distort as package
from distort.cli import COMMANDS, console, inspect
from distort.graph import atomic

from .conftest import Ran

Distort = Callable[..., Ran]


def test_version(distort: Distort) -> None:
    assert distort("--version") == Ran(0, f"distort {package.__version__}\n", "")


def test_help_names_every_command(distort: Distort) -> None:
    out = distort("--help").out
    assert all(f"\n    {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("arguments", [(), ("fly",), ("run",), ("plan", "m.onnx", "--acto", "2")])
def test_usage_errors_exit_with_2(distort: Distort, arguments: tuple[str, ...]) -> None:
    ran = distort(*arguments)
    assert ran.code == 2 and ran.out == "" and "usage: distort" in ran.err


def test_interrupted(distort: Distort, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "inspect", interrupt)
    assert distort("inspect", "m.onnx") == Ran(130, "", "distort inspect: interrupted\n")


def test_errors_are_one_line_without_control_characters(distort: Distort, tmp_path: Path) -> None:
    ran = distort("inspect", str(tmp_path / "a\x1b[31m\nb.onnx"))
    assert ran.code == 1
    assert "\x1b" not in ran.err and ran.err.count("\n") == 1


def test_as_a_program(write_model: Callable[..., str]) -> None:
    """One real process: the entry module, a pipe for stdout, an encoding without arrows."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "distort.cli", "plan", write_model(), "--actors", "2"]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"stage0 \\u2192 caller" in done.stdout and b"\x1b" not in done.stdout


@pytest.mark.parametrize(("environment", "styled"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_terminals_get_styles_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], environment: dict[str, str], styled: bool
) -> None:
    for name, value in {"TERM": "xterm", "NO_COLOR": "", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    screen = console.Screen()
    screen.heading("Inputs")
    screen.table(("name", "n"), [("[bold]x[/] :smile:", "1")], frozenset({1}))
    out = capsys.readouterr().out
    assert ("\x1b[" in out) is styled
    assert "[bold]x[/] :smile:" in out


def test_what_cannot_be_printed_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    console.Screen().table(("name",), [("a\x1b[2J\nb",)])
    assert capsys.readouterr().out.splitlines() == ["name", "-----------", r"a\x1b[2J\nb"]


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    target, link = tmp_path / "out", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    with atomic.writing(link) as file:
        file.write(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new" and link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic.writing(target) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_what_is_no_regular_file_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with atomic.writing(pipe) as file:
            file.write(b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
