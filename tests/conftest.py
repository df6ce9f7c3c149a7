"""What every test run is held to: nothing left behind — no process, no shared memory, no temporary file."""

from __future__ import annotations

import atexit
import gc
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadFileScheduling

#: the real models lie beside the checkout where there are any
MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"


#: what starts actors, or looks at the processes and the shared memory of the whole machine
ONE_AT_A_TIME = re.compile(
    r"tests/(local|cluster|models|unit/cluster)/|tests/faults/test_bad_models|tests/catalogue/.*::test_result_with_actors\b"
)


class Workers(LoadFileScheduling):
    """Tests of a file go to one worker; all that has to do with a cluster to one as well, so that there is one."""

    def _split_scope(self, nodeid: str) -> str:
        return "cluster" if ONE_AT_A_TIME.search(nodeid) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Workers:
    return Workers(config, log)


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether a condition comes true within a time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def shared_memory() -> set[str]:
    """Names of shared memory, but those that carry the number of another process that lives."""
    try:
        names = set(os.listdir("/dev/shm"))
    except FileNotFoundError:
        return set()
    own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    return {
        name
        for name in names
        if not any(int(n) not in own and psutil.pid_exists(int(n)) for n in re.findall(r"(?<!\d)\d{2,7}(?!\d)", name))
    }


def pytest_configure() -> None:
    """A folder for the temporary files of this run, so that what is left there is this run's. Its name is short: Ray
    makes sockets below it."""
    folder = tempfile.mkdtemp(prefix="dt")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def temporary_files() -> set[str]:
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("distort")}


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """After the last test: Ray is shut down as at exit, and then nothing of ours is there that was not before."""
    memory, files = shared_memory(), temporary_files()
    yield
    gc.collect()
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    if "distort.cluster.resources" in sys.modules:
        sys.modules["distort.cluster.resources"].end_embedded()

    def children() -> list[str]:
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                name = " ".join(process.cmdline())
            except psutil.NoSuchProcess:
                continue
            if "ray" in name or "distort" in name:
                found.append(name)
        return found

    wait_until(lambda: not children(), 20)
    assert not children(), f"processes left behind: {children()}"
    assert not shared_memory() - memory, f"shared memory left behind: {shared_memory() - memory}"
    assert not temporary_files() - files, f"temporary files left behind: {temporary_files() - files}"


@pytest.fixture(scope="session", autouse=True)
def no_cluster_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Sessions would join the cluster that whoever runs the tests keeps warm; it is written down elsewhere."""
    os.environ["XDG_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("runtime"))


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of real models; tests that need it skip where it isn't."""
    if not MODELS.is_dir():
        pytest.skip("the real models are not here")
    return MODELS
