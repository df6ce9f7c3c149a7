"""The ``distort`` command: one module a subcommand, each imported when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TextIO

from distort import __version__
from distort.cli.errors import FAILED, INTERRUPTED, PIPE_CLOSED, USAGE, TaskFailed, UsageError

#: each has ``add_arguments(parser)``, ``run(arguments) -> exit code`` and a docstring whose first line is its help
COMMANDS = ("demo", "run", "inspect", "plan", "bench", "top", "cluster", "doctor")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distort",
        description="ONNX Runtime's Python API on an actor runtime.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"distort {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"distort.cli.{name}")
        summary, _, details = (module.__doc__ or "").partition("\n")
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary}\n{details}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of ``argv`` (None: the program's). Returns the exit code; argparse itself exits with 2."""
    for stream in (sys.stdout, sys.stderr):
        _encodable(stream)
    arguments = make_parser().parse_args(argv)
    try:
        code = int(arguments.run(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _end(arguments.command, "interrupted", INTERRUPTED)
    except BrokenPipeError:
        # the reader has gone; keep the interpreter's last flush from raising again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except UsageError as error:
        return _end(arguments.command, str(error), USAGE)
    except _failures() as error:
        return _end(arguments.command, _text(error), FAILED)
    return code


def _encodable(stream: TextIO) -> None:
    """Let a stream write what its encoding lacks as escapes, rather than fail in the middle of a table."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and not (stream.encoding or "").lower().startswith("utf"):
        reconfigure(errors="backslashreplace")


def _failures() -> tuple[type[BaseException], ...]:
    from distort.cluster.errors import ClusterError
    from distort.errors import STATUS_CLASSES

    return (TaskFailed, ClusterError, *STATUS_CLASSES, OSError, MemoryError, ImportError)


def _text(error: BaseException) -> str:
    from distort.errors import text_of

    if isinstance(error, MemoryError):
        return f"not enough memory. {error}"
    if isinstance(error, ImportError):
        return f"{error}. `distort doctor` says what is missing."
    return text_of(error)


def _end(command: str, text: str, code: int) -> int:
    from distort.cli.console import clean

    label = "" if code == INTERRUPTED else "error: "
    sys.stderr.write(f"distort {command}: {label}{clean(' '.join(text.split()))}\n")
    return code
