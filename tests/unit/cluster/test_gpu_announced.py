"""Values that wait for readers of other hosts: every order of what may happen to them, up to a depth."""

from __future__ import annotations

import itertools
from collections import Counter

from distort.cluster.gpu.announced import Announced

UNITS = (1, 2)
ACTIONS = (
    *(("take", unit) for unit in UNITS),
    *(("lose", unit) for unit in UNITS),
    ("forget", 5),
    ("forget", 6),
    ("cancel", 5),
    ("clear", 0),
)


def test_memory_is_let_go_once_and_never_given_out_afterwards() -> None:
    for actions in itertools.product(ACTIONS, repeat=4):
        gone: Counter[str] = Counter()
        announced: Announced[str] = Announced(lambda memory, gone=gone: gone.update([memory]))  # type: ignore[misc]
        key = announced.add(5, "memory", UNITS)
        waiting = set(UNITS)
        for kind, number in actions:
            if kind == "take":
                found = announced.take(key, number)
                assert (found == "memory") == (number in waiting and not gone), actions
                if found is not None:
                    announced.taken(key, number)
                waiting.discard(number)
            elif kind == "lose":
                announced.lose(number)
                waiting.discard(number)
            elif kind == "forget":
                announced.forget_before(number)
                waiting -= set(UNITS) if number > 5 else set()
            elif kind == "cancel":
                announced.cancel(number)
                waiting.clear()
            else:
                announced.clear()
                waiting.clear()
            assert bool(gone) == (not waiting) == (len(announced) == 0), actions
        assert gone["memory"] <= 1


def test_keys_are_never_used_again_and_runs_are_apart() -> None:
    gone: list[str] = []
    announced: Announced[str] = Announced(gone.append)
    keys = [announced.add(run, f"of {run}", [1]) for run in (3, 4, 5)]
    assert len(set(keys)) == 3
    announced.forget_before(4)
    assert gone == ["of 3"] and announced.take(keys[0], 1) is None
    assert announced.take(keys[1], 7) is None and announced.take(keys[1], 1) == "of 4"
    announced.cancel(5)
    assert gone == ["of 3", "of 5"] and announced.add(6, "of 6", [1]) not in keys
