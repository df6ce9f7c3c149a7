"""The fake NCCL refuses, waits and fails as the real one: what links rely on, and are to be safe from."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "fake_cuda"


@pytest.fixture
def nccl(fake_cuda: Any) -> Any:
    from cupy.cuda import nccl

    return nccl


class Rank:
    """A communicator's end in a thread of its own, on a device of its own."""

    def __init__(self, cupy: Any, nccl: Any, unique_id: bytes, rank: int, device: int, size: int = 2) -> None:
        self.cupy, self.error = cupy, None
        self.there = threading.Event()

        def go() -> None:
            cupy.cuda.Device(device).use()
            try:
                self.comm = nccl.NcclCommunicator(size, unique_id, rank)
                self.stream = cupy.cuda.Stream(non_blocking=True)
            except Exception as error:  # noqa: BLE001  # the test looks at it
                self.error = error
            self.there.set()

        self.device = device
        threading.Thread(target=go, daemon=True).start()

    def full(self, value: int, n: int = 100) -> Any:
        with self.cupy.cuda.Device(self.device):
            made = self.cupy.full(n, value, "float32")
            self.cupy.cuda.Device().synchronize()
            return made

    def first(self, array: Any) -> float:
        with self.cupy.cuda.Device(self.device):
            return float(array[0].get())

    def give(self, kind: str, array: Any, dtype: int = 7, count: int | None = None) -> Any:
        """The event behind a send to, or a receive from, the other."""
        with self.cupy.cuda.Device(self.device):
            peer = 1 - self.comm.rank_id()
            getattr(self.comm, kind)(array.data.ptr, count or array.size, dtype, peer, self.stream.ptr)
            event = self.cupy.cuda.Event(disable_timing=True)
            event.record(self.stream)
        return event


def pair(cupy: Any, nccl: Any) -> list[Rank]:
    unique_id = nccl.get_unique_id()
    ranks = [Rank(cupy, nccl, unique_id, rank, rank) for rank in (0, 1)]
    assert all(rank.there.wait(10) and rank.error is None for rank in ranks)
    return ranks


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_sent_is_received_in_order_and_nobody_waits(fake_cuda: Any, nccl: Any, lazy: bool) -> None:
    one, other = pair(fake_cuda, nccl)
    sent, received = [one.full(i) for i in range(4)], [other.full(9) for _ in range(4)]
    fake_cuda.fake.set_lazy(lazy)
    events = [one.give("send", array) for array in sent]  # returns though nobody receives
    time.sleep(0.05)
    assert not events[0].done
    events += [other.give("recv", array) for array in received]
    assert soon(lambda: all([event.done for event in events]))
    fake_cuda.fake.set_lazy(False)
    assert [other.first(array) for array in received] == [0, 1, 2, 3]
    for rank in (one, other):
        rank.comm.destroy()
    counts = fake_cuda.fake.counts()
    assert counts["nccl communicator"] == counts["nccl destroy"] == 2


def test_another_stream_waits_on_the_gpu_and_the_host_where_it_synchronizes(fake_cuda: Any, nccl: Any) -> None:
    one, other = pair(fake_cuda, nccl)
    array, copy = other.full(9), other.full(9)
    event = other.give("recv", array)
    with fake_cuda.cuda.Device(1):
        stream = fake_cuda.cuda.Stream(non_blocking=True)
        stream.wait_event(event)
        runtime = fake_cuda.cuda.runtime
        runtime.memcpyAsync(copy.data.ptr, array.data.ptr, array.nbytes, runtime.memcpyDeviceToDevice, stream.ptr)
        assert not stream.done
        one.give("send", one.full(3))
        stream.synchronize()
        assert other.first(copy) == 3
    for rank in (one, other):
        rank.comm.destroy()


def test_arguments_are_what_cupy_takes(fake_cuda: Any, nccl: Any) -> None:
    with pytest.raises(TypeError, match="expected bytes, got tuple"):
        nccl.NcclCommunicator(2, tuple(nccl.get_unique_id()), 0)
    with pytest.raises(ValueError, match="length 5"):
        nccl.NcclCommunicator(2, b"12345", 0)
    with pytest.raises(nccl.NcclError, match="INVALID_ARGUMENT"):
        nccl.NcclCommunicator(2, nccl.get_unique_id(), 2)
    with pytest.raises(KeyError):  # a result that CuPy has no name for
        nccl.NcclError(7)
    one, other = pair(fake_cuda, nccl)
    for address, peer in ((one.full(1).data.ptr, 0), (other.full(1).data.ptr, 1), (12345, 1)):
        with pytest.raises(nccl.NcclError, match="INVALID_ARGUMENT"), fake_cuda.cuda.Device(0):
            one.comm.send(address, 10, 7, peer, one.stream.ptr)
    with pytest.raises(nccl.NcclError, match="INVALID_ARGUMENT"):
        one.give("send", one.full(1), count=1000)
    one.comm.abort()
    other.comm.abort()
    for call in (one.comm.check_async_error, one.comm.rank_id, lambda: one.comm.send(0, 1, 7, 1, 0)):
        with pytest.raises(nccl.NcclError, match="INVALID_ARGUMENT"):
            call()


def test_two_ranks_on_one_gpu_are_refused(fake_cuda: Any, nccl: Any) -> None:
    unique_id = nccl.get_unique_id()
    ranks = [Rank(fake_cuda, nccl, unique_id, rank, 0) for rank in (0, 1)]
    for rank in ranks:
        assert rank.there.wait(10)
        assert isinstance(rank.error, nccl.NcclError) and rank.error.status == 5


def test_who_is_alone_waits_until_the_end(fake_cuda: Any, nccl: Any) -> None:
    assert not Rank(fake_cuda, nccl, nccl.get_unique_id(), 0, 0).there.wait(0.3)
    one, other = pair(fake_cuda, nccl)
    event = other.give("recv", array := other.full(9))
    ended = threading.Event()
    threading.Thread(target=lambda: (other.comm.destroy(), ended.set()), daemon=True).start()
    assert not ended.wait(0.3) and not event.done
    one.comm.abort()
    assert soon(lambda: other.comm._async_status == 6)  # told to who asks
    with pytest.raises(nccl.NcclError, match="REMOTE_ERROR"):
        other.comm.check_async_error()
    assert not event.done and not ended.is_set()
    other.comm.abort()
    assert soon(lambda: bool(event.done)) and ended.wait(5)
    assert other.first(array) != 9  # what an abort leaves is nobody's value


def test_sizes_that_differ_never_come(fake_cuda: Any, nccl: Any) -> None:
    one, other = pair(fake_cuda, nccl)
    events = [one.give("send", one.full(1)), other.give("recv", other.full(2), count=50)]
    time.sleep(0.1)
    assert not any(event.done for event in events)
    for rank in (one, other):
        rank.comm.abort()


def test_the_death_of_a_process_is_an_error_of_the_other(fake_cuda: Any, nccl: Any) -> None:
    script = """
import sys
from cupy.cuda import Device, nccl
Device(1).use()
comm = nccl.NcclCommunicator(2, bytes.fromhex(sys.argv[1]), 1)
print("there", flush=True)
sys.stdin.read()
"""
    unique_id = nccl.get_unique_id()
    command = [sys.executable, "-c", script, unique_id.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        one = Rank(fake_cuda, nccl, unique_id, 0, 0)
        assert one.there.wait(20) and process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        event = one.give("send", one.full(1))
        process.kill()
        process.wait()
    assert soon(lambda: one.comm._async_status == 6) and not event.done
    one.comm.abort()
    assert event.done


def test_without_the_library_the_module_says_so_and_warns(monkeypatch: pytest.MonkeyPatch, fake_cuda: Any) -> None:
    monkeypatch.setenv("FAKE_NCCL", "0")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        from cupy.cuda import nccl
    assert not nccl.available and not hasattr(nccl, "NcclCommunicator")
    assert "nccl library could not be loaded" in str(told[0].message)


def test_names_and_parameters_are_the_real_ones(fake_cuda: Any, nccl: Any) -> None:
    spec = importlib.util.spec_from_file_location("signatures", FOLDER / "signatures.py")
    assert spec is not None and spec.loader is not None
    signatures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(signatures)
    known = json.loads((FOLDER / "signatures.json").read_text())["nccl"]
    assert set(nccl.__all__) <= set(known["names"])
    for name, number in known["integers"].items():
        assert getattr(nccl, name, number) == number
    for name, parameters in known["communicator"].items():
        if hasattr(nccl.NcclCommunicator, name):
            ours = signatures.parameters(getattr(nccl.NcclCommunicator, name))
            assert [part for part in ours if part != "self"] == parameters, name
