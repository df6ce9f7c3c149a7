"""Arrays that processes of a host make alike and keep once."""

from __future__ import annotations

import multiprocessing
import os
import threading
import uuid
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from distort.cluster.shm.pooled import Pool

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memfd here")


def other_process(name: str, pipe: Connection) -> None:
    pool = Pool(name)
    while True:
        seed = pipe.recv()
        made = pool.share(values(seed))
        pipe.send((segment_of(made), float(made.sum(dtype=np.float64))))


def values(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((300, 1000)).astype(np.float32)


def segment_of(array: npt.NDArray[np.float32]) -> int:
    """The inode of the memory that an array lies in."""
    address = array.ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, _, _, inode, *_ = line.split()
        begin, end = (int(part, 16) for part in span.split("-"))
        if begin <= address < end:
            return int(inode)
    raise AssertionError("the array is nowhere")


@pytest.fixture
def name() -> str:
    return f"distort-test-{uuid.uuid4().hex}"


@pytest.fixture
def pool(name: str) -> Iterator[Pool]:
    made = Pool(name)
    yield made
    made.close()


class Other:
    def __init__(self, name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=other_process, args=(name, theirs), daemon=True)
        with pytest.MonkeyPatch.context() as patch:  # the other process imports this module by its name
            patch.syspath_prepend(str(Path(__file__).parents[3]))
            self.process.start()

    def share(self, seed: int) -> tuple[int, float]:
        self.pipe.send(seed)
        assert self.pipe.poll(60)
        answer: tuple[int, float] = self.pipe.recv()
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


@pytest.fixture
def other(name: str) -> Iterator[Other]:
    made = Other(name)
    yield made
    made.kill()


def test_what_is_alike_is_kept_once(pool: Pool, other: Other) -> None:
    mine = pool.share(values(1))
    np.testing.assert_array_equal(mine, values(1))
    assert not mine.flags.writeable and mine.ctypes.data % 4096 == 0
    assert other.share(1) == (segment_of(mine), float(values(1).sum(dtype=np.float64)))
    # what the other one made first
    theirs, _ = other.share(2)
    assert segment_of(pool.share(values(2))) == theirs
    assert theirs != segment_of(mine)


def test_who_comes_after_the_keeper_takes_its_place(pool: Pool, other: Other, name: str) -> None:
    theirs, total = other.share(1)  # the other is the keeper
    mine = pool.share(values(1))
    assert segment_of(mine) == theirs
    other.kill()
    assert float(mine.sum(dtype=np.float64)) == total
    again = pool.share(values(3))
    np.testing.assert_array_equal(again, values(3))
    third = Other(name)
    try:
        assert third.share(3)[0] == segment_of(again)
    finally:
        third.kill()


def test_many_at_once(name: str) -> None:
    pools = [Pool(name) for _ in range(4)]
    made: list[npt.NDArray[np.float32]] = []

    def work(pool: Pool) -> None:
        made.extend(pool.share(values(seed)) for seed in (1, 2, 3))

    threads = [threading.Thread(target=work, args=(pool,)) for pool in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(made) == 12
    assert len({segment_of(array) for array in made}) == 3
    for pool in pools:
        pool.close()


def join_pools() -> None:
    for thread in threading.enumerate():
        if thread.name == "distort-pool":
            thread.join(10)


def test_nothing_is_left_open(name: str) -> None:
    join_pools()  # of the tests before
    before = len(os.listdir("/proc/self/fd"))
    one, two = Pool(name), Pool(name)
    kept = [pool.share(values(seed)) for seed in range(5) for pool in (one, two)]
    one.close()
    two.close()
    join_pools()
    np.testing.assert_array_equal(kept[-1], values(4))
    kept.clear()
    assert len(os.listdir("/proc/self/fd")) == before


def test_where_it_cannot_be_shared_everybody_has_their_own(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "memfd_create", refuse)
    value = values(1)
    assert pool.share(value) is value
    assert "Replicas don't share" in caplog.text
