"""What is left when a program ends badly, and when sessions are opened and closed over and over: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ..conftest import shared_memory, wait_until

#: a program with a parallel session, and a run that takes as long as it is given
DRIVER = """
import sys, threading
sys.path.insert(0, sys.argv[1])
import scenarios
session = scenarios.open_session("", 2)
assert scenarios.right(session)
threading.Thread(target=lambda: session.run(None, scenarios.feeds(scenarios.MANY_TRIPS)), daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""
#: opens and closes sessions; prints the process's threads, descriptors and actors after some, and after all
SESSIONS = """
import gc, json, os, sys, threading, time
import psutil
sys.path.insert(0, sys.argv[1])
import scenarios

def seen():
    gc.collect()
    me = psutil.Process()
    deadline = time.monotonic() + 10
    while actors(me) and time.monotonic() < deadline:
        time.sleep(0.05)
    memory = [name for name in os.listdir("/dev/shm") if not name.startswith("sem.")]  # other programs' may come and go
    return [threading.active_count(), me.num_fds(), len(actors(me)), len(memory)]

def actors(me):
    found = []
    for process in me.children(recursive=True):
        try:
            if "StageActor" in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            pass
    return found

count = int(sys.argv[2])
for number in range(count):
    session = scenarios.open_session("", 2)
    session.run(None, scenarios.feeds(1))
    if number % 3:  # one in three is merely forgotten
        session.close()
    del session
    if number == min(9, count // 2):
        first = seen()
print(json.dumps([first, seen()]))
"""
HERE = str(Path(__file__).parent)
N_SESSIONS = int(os.environ.get("DISTORT_SESSIONS", "12"))
SESSIONS_S = 60 + 5 * N_SESSIONS


@pytest.fixture
def driver() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", DRIVER, HERE], stdout=subprocess.PIPE, text=True)
    with process:
        yield process
        process.kill()


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[str]:
    found = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_program_takes_all_of_its_cluster_along(driver: subprocess.Popen[str], number: int) -> None:
    before = shared_memory()
    assert driver.stdout is not None and driver.stdout.readline() == "ready\n"
    below = descendants(driver.pid)
    names = alive(below)
    assert any("raylet" in name for name in names) and sum("StageActor" in name for name in names) == 2
    (folder,) = {word.partition("=")[2] for name in names for word in name.split() if word.startswith("--temp-dir=")}
    assert Path(folder).is_dir()
    os.kill(driver.pid, number)
    began = time.monotonic()
    driver.wait(10)
    assert wait_until(lambda: not alive(below), 10), alive(below)
    assert time.monotonic() - began < 10
    assert wait_until(lambda: not Path(folder).exists(), 5)
    assert shared_memory() <= before


@pytest.mark.slow
@pytest.mark.timeout(SESSIONS_S + 30)
def test_sessions_opened_and_closed_leave_nothing() -> None:
    """DISTORT_SESSIONS says how many (12); 1,000 take 10 to 30 minutes."""
    done = subprocess.run(
        [sys.executable, "-c", SESSIONS, HERE, str(N_SESSIONS)],
        capture_output=True,
        text=True,
        timeout=SESSIONS_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (threads, descriptors, actors, shared), after = json.loads(done.stdout.splitlines()[-1])
    assert actors == after[2] == 0
    assert after[0] <= threads + 1, "threads leak"
    assert after[1] <= descriptors + 2, "descriptors leak"
    assert after[3] <= shared, "shared memory leaks"
