"""What two processes share of a device slot, and when what a GPU reads is released. Without a GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from distort.cluster.gpu.page import FIRST_NUMBER, Handles, OwnedPage, ReadPage
from distort.cluster.gpu.releases import Releases
from distort.cluster.shm.slots import map_slot

HANDLES = Handles(bytes(range(64)), bytes(range(64, 128)), 6 << 20, "0000:C1:00.0")


def test_a_page_tells_the_handles_and_each_side_sees_the_others_flag() -> None:
    owned = OwnedPage(FIRST_NUMBER, HANDLES)
    read = ReadPage(map_slot(os.dup(owned.fd), owned.capacity))
    assert read.handles == HANDLES
    assert not owned.reading and not owned.mapped and not read.reading
    owned.reading = True
    assert read.reading
    read.mapped = True
    assert owned.mapped
    read.release()
    assert not owned.reading and owned.mapped
    read.mapped = False
    assert not owned.mapped
    owned.close()
    assert not read.reading  # the reader's mapping is its own


def test_pages_leave_no_descriptors() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        OwnedPage(FIRST_NUMBER, HANDLES).close()
    assert len(os.listdir("/proc/self/fd")) == before


@dataclass
class Event:
    done: bool = False


class Reading:
    def __init__(self) -> None:
        self.n_released = 0

    def release(self) -> None:
        self.n_released += 1


def test_what_is_read_is_released_once_in_the_order_of_the_stream() -> None:
    releases, events, readings = Releases(), [Event() for _ in range(3)], [Reading() for _ in range(4)]
    releases.after(events[0], readings[:2])
    releases.after(events[1], [])  # nothing to wait for
    releases.after(events[1], readings[2:3])
    releases.after(events[2], readings[3:])
    assert releases.poll() and not any(reading.n_released for reading in readings)
    events[1].done = True
    assert releases.poll() and not any(reading.n_released for reading in readings)
    events[0].done = True
    assert releases.poll()
    assert [reading.n_released for reading in readings] == [1, 1, 1, 0]
    events[2].done = True
    assert not releases.poll()
    assert [reading.n_released for reading in readings] == [1, 1, 1, 1] and len(releases) == 0


@pytest.mark.parametrize("n", [1, 5])
def test_a_list_that_is_handed_over_may_be_emptied(n: int) -> None:
    releases, readings = Releases(), [Reading() for _ in range(n)]
    given = list(readings)
    releases.after(Event(done=True), given)
    given.clear()
    releases.poll()
    assert all(reading.n_released == 1 for reading in readings)
