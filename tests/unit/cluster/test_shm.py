"""Slots, messages and channels between two ends of a socket, without Ray."""

from __future__ import annotations

import gc
import os
import socket
import struct
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from distort.cluster.orders import Held
from distort.cluster.shm import slots
from distort.cluster.shm.channel import FIRST_KIND, Channel, PeerGone, connect, listen
from distort.cluster.shm.slots import Reading, SlotPool
from distort.cluster.shm.wire import INLINE_NBYTES, Message, inline_limit, read_values, stage
from distort.graph.types import DTYPE_OF

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    one, other = (Channel(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    yield one, other
    one.close()
    other.close()


@pytest.fixture
def pool() -> Iterator[SlotPool]:
    made = SlotPool()
    yield made
    made.close()


HEAD = struct.Struct("<BI")


def head() -> bytes:
    return bytes([FIRST_KIND])


def pass_on(
    pair: Pair, pool: SlotPool, *values: object, readers: int = 1, leases: set[int] | None = None
) -> tuple[list[object], list[Reading]]:
    """Values from one end to the other, the first of their readers."""
    sender, receiver = pair
    message = Message(HEAD, FIRST_KIND)
    for number, value in enumerate(values):
        if isinstance(value, Held):
            message.add_held(number, value)
            continue
        staged = stage(value, pool, (sender,) * readers, inline_limit(len(values)))
        if staged.slot is not None:
            sender.announce(staged.slot)
        message.add(number, staged, 0)
    sender.send(message.packed())
    data = receiver.receive()
    assert data is not None and data[0] == FIRST_KIND
    readings: list[Reading] = []
    found, end = read_values(data, HEAD.size, HEAD.unpack_from(data)[1], receiver.find_slot, readings, leases)
    assert end == len(data)
    assert [number for number, _, _ in found] == list(range(len(values)))
    return [value for _, value, _ in found], readings


def test_values_of_all_kinds_arrive(pair: Pair, pool: SlotPool) -> None:
    values = [
        np.float32(3.5) * np.ones((), np.float32),
        np.zeros((0, 3), np.int64),
        np.arange(12, dtype=np.int16).reshape(3, 4)[:, ::2],  # not contiguous
        np.arange(10**5, dtype=np.float64)[::-1],
        np.array(["a", "öl"], object),
        [np.ones(2), np.ones((3, 10_000))],
        {1: "x", 2: "y"},
        None,
        np.arange(5, dtype=">i4"),
        Held(2**40),
    ]
    found, readings = pass_on(pair, pool, *values)
    for got, want in zip(found[:5], values[:5], strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(found[5][1], values[5][1])
    assert found[6:8] == [{1: "x", 2: "y"}, None]
    assert found[8].tolist() == [0, 1, 2, 3, 4]
    assert found[9] == Held(2**40)
    assert len(readings) == 1 and not found[3].flags.writeable


def test_a_large_value_is_leased_to_its_only_reader(pair: Pair, pool: SlotPool) -> None:
    leases: set[int] = set()
    value = np.arange(10**5, dtype=np.float32).reshape(10, -1)
    found, readings = pass_on(pair, pool, value, np.ones(5000), leases=leases)
    got = found[0]
    assert len(readings) == 1 and len(leases) == 1  # the small one is read, and copied
    assert got.flags.writeable
    got += 1
    np.testing.assert_array_equal(got, value + 1)
    del found[0]
    view = got[3:, ::2]
    del got
    assert len(leases) == 1 and pool.in_use() == 2  # a view keeps it
    np.testing.assert_array_equal(view, value[3:, ::2] + 1)
    del view
    assert not leases and pool.in_use() == 1


def test_what_others_read_too_is_not_leased(pair: Pair, pool: SlotPool) -> None:
    leases: set[int] = set()
    found, readings = pass_on(pair, pool, np.ones(10**5), readers=2, leases=leases)
    assert not leases and len(readings) == 1 and not found[0].flags.writeable


def test_leases_are_limited(pair: Pair, pool: SlotPool) -> None:
    leases: set[int] = set()
    kept = [pass_on(pair, pool, np.full(10**4, i), leases=leases) for i in range(slots.MOST_LEASES + 3)]
    assert len(leases) == slots.MOST_LEASES
    assert [len(readings) for _, readings in kept[-4:]] == [0, 1, 1, 1]
    for i, (found, _) in enumerate(kept):
        assert (found[0] == i).all()


def test_what_a_child_may_read_is_not_given_back(pair: Pair, pool: SlotPool) -> None:
    leases: set[int] = set()
    found, _ = pass_on(pair, pool, np.ones(10**5), leases=leases)
    child = os.fork()
    if child == 0:
        del found[:]
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    del found[:]
    assert pool.in_use() == 1


@pytest.mark.parametrize("element", sorted(set(DTYPE_OF) - {8}))
def test_every_element_type_arrives(pair: Pair, pool: SlotPool, element: int) -> None:
    dtype = DTYPE_OF[element]
    small = np.arange(4).astype(dtype)
    large = np.resize(small, (3, INLINE_NBYTES))
    found, readings = pass_on(pair, pool, small, large)
    for got, want in zip(found, (small, large), strict=True):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.view(np.uint8), want.view(np.uint8))
    assert len(readings) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        arrays.arrays(
            st.sampled_from([np.dtype("f4"), np.dtype("i8"), np.dtype("?"), np.dtype(ml_dtypes.bfloat16)]),
            arrays.array_shapes(min_dims=0, max_dims=4, max_side=40),
            elements=st.integers(0, 1),
            fill=st.just(1),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_arrays_arrive(values: list[np.ndarray]) -> None:
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pair, pool = (Channel(ends[0]), Channel(ends[1])), SlotPool()
    found, readings = pass_on(pair, pool, *values)
    for got, want in zip(found, values, strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))
    for reading in readings:
        reading.release()
    assert pool.in_use() == 0
    for end in pair:
        end.close()
    pool.close()


def test_a_slot_is_taken_again_when_all_its_readers_are_done(pool: SlotPool) -> None:
    slot = pool.take(1000, ("one", "other"))
    assert pool.take(1000, ("one",)) is not slot
    readings = [Reading(slot.memory, position, 1000) for position in range(2)]
    readings[0].release()
    assert pool.in_use() == 2 and not slot.free
    readings[1].release()
    assert slot.free
    assert pool.take(1000, ("one",)) is slot


def test_a_reader_that_is_gone_holds_nothing(pool: SlotPool) -> None:
    slot = pool.take(10, ("dead", "alive"))
    pool.lose_reader("dead")
    assert not slot.free
    Reading(slot.memory, 1, 10).release()
    assert slot.free


def test_what_is_sent_last_is_what_is_read(pair: Pair, pool: SlotPool) -> None:
    """A slot that is used again has its new payload, of another shape too."""
    for number in range(20):
        value = np.full((number + 1, 5000), number, np.float32)
        (found,), (reading,) = pass_on(pair, pool, value)
        np.testing.assert_array_equal(found, value)
        del found
        reading.release()
    assert pool.in_use() == 0


def test_slots_that_are_given_back_are_forgotten(pair: Pair, pool: SlotPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "IDLE_NBYTES", 1 << 18)
    descriptors = len(os.listdir("/proc/self/fd"))
    for size in (30_000, 60_000, 120_000, 240_000):
        (found,), (reading,) = pass_on(pair, pool, np.zeros(size, np.float32))
        del found
        reading.release()
    numbers = pool.take_forgotten(pair[0])
    assert numbers
    pair[0].forget(numbers)
    assert pair[1].receive() is None  # it keeps that to itself
    with pytest.raises(KeyError):
        pair[1].find_slot(numbers[0])
    gc.collect()
    # of the one slot that is left: its own, and those that two mappings of it hold
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 3


def test_sending_never_blocks_and_loses_nothing(pair: Pair, pool: SlotPool) -> None:
    sender, receiver = pair
    count = 3000
    for number in range(count):
        sender.send(head() + number.to_bytes(4, "little") + bytes(1000))
    assert sender.waiting
    seen = []
    while len(seen) < count:
        data = receiver.receive()
        if data is None:
            sender.flush()
        else:
            seen.append(int.from_bytes(data[1:5], "little"))
    assert seen == list(range(count))
    assert sender.flush() and not sender.waiting


def test_the_end_of_a_peer_is_noticed(pair: Pair) -> None:
    sender, receiver = pair
    sender.send(head() + b"last words")
    sender.close()
    data = receiver.receive()
    assert data is not None and bytes(data[1:]) == b"last words"
    with pytest.raises(PeerGone):
        receiver.receive()
    with pytest.raises(PeerGone):
        receiver.send(head())


def test_a_listener_s_name_ends_with_it() -> None:
    name = f"distort-test-{os.getpid()}"
    listener = listen(name)
    channel = connect(name)
    accepted, _ = listener.accept()
    accepted.close()
    with pytest.raises(PeerGone):
        channel.receive()
    channel.close()
    listener.close()
    with pytest.raises(OSError, match="refused"):
        connect(name)
