"""How a command ends other than well: one clear line on stderr, and an exit code."""

from __future__ import annotations

#: exit codes
OK, FAILED, USAGE = 0, 1, 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
PIPE_CLOSED = 141  # 128 + SIGPIPE


class UsageError(Exception):
    """Arguments that make no sense for this model or machine; found after argparse was content."""


class TaskFailed(Exception):
    """The command was understood and could not be done."""
