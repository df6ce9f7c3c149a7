"""Threads of a program: every step on all of them, in order, whatever they do between jobs."""

from __future__ import annotations

import gc
import os
import threading
import time

import numpy as np
import pytest

from distort.kernels.compiler.codegen.target import host
from distort.kernels.compiler.codegen.text import Function
from distort.kernels.compiler.library import compile_text, link, load
from distort.kernels.compiler.team import Team

_ENGINES: list[object] = []


@pytest.fixture(scope="module")
def kernel() -> int:
    """Words: address of a table of counts, the step's number. Counts who saw the step before done."""
    f = Function("count_step")
    table, step = f.address(0), f.word(1)
    n_parts = f.parameters[2]
    # a step may begin when all parts of the one before are done
    mine = f.at(table, f.add(f.mul(step, 8), 0), "i64")
    before = f.at(table, f.mul(f.sub(step, 1), 8), "i64")
    seen = f.op("i64", f"load atomic i64, ptr {before.text} acquire, align 8")
    good = f.cast("zext", f.compare("sge", seen, n_parts), "i64")
    f.op("i64", f"atomicrmw add ptr {mine.text}, i64 1 acq_rel, align 8")
    flag = f.at(table, f.add(f.mul(step, 8), 1), "i64")
    f.op("i64", f"atomicrmw add ptr {flag.text}, {good} acq_rel, align 8")
    f.ret()
    (address,) = load(compile_text(link([f], host()), host()), ["count_step"], _ENGINES)
    return address


def job(kernel: int, n_steps: int, n_threads: int, chunks: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The table (step 0 is before the first), words, steps."""
    table = np.zeros((n_steps + 1, 8), np.int64)
    table[0, 0] = n_threads * chunks
    words = np.array([[table.ctypes.data, i + 1, 0] for i in range(n_steps)], np.int64)
    steps = np.array([[kernel, row.ctypes.data, n_threads, chunks] for row in words], np.int64)
    return table, words, steps


@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("spins", [0, 50, 10_000])
@pytest.mark.parametrize("chunks", [1, 4])
def test_each_step_waits_for_the_one_before(kernel: int, n_threads: int, spins: int, chunks: int) -> None:
    team = Team(n_threads, spins)
    n_parts = n_threads * chunks if n_threads > 1 else 1
    for turn in range(60):
        table, words, steps = job(kernel, 20, n_threads, chunks)
        for _ in range(2):
            table[1:] = 0
            team.run(steps.ctypes.data, len(steps))
            assert (table[1:, 0] == n_parts).all()
            assert (table[1:, 1] == n_parts).all() or n_threads == 1
        del words
        if turn % 20 == 0:
            time.sleep(0.005)  # the others fall asleep
    team.close()


def test_a_second_caller_does_its_job_alone(kernel: int) -> None:
    team = Team(2)
    failures: list[str] = []

    def work() -> None:
        for _ in range(100):
            table, words, steps = job(kernel, 10, 2)
            steps[:, 2] = 2
            team.run(steps.ctypes.data, len(steps))
            if not set(table[1:, 0].tolist()) <= {1, 2}:
                failures.append(str(table[:, 0]))
            del words

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    team.close()


def test_threads_end_with_their_team(kernel: int) -> None:
    before = set(threading.enumerate())  # others' may still be on their way out
    team = Team(3)
    table, words, steps = job(kernel, 3, 3)
    team.run(steps.ctypes.data, len(steps))
    own = [thread for thread in threading.enumerate() if thread.name == "distort-cpu" and thread not in before]
    assert len(own) == 2
    del team
    gc.collect()
    for thread in own:
        thread.join(timeout=5)
        assert not thread.is_alive()
    del table, words


def test_a_forked_child_has_threads_of_its_own(kernel: int) -> None:
    team = Team(2)
    table, words, steps = job(kernel, 5, 2)
    team.run(steps.ctypes.data, len(steps))
    child = os.fork()
    if child == 0:
        table[1:] = 0
        team.run(steps.ctypes.data, len(steps))
        os._exit(0 if (table[1:, 0] == 2).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    team.run(steps.ctypes.data, len(steps))
    del words
    team.close()


def test_what_is_cancelled_ends(kernel: int) -> None:
    team = Team(2)
    table, words, steps = job(kernel, 5, 2)
    flag = np.zeros(1, np.uint8)
    for wanted in (0, 1, 0):
        flag[0] = wanted
        table[1:] = 0
        team.run(steps.ctypes.data, len(steps), 0, flag.ctypes.data)
        assert table[1:, 0].any() == (not wanted)
    del words
    team.close()
