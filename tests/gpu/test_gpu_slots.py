"""Memory that other GPUs read counts for gpu_mem_limit, though it is outside the session's pool."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distort.cluster.gpu.exports import DeviceSlots
from distort.kernels.cuda.memory import Pool
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.errors import OutOfMemory

MIB = 1 << 20


def pool_of(n_mib: int) -> Pool:
    return Pool(CudaOptions(gpu_mem_limit=n_mib * MIB))


def test_what_is_set_aside_is_not_the_pools(fake_cuda: Any) -> None:
    pool = pool_of(8)
    with pool.used():
        held = pool.malloc(3 * MIB)
        free = pool.malloc(3 * MIB)
        del free  # the pool keeps it
        assert pool.held_nbytes == 6 * MIB
        assert pool.set_aside(4 * MIB)
        assert pool.held_nbytes == 3 * MIB
        assert not pool.set_aside(2 * MIB)
        with pytest.raises(OutOfMemory, match=f"the session have {8 * MIB}, of which {4 * MIB} are values for other"):
            pool.malloc(2 * MIB)
        pool.give_back(4 * MIB)
        free = pool.malloc(5 * MIB)
        del held, free
        assert not pool.set_aside(8 * MIB)  # a pool of nothing would be one without a limit


def test_without_a_limit_all_may_be_set_aside(fake_cuda: Any) -> None:
    pool = Pool(CudaOptions())
    assert pool.set_aside(1 << 40)
    with pool.used():
        assert pool.malloc(MIB).mem.size >= MIB


def test_slots_are_made_while_the_limit_has_room(fake_cuda: Any) -> None:
    pool = pool_of(8)
    reader = object()
    with pool.used():
        stream = fake_cuda.cuda.Stream(non_blocking=True)
        value = fake_cuda.zeros(MIB // 4, np.float32)  # 1 MiB
        slots = DeviceSlots("0000:01:00.0", pool)
        staged = [slots.stage(value, (reader,), stream) for _ in range(5)]
        assert [one is not None for one in staged] == [True, True, True, False, False]  # 2 MiB each
        assert (pool.aside_nbytes, slots.nbytes, slots.obstacle) == (6 * MIB, 6 * MIB, "")
        for page in staged[0].slot.pages.values():
            page.reading = False
        assert slots.stage(value, (reader,), stream) is not None
        slots.close()
    assert pool.aside_nbytes == 0


def test_a_slot_that_cannot_be_made_is_given_back(fake_cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pool_of(8)

    def refuse(pointer: int) -> bytes:
        raise fake_cuda.cuda.runtime.CUDARuntimeError(801)

    monkeypatch.setattr(fake_cuda.cuda.runtime, "ipcGetMemHandle", refuse)
    with pool.used():
        value = fake_cuda.zeros(4, np.float32)
        slots = DeviceSlots("0000:01:00.0", pool)
        assert slots.stage(value, (object(),), fake_cuda.cuda.Stream(non_blocking=True)) is None
    assert slots.obstacle and pool.aside_nbytes == 0
