"""Processes on one GPU: values by IPC memory and events, slots written again, and the death of either side.

The parts are those of ``cluster/gpu``; processes talk by pipes here, and pages' descriptors go over these.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import sys
import time
from multiprocessing import reduction
from typing import Any

import numpy as np

from gpu_checks.report import Report

_SHAPES = [(1000, 64), (1000, 64), (17,), (300, 1024), (1000, 64)]
_DTYPES = ("float32", "float16", "int64")


def run(report: Report) -> None:
    n = 12 if report.small else 300
    with report.part("values between two processes"):
        with _Pair() as pair:
            wrong, n_slots, taken_s = pair.exchange(n)
        figure = f"{n} values in {n_slots} slots, {1e6 * taken_s / n:.0f} µs each"
        report.judge("values between two processes", not wrong, f"{figure}; wrong: {wrong[:5] or 'none'}")
        report.judge("slots are written again", 0 < n_slots <= n // 2, f"{n_slots} slots for {n} values")
    for victim in ("reader", "owner"):
        what = f"the {victim} is killed in the middle"
        with report.part(what), _Pair() as pair:
            report.judge(what, *pair.survive(victim))


class _Pair:
    """An owner of slots and a reader, each a process; this one only tells them what to do."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[str, Any] = {}
        self._orders: dict[str, Any] = {}

    def __enter__(self) -> _Pair:
        for name in ("owner", "reader"):
            self._start(name)
        self._join()
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.join(10)

    def _start(self, name: str) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, list(sys.path)), daemon=True)
        process.start()
        theirs.close()
        self._processes[name], self._orders[name] = process, ours
        assert self._ask(name, "hello") == "hello"

    def _join(self) -> None:
        """A pipe between the two, in place of one that may be there."""
        one, other = self._context.Pipe()
        for name, end in (("owner", one), ("reader", other)):
            self._orders[name].send("join")
            reduction.send_handle(self._orders[name], end.fileno(), self._processes[name].pid)
            end.close()
            assert self._answer(name) == "joined"

    def _ask(self, name: str, *order: Any) -> Any:
        self._orders[name].send(order)
        return self._answer(name)

    def _answer(self, name: str, limit_s: float = 40.0) -> Any:
        if not self._orders[name].poll(limit_s):
            raise TimeoutError(f"the {name} doesn't answer within {limit_s:.0f} s")
        found = self._orders[name].recv()
        if isinstance(found, tuple) and found and found[0] == "error":
            raise RuntimeError(f"the {name}: {found[1]}")
        return found

    def exchange(self, n: int) -> tuple[list[int], int, float]:
        """Numbers of values that came wrongly, how many slots there were, and how long it took."""
        began = time.perf_counter()
        self._orders["owner"].send(("give", n))
        self._orders["reader"].send(("take", n))
        ready = multiprocessing.connection.wait([self._orders["owner"], self._orders["reader"]], 40.0)
        first = "reader" if self._orders["reader"] in ready else "owner"  # who fails answers while the other waits
        answers = {first: self._answer(first)}
        other = "owner" if first == "reader" else "reader"
        answers[other] = self._answer(other)
        wrong, n_slots = answers["reader"], answers["owner"]
        return wrong, n_slots, time.perf_counter() - began

    def survive(self, victim: str) -> tuple[bool, str]:
        """One is killed while the reader has a value open; the other goes on, alone and with a new neighbour."""
        other = "reader" if victim == "owner" else "owner"
        self.exchange(5)
        self._orders["owner"].send(("give", 1))
        self._orders["reader"].send(("hold",))
        assert self._answer("reader") == "held"
        self._processes[victim].kill()
        self._processes[victim].join(10)
        self._answer("owner") if other == "owner" else None
        words = self._ask(other, "lose")
        alone = self._ask(other, "compute")
        self._start(victim)
        self._join()
        wrong, _, _ = self.exchange(10)
        right = alone == "computed" and not wrong
        return right, f"{words}; the {other} goes on{'' if right else ' wrongly'}, and with a new {victim}"


# -- a process of the pair


def _serve(orders: Any, path: list[str]) -> None:
    sys.path[:] = path
    side = _Side()
    while True:
        try:
            order = orders.recv()
        except EOFError:
            return
        try:
            if order == "join":
                descriptor = reduction.recv_handle(orders)
                side.join(multiprocessing.connection.Connection(descriptor))
                orders.send("joined")
            else:
                orders.send(getattr(side, order[0])(*order[1:]))
        except Exception as error:  # noqa: BLE001  # told to who asked
            orders.send(("error", f"{type(error).__name__}: {error}"))


def _value_of(number: int) -> Any:
    """By its number, so that the reader knows what is right."""
    import cupy

    shape, dtype = _SHAPES[number % len(_SHAPES)], _DTYPES[number % len(_DTYPES)]
    return (cupy.arange(int(np.prod(shape)), dtype=np.int64) % 251 + number % 97).astype(dtype).reshape(shape)


class _Side:
    def __init__(self) -> None:
        import cupy

        from distort.cluster.gpu.exports import DeviceSlots
        from distort.kernels.cuda.memory import Pool
        from distort.kernels.cuda.options import CudaOptions

        self._cupy: Any = cupy
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._slots = DeviceSlots(cupy.cuda.runtime.deviceGetPCIBusId(0), Pool(CudaOptions()))
        self._peer: Any = None
        self._reader: object = None
        self._pages: dict[int, Any] = {}
        self._held: Any = None

    def hello(self) -> str:
        return "hello"

    def join(self, peer: Any) -> None:
        self._peer, self._reader, self._pages = peer, object(), {}

    def give(self, n: int) -> int:
        """As the owner: each value into a slot, and word of it to the reader. How many slots there were."""
        seen = set()
        for number in range(n):
            with self._stream:
                value = _value_of(number)
                staged = self._slots.stage(value, (self._reader,), self._stream)
            if staged is None:
                raise RuntimeError(f"it can't be exported: {self._slots.obstacle or 'no memory'}")
            page = staged.slot.pages[self._reader]
            seen.add(page.number)
            known = self._reader in page.known_to
            self._peer.send((number, page.number, known, str(value.dtype), value.shape, value.nbytes))
            if not known:
                page.known_to.add(self._reader)
                reduction.send_handle(self._peer, page.fd, os.getppid())
            if number % 8 == 7:
                self._peer.recv()  # no more than a few are under way
        return len(seen)

    def _take(self) -> tuple[int, Any, Any]:
        from distort.cluster.gpu.imports import DevicePage
        from distort.cluster.gpu.page import NBYTES
        from distort.cluster.shm.slots import map_slot

        number, page_number, known, dtype, shape, nbytes = self._peer.recv()
        if not known:
            self._pages[page_number] = DevicePage(map_slot(reduction.recv_handle(self._peer), NBYTES))
        value = self._pages[page_number].value(np.dtype(dtype), shape, nbytes)
        with self._stream:
            return number, value, value.array(self._stream)

    def take(self, n: int) -> list[int]:
        """As the reader: each value compared by the GPU, and released when it has read it."""
        wrong, verdicts = [], []
        for _ in range(n):
            number, value, array = self._take()
            with self._stream:
                verdicts.append((number, (array == _value_of(number)).all()))
                done = self._cupy.cuda.Event(disable_timing=True)
                done.record(self._stream)
            done.synchronize()
            value.page.release()
            if number % 8 == 7:
                self._peer.send("go on")
        with self._stream:
            wrong = [number for number, verdict in verdicts if not bool(verdict.get())]
        return wrong

    def hold(self) -> str:
        self._held = self._take()
        return "held"

    def lose(self) -> str:
        """The neighbour is gone: what it had or gave is let go of."""
        words = "slots were the reader's alone"
        if self._held is not None:
            number, _, array = self._held
            try:
                with self._stream:
                    right = bool((array == _value_of(number)).all().get())
                words = f"what it held is {'still right' if right else 'wrong now'}"
            except self._cupy.cuda.runtime.CUDARuntimeError as error:
                words = f"what it held can't be read any more ({error})"
            self._held = array = None
        self._pages.clear()
        self._slots.lose_reader(self._reader)
        return words

    def compute(self) -> str:
        with self._stream:
            return "computed" if int(self._cupy.arange(100).sum().get()) == 4950 else "computed wrongly"
