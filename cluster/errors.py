"""Errors of the cluster layer. The facade gives them onnxruntime's class and prefix."""

from __future__ import annotations


class ClusterError(Exception):
    """Actors, or the cluster that they live on, can't do what was asked."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class AddressError(ClusterError):
    """No cluster answers at ``distort.address``."""


class StageLost(ClusterError):
    """The actor of a stage died, or can't be reached."""


class SenderLost(StageLost):
    """A value can't come from the unit that has it."""

    def __init__(self, text: str, unit: int) -> None:
        super().__init__(text)
        self.unit = unit

    def __reduce__(self) -> tuple[type[SenderLost], tuple[str, int]]:
        return type(self), (self.text, self.unit)


class StaleResident(ClusterError):
    """A value that lived on an actor that is gone, or was released."""


class DeadlineExceeded(ClusterError):
    """``distort.timeout_s`` passed before the run ended."""


class SessionClosed(ClusterError):
    """The session was closed."""


class Forked(ClusterError):
    """A connection to Ray doesn't survive a fork."""

    def __init__(self, pid: int) -> None:
        super().__init__(
            f"The connection to the actors belongs to process {pid}, which this one was forked from. Make parallel "
            "sessions after the fork, in a process that made none before, or start processes by 'spawn': sessions "
            "can be pickled."
        )


def first_line(error: BaseException) -> str:
    """What an error says, without what Ray adds to it."""
    return str(error).strip().split("\n", 1)[0]
