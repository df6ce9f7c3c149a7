"""What several subcommands take: types of arguments, and the model with the session that runs it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from distort.cli.errors import TaskFailed, UsageError

if TYPE_CHECKING:
    from distort.options import SessionOptions
    from distort.session import InferenceSession


def count(text: str) -> int:
    """A number of things, for argparse."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return number


def dimension(text: str) -> tuple[str, int]:
    """NAME=SIZE, as ``--dim`` has it. Raises UsageError."""
    name, _, size = text.rpartition("=")
    if not name or not size.isdecimal():
        raise UsageError(f"--dim {text}: write NAME=SIZE, as batch=8")
    return name, int(size)


def add_session(parser: argparse.ArgumentParser) -> None:
    """The model, feeds, and what :func:`session_options` reads."""
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    parser.add_argument("--input", action="append", default=[], metavar="[NAME=]FILE", help="a feed; may be repeated")
    parser.add_argument(
        "--parallel", type=count, metavar="N", help="cut the model into stages on N actors (0: as many as pay)"
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="with --parallel: a running Ray cluster; `auto` is this machine's"
    )


def session_options(arguments: argparse.Namespace) -> SessionOptions:
    """Of a session with its actors there. Raises UsageError for arguments that don't go together."""
    from distort.enums import ExecutionMode
    from distort.options import SessionOptions

    if arguments.address is not None and arguments.parallel is None:
        raise UsageError("--address goes with --parallel")
    options = SessionOptions()
    if arguments.parallel is not None:
        options.execution_mode = ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = arguments.parallel
        options.add_session_config_entry("distort.start", "wait")
    if arguments.address:
        options.add_session_config_entry("distort.address", arguments.address)
    return options


def open_session(model: str, options: SessionOptions) -> InferenceSession:
    """A session. Raises TaskFailed where no plan can be made."""
    from distort.session import InferenceSession

    try:
        return InferenceSession(model, options)
    except ValueError as error:  # a plan that can't be made
        raise TaskFailed(str(error)) from error
