"""Work that makes thousands of objects, which stay, without Python's collector of cycles looking at all each time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """What is made within counts as old at the end: what can be garbage in it is found by the next full collection."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # else these two would bring back what somebody has taken out
            gc.freeze()
            gc.unfreeze()
        gc.enable()


__all__ = ["uncollected"]
