"""The user's cluster as it is written down: what runs, what died, and whose process number it is now."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distort.cluster import own_cluster
from distort.cluster.errors import ClusterError
from distort.cluster.own_cluster import OwnCluster
from distort.cluster.processes import boot_id, is_running, members_of, start_ticks

SLEEPER = [sys.executable, "-c", "input()"]


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session, as the one that holds a cluster does."""
    with subprocess.Popen(SLEEPER, stdin=subprocess.PIPE, start_new_session=True) as started:
        yield started
        started.kill()


@pytest.fixture
def state(process: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnCluster:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    folder = tmp_path / "ray"
    folder.mkdir()
    (folder / "log").write_text("started")
    pid = process.pid
    environment = own_cluster._environment()
    return OwnCluster("127.0.0.1:1", pid, start_ticks(pid), boot_id(), 0.0, str(folder), *environment)


def write(state: OwnCluster) -> None:
    own_cluster.state_file().parent.mkdir(parents=True)
    own_cluster.state_file().write_text(json.dumps(dataclasses.asdict(state)))


def test_nothing_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert own_cluster.find() is None
    assert own_cluster.stop() is None


def test_one_that_runs_is_found_and_kept(state: OwnCluster) -> None:
    write(state)
    assert own_cluster.find() == state
    assert state.like_here
    assert own_cluster.start() == (state, False)


def test_one_of_another_environment(state: OwnCluster) -> None:
    assert not dataclasses.replace(state, python="/elsewhere").like_here
    assert not dataclasses.replace(state, ray_version="2.0").like_here


@pytest.mark.parametrize("change", [{"started_ticks": 1}, {"boot": "another"}, {"address": ""}])
def test_what_does_not_run_is_not_found(state: OwnCluster, change: dict[str, object]) -> None:
    write(dataclasses.replace(state, **change))  # type: ignore[arg-type]  # fields by name
    assert own_cluster.find() is None


@pytest.mark.parametrize("change", [{"started_ticks": 1}, {"boot": "another"}])
def test_a_number_that_passed_to_somebody_else_is_left_alone(
    state: OwnCluster, process: subprocess.Popen[bytes], change: dict[str, object]
) -> None:
    write(dataclasses.replace(state, **change))  # type: ignore[arg-type]  # fields by name
    assert own_cluster.stop() is None
    assert process.poll() is None
    assert not own_cluster.state_file().exists() and not Path(state.folder).exists()


def test_stopping_ends_the_session_and_removes_the_files(
    state: OwnCluster, process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    write(state)
    assert own_cluster.stop() == state
    assert process.wait(5) == -signal.SIGTERM
    assert members_of(process.pid) == []
    assert not Path(state.folder).exists()
    assert list((tmp_path / "runtime" / "distort").iterdir()) == []


def test_what_a_dead_leader_left_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    script = f"import subprocess, sys; p = subprocess.Popen({SLEEPER!r}, stdin=subprocess.PIPE); print(p.pid); input()"
    leader = subprocess.Popen(
        [sys.executable, "-uc", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout is not None and leader.stdin is not None
    member = int(leader.stdout.readline())
    began = start_ticks(member)
    state = OwnCluster("h:1", leader.pid, start_ticks(leader.pid), boot_id(), 0.0, str(tmp_path / "ray"), "", "", "")
    # the member holds its pipe itself, so that it outlives the leader's
    os.kill(member, signal.SIGSTOP)
    leader.kill()
    leader.wait()
    assert is_running(member, began) and members_of(leader.pid) == [member]
    write(state)
    assert own_cluster.stop() is None
    assert not is_running(member, began)
    leader.stdin.close()
    leader.stdout.close()


def test_a_file_that_cannot_be_read_is_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    own_cluster.state_file().parent.mkdir()
    for text in ("", "{", "[]", '{"address": "h:1"}'):
        own_cluster.state_file().write_text(text)
        assert own_cluster.find() is None
    assert own_cluster.stop() is None and not own_cluster.state_file().exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])  # a port that is taken, an address that is elsewhere
def test_where_nothing_can_listen(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"can't listen at {host}:{port}: .*Choose another port"):
            own_cluster.start(host=host, port=port)
    assert list(own_cluster.state_file().parent.iterdir()) == []
