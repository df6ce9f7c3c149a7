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


class StaleResident(ClusterError):
    """A value that lived on an actor that is gone, or was released."""


class DeadlineExceeded(ClusterError):
    """``distort.timeout_s`` passed before the run ended."""


class SessionClosed(ClusterError):
    """The session was closed."""
