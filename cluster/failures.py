"""Why a run failed, as the exception that its caller gets."""

from __future__ import annotations

from distort.cluster.errors import ClusterError, DeadlineExceeded, SenderLost, SessionClosed, StageLost
from distort.cluster.run import Run
from distort.kernels.errors import RunCancelled
from distort.kernels.program import TERMINATED
from distort.scheduler.events import Fail


def error_of(fail: Fail, run: Run | None, *, is_gone: bool) -> BaseException:
    """``run``: None where the session was closed; ``is_gone``: no actor takes the place of the stage to blame."""
    if run is None:
        return SessionClosed("The session was closed during the run.")
    cause = run.errors.get(fail.stage) if fail.stage is not None else None
    if cause is None and run.errors:
        cause = next(iter(run.errors.values()))
    if fail.kind == "cancelled":
        return RunCancelled(TERMINATED)
    if fail.kind == "deadline":
        return DeadlineExceeded(f"The run did not end within its deadline (distort.timeout_s): {fail.error}")
    if fail.kind == "lost":
        assert fail.stage is not None, "somebody was lost"
        if isinstance(cause, SenderLost):  # nobody was, but the way to somebody
            return cause
        outlook = "Open the session anew." if is_gone else "It is being restarted; run again."
        return _caused(
            StageLost(f"The actor of stage {fail.stage} was lost while a run needed it: {fail.error}. {outlook}"), cause
        )
    if cause is None:
        return ClusterError(fail.error)
    if type(cause).__module__.startswith("ray."):  # what Ray says of an actor's end is no answer to a caller
        return _caused(StageLost(fail.error), cause)
    return cause


def _caused(error: StageLost, cause: BaseException | None) -> StageLost:
    error.__cause__ = cause
    return error


__all__ = ["error_of"]
