"""Links between GPUs of two hosts, without actors: two GPUs of the fake, an end each, in one process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distort.cluster.errors import ClusterError, SenderLost
from distort.cluster.gpu import far, links, nccl, sending
from distort.cluster.gpu.buffers import Buffers
from distort.cluster.gpu.far import FarValues
from distort.cluster.gpu.receiving import Transfer
from distort.cluster.orders import FarValue
from distort.kernels.cuda.memory import Pool
from distort.kernels.cuda.options import CudaOptions


class Gpu:
    """What links want of a stage's GPU."""

    def __init__(self, cupy: Any, device_id: int) -> None:
        self.cupy, self.device_id, self.bus_id = cupy, device_id, f"GPU {device_id}"
        pool = Pool(CudaOptions(device_id=device_id))
        self.program = SimpleNamespace(context=SimpleNamespace(pool=pool))
        with cupy.cuda.Device(device_id):
            self.stream = cupy.cuda.Stream(non_blocking=True)

    @contextmanager
    def current(self) -> Iterator[None]:
        with self.cupy.cuda.Device(self.device_id), self.stream:
            yield

    def use(self) -> None:
        self.cupy.cuda.Device(self.device_id).use()

    def finish(self) -> None:
        self.stream.synchronize()

    def is_on_gpu(self, value: Any) -> bool:
        return isinstance(value, self.cupy.ndarray)

    def dtype_of(self, name: str, value: Any) -> np.dtype[Any]:
        return np.dtype(value.dtype)


class End:
    """An actor's."""

    def __init__(self, cupy: Any, unit: int, device_id: int) -> None:
        self.unit, self.gpu = unit, Gpu(cupy, device_id)
        self.far = FarValues(unit, self.gpu)  # type: ignore[arg-type]  # a stand-in
        self.cupy = cupy
        self.made: list[Any] = []

    def announce(self, run: int, value: np.ndarray[Any, Any], *readers: End) -> FarValue | None:
        with self.gpu.current():
            array = self.cupy.asarray(value)
            self.made.append(array)  # memory that is given back ends the fake's laziness
            found = self.far.announce(run, "v", array, [reader.unit for reader in readers])
            self.cupy.cuda.runtime.memsetAsync(array.data.ptr, 0, value.nbytes, self.gpu.stream.ptr)  # written again
        return found

    def read(self, *values: FarValue, cancelled: Callable[[], bool] = lambda: False) -> list[np.ndarray[Any, Any]]:
        received = self.far.receive({str(i): value for i, value in enumerate(values)}, cancelled)
        with self.gpu.current():
            found = [value.array().get() for value in received.values()]
        self.far.release(received.values())
        return found


def link(producer: End, consumer: End) -> str:
    offer = producer.far.offer(consumer.unit, f"stage{consumer.unit}", "127.0.0.1")
    return consumer.far.accept(offer, f"stage{producer.unit}")


def soon(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[list[End]]:
    """One a GPU, of which there are three. At the end nothing is left of them."""
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "3")
    cupy = request.getfixturevalue("fake_cuda")
    cupy.fake.counts().clear()
    made = [End(cupy, unit, unit) for unit in range(3)]
    yield made
    cupy.fake.set_lazy(False)
    for end in made:
        end.far.close()
    counts = cupy.fake.counts()
    assert soon(lambda: counts["nccl abort"] == counts["nccl communicator"])
    assert soon(lambda: not any(thread.name == "distort-nccl" for thread in threading.enumerate()))


def values(n: int, seed: int = 0) -> Iterator[np.ndarray[Any, Any]]:
    """Of changing sizes and types."""
    generator = np.random.default_rng(seed)
    dtypes = (np.float32, np.float16, np.int64, np.bool_, np.float64)
    for i in range(n):
        shape = (1 + (7 * i) % 50, 1 + (11 * i) % 30) if i % 3 else (3 << 18,)
        yield (generator.standard_normal(shape) * 10).astype(dtypes[i % len(dtypes)])


@pytest.mark.parametrize("lazy", [False, True])
def test_values_go_whatever_their_sizes_and_memory_is_used_again(ends: list[End], lazy: bool) -> None:
    one, other, _ = ends
    assert link(one, other) == "" and other.far.facts.version == "2.32.3"
    one.cupy.fake.set_lazy(lazy)
    for run, value in enumerate(values(30)):
        one.far.forget_before(run)
        header = one.announce(run, value, other)
        assert header is not None and header.nbytes == value.nbytes
        (found,) = other.read(header)
        np.testing.assert_array_equal(found, value)
        assert found.dtype == value.dtype
    assert one.far.nbytes + other.far.nbytes <= 8 * (6 << 20)
    assert soon(lambda: one.far.in_use() == other.far.in_use() == 0)
    assert one.far.describe() == ["values go to stage1 by NCCL 2.32.3"]


def test_several_at_once_in_another_order_than_they_were_made(ends: list[End]) -> None:
    one, other, third = ends
    assert link(one, other) == link(one, third) == link(other, third) == ""
    sent = list(values(6, seed=1))
    headers = [one.announce(run, value, other, third) for run, value in enumerate(sent)]
    wrong: list[int] = []

    def read(end: End, order: list[int]) -> None:
        for i in order:
            header = headers[i]
            assert header is not None
            if not np.array_equal(end.read(header)[0], sent[i]):
                wrong.append(i)

    threads = [
        threading.Thread(target=read, args=(other, [5, 0, 3, 1, 4, 2])),
        threading.Thread(target=read, args=(third, [2, 4, 1, 3, 0, 5])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # two values of two actors for one run
    two = [one.announce(9, sent[0], third), other.announce(9, sent[1], third)]
    assert None not in two
    for found, value in zip(third.read(*filter(None, two)), sent, strict=False):
        np.testing.assert_array_equal(found, value)
    assert soon(lambda: not any(end.far.in_use() for end in ends))


def test_nothing_is_sent_that_nobody_asks_for_and_what_is_over_is_let_go(ends: list[End]) -> None:
    one, other, _ = ends
    assert link(one, other) == ""
    assert soon(lambda: one.far.in_use() == 0)  # what the link was tried with has arrived
    counts = one.cupy.fake.counts()
    before = counts["nccl send"]
    headers = [one.announce(run, np.ones(10, np.float32), other) for run in range(4)]
    assert one.far.in_use() == 4
    one.far.cancel(1)
    one.far.forget_before(3)
    assert soon(lambda: one.far.in_use() == 1)
    for header in headers[:3]:
        assert header is not None
        with pytest.raises(SenderLost, match="let go"):
            other.read(header)
    assert headers[3] is not None and other.read(headers[3])[0][0] == 1
    assert counts["nccl send"] == before + 1
    with pytest.raises(SenderLost, match="let go"):  # once for each reader
        other.read(headers[3])
    assert soon(lambda: other.far.in_use() == 0)


def test_a_cancelled_run_stops_waiting_and_the_next_value_is_the_right_one(ends: list[End]) -> None:
    one, other, _ = ends
    assert link(one, other) == ""
    first, second = (one.announce(run, np.full(10, run, np.float32), other) for run in (1, 2))
    assert first is not None and second is not None
    with one.far._guard, pytest.raises(ClusterError, match="cancelled"):  # the sender can't answer now
        other.read(first, cancelled=lambda: True)
    assert other.read(second)[0][0] == 2
    assert soon(lambda: other.far.in_use() == 0 and one.far.in_use() == 0)


def test_what_another_process_announced_is_not_asked_of_the_one_in_its_place(ends: list[End]) -> None:
    one, other, third = ends
    assert link(one, other) == ""
    header = one.announce(0, np.ones(3, np.float32), other)
    assert header is not None
    with pytest.raises(SenderLost, match="is gone") as told:
        other.read(replace(header, sender="an earlier one"))
    assert told.value.unit == one.unit
    with pytest.raises(SenderLost, match="is gone"):
        third.read(header)  # it has no link


@pytest.mark.parametrize("leaver", [0, 1])
def test_when_either_end_leaves_the_other_lets_go_and_a_new_one_takes_its_place(
    ends: list[End], leaver: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, _ = ends
    assert link(one, other) == ""
    assert soon(lambda: one.far.in_use() == 0)  # what the link was tried with has arrived
    headers = [one.announce(run, np.ones(1 << 16, np.float32), other) for run in range(3)]
    outcomes: list[str] = []

    def read() -> None:
        try:
            for header in headers:
                assert header is not None
                other.read(header)
                outcomes.append("right")
        except SenderLost as error:
            outcomes.append(str(error))

    monkeypatch.setenv("FAKE_NCCL_STALL", "0")  # what is asked for is under way, and stays so
    reader = threading.Thread(target=read)
    reader.start()
    assert soon(lambda: bool(one.far._sending[1]._under_way))
    assert one.far.in_use() == 3 and other.far.in_use() == 1  # what is on its way is nobody else's
    ends[leaver].far.close()
    reader.join(5)
    assert not reader.is_alive() and len(outcomes) == 1 and "stage0 by NCCL" in outcomes[0]
    assert soon(lambda: one.far.in_use() == other.far.in_use() == 0)
    assert one.announce(7, np.ones(4, np.float32), other) is None  # another way
    monkeypatch.delenv("FAKE_NCCL_STALL")
    assert link(one, other) == ""
    header = one.announce(8, np.full(4, 8, np.float32), other)
    assert header is not None and other.read(header)[0][0] == 8


def test_a_network_that_takes_too_long_ends_the_link_on_both_sides(
    ends: list[End], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, _ = ends
    assert link(one, other) == ""
    monkeypatch.setattr(sending, "SEND_TIMEOUT_S", 0.3)
    monkeypatch.setenv("FAKE_NCCL_STALL", "0")
    header = one.announce(0, np.ones(10, np.float32), other)
    assert header is not None
    with pytest.raises(SenderLost, match=r"gone|cut"):
        other.read(header)
    assert soon(lambda: not one.far._sending[1].works)
    (line,) = one.far.describe()
    assert "values go to stage1 by the hosts' memory and Ray: 40 bytes were not sent within" in line


def test_an_end_that_never_comes_is_not_waited_for_for_ever(ends: list[End], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, _ = ends
    for module in (far, links):
        monkeypatch.setattr(module, "JOIN_TIMEOUT_S", 0.5)
    offer = one.far.offer(1, "stage1", "127.0.0.1")
    assert soon(lambda: not one.far._sending[1].works and bool(one.far._sending[1].obstacle))  # nobody has come
    assert "can't be reached" in other.far.accept(offer, "stage0")
    # the other is there, and its NCCL is not
    real = links.Communicator

    def stuck(unique_id: bytes, rank: int) -> Any:
        if rank == nccl.RECEIVER:
            time.sleep(1.0)
        return real(unique_id, rank)

    monkeypatch.setattr(links, "Communicator", stuck)
    assert "NCCL_SOCKET_IFNAME" in link(one, other)


def test_two_ends_on_one_gpu_are_told_what_nccl_says(ends: list[End]) -> None:
    one = ends[0]
    twin = End(one.cupy, 5, 0)
    assert "NCCL_ERROR_INVALID_USAGE" in link(one, twin)
    twin.far.close()


def test_what_can_not_wait_on_the_gpu_goes_another_way(ends: list[End], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, third = ends
    assert one.announce(0, np.ones(3, np.float32), other) is None  # no link
    assert link(one, other) == ""
    assert one.announce(0, np.ones((3, 0), np.float32), other) is None
    assert one.announce(0, np.ones(3, np.float32), other, third) is None  # no link to one of them
    assert soon(lambda: one.far.in_use() == 0)  # the trial's buffer
    one.far._outgoing._most_nbytes = 5 << 20
    headers = [one.announce(0, np.full(3, i, np.float32), other) for i in range(4)]
    assert [header is not None for header in headers] == [True, True, False, False]
    assert [other.read(header)[0][0] for header in headers if header is not None] == [0, 1]
    assert soon(lambda: one.far.in_use() == 0)
    header = one.announce(0, np.full(3, 5, np.float32), other)
    assert header is not None and other.read(header)[0][0] == 5


def test_a_reader_without_memory_says_so_and_the_link_stays(ends: list[End]) -> None:
    one, other, _ = ends
    assert link(one, other) == ""
    header = one.announce(0, np.ones(3, np.float32), other)
    assert header is not None
    with pytest.raises(ClusterError, match=r"GPU 1 has no room for 68719476736 bytes"):
        other.read(replace(header, nbytes=1 << 36))
    assert other.read(header)[0][0] == 1


def test_a_missing_library_is_an_obstacle_from_the_start(monkeypatch: pytest.MonkeyPatch, fake_cuda: Any) -> None:
    monkeypatch.setenv("FAKE_NCCL", "0")
    end = End(fake_cuda, 0, 0)
    assert end.far.facts.obstacle == "NCCL is not installed: pip install nvidia-nccl-cu12"
    with pytest.raises(ClusterError, match="not installed"):
        end.far.offer(1, "stage1", "127.0.0.1")
    end.far.give_up(1, "stage1", "it is not there")
    assert end.far.describe() == ["values go to stage1 by the hosts' memory and Ray: it is not there"]


def test_what_came_before_a_link_was_cut_counts_for_nothing(ends: list[End]) -> None:
    """An abort ends a receive as if it were done, and leaves anything in the buffer."""
    one, other, _ = ends
    assert link(one, other) == ""
    header, buffer = one.announce(0, np.ones(3, np.float32), other), other.far._incoming.take(12)
    assert header is not None and buffer is not None
    transfer = Transfer(header, buffer, SimpleNamespace(done=True))
    transfer.posted.set()
    other.far._receiving[0].wait_for(transfer, lambda: False)
    other.far._receiving[0].close("cut")
    with pytest.raises(SenderLost, match="cut"):
        other.far._receiving[0].wait_for(transfer, lambda: False)
    assert not buffer.held


def test_a_buffer_is_taken_again_when_the_stage_has_read_it(ends: list[End]) -> None:
    from cupy import _state

    class Slow(_state.Pending):  # type: ignore[misc]  # of the fake
        done = False

    one, other, _ = ends
    assert link(one, other) == ""
    first, second = (one.announce(run, np.full(3, run, np.float32), other) for run in (1, 2))
    assert first is not None and second is not None
    received = other.far.receive({"v": first}, lambda: False)
    slow = Slow()
    _state.enqueue(other.gpu.stream.ptr, slow)  # the stage's work
    other.far.release(received.values())
    again = other.far.receive({"v": second}, lambda: False)
    assert again["v"].buffer is not received["v"].buffer and other.far.in_use() == 2
    slow.done = True
    other.far.release(again.values())
    assert soon(lambda: other.far.in_use() == 0)


def test_buffers_are_used_again_only_when_all_that_uses_them_is_done(fake_cuda: Any) -> None:
    pool = Pool(CudaOptions(gpu_mem_limit=64 << 20))
    buffers = Buffers(pool, most_nbytes=6 << 20)
    first = buffers.take(10)
    assert first is not None and not first.free
    events = [SimpleNamespace(done=False), SimpleNamespace(done=True)]
    first.events += events
    first.held = False
    second = buffers.take(10)
    assert second is not None and second is not first and buffers.in_use() == 2
    events[0].done = True
    assert buffers.take(10) is first
    assert buffers.take(3 << 20) is None and buffers.take(3 << 20, beyond=True) is not None
    assert buffers.nbytes == pool.aside_nbytes == 8 << 20
    buffers.close()
    assert buffers.nbytes == pool.aside_nbytes == 0


def test_buffers_count_for_the_limit_of_the_session(fake_cuda: Any) -> None:
    pool = Pool(CudaOptions(gpu_mem_limit=8 << 20))
    buffers = Buffers(pool)
    first = buffers.take(5 << 20)
    assert first is not None and buffers.take(2 << 20, beyond=True) is None
    first.held = False
    assert buffers.take(7 << 20) is None  # a pool of nothing would be one without a limit
    assert pool.aside_nbytes == 0, "what is idle is given back for what is wanted"
    buffers.close()
