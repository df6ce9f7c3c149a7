"""``distort cluster``: started once, joined by sessions of other processes, and gone when it is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx.parser
import psutil
import pytest

from ..conftest import wait_until

Command = Callable[..., Any]

#: a parallel session in a process of its own: what it joined, and what it answers
SESSION = """
import json, sys, time
import numpy as np, onnx.parser
began = time.perf_counter()
import ray
import distort
from distort.cluster import resources
connection = resources.attach(*sys.argv[1:])
joined_s = time.perf_counter() - began
text = '<ir_version: 10, opset_import: ["" : 21]> g (float[N,3] x) => (float[N,3] y) { a = Relu(x)  y = Neg(a) }'
options = distort.SessionOptions()
options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
options.inter_op_num_threads = 4  # more than many a machine has CPUs
options.add_session_config_entry("distort.start", "wait")
for address in sys.argv[1:]:
    options.add_session_config_entry("distort.address", address)
with distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString(), options) as session:
    (y,) = session.run(None, {"x": np.ones((2, 3), np.float32)})
print(json.dumps([connection.kind, y.tolist(), joined_s]))
"""


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    def lives(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:  # it ended between the two
            return False

    return [process for process in processes if lives(process)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An account of its own, but for Ray's token."""
    return {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path_factory.mktemp("runtime"))}


@pytest.fixture(scope="module")
def command(environment: dict[str, str]) -> Iterator[Command]:
    def run(*arguments: str, code: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "distort.cli", "cluster", *arguments, "--json"],
            capture_output=True,
            text=True,
            env=environment,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert done.stderr == ""
        return json.loads(done.stdout)

    yield run
    run("stop")


@pytest.fixture(scope="module")
def started(command: Command) -> Any:
    return command("start")


def session(environment: dict[str, str], *address: str) -> tuple[str, Any, float]:
    done = subprocess.run(
        [sys.executable, "-c", SESSION, *address],
        capture_output=True,
        text=True,
        env=environment,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kind, y, joined_s = json.loads(done.stdout)
    return kind, y, joined_s


@pytest.mark.parametrize("address", [(), ("auto",)], ids=["without", "auto"])
def test_a_session_joins_it(environment: dict[str, str], started: Any, address: tuple[str, ...]) -> None:
    kind, y, joined_s = session(environment, *address)
    assert kind == "own"
    assert y == [[-1.0] * 3] * 2
    assert joined_s < 5  # 0.3 s on a quiet machine; starting one takes as long on the quickest


def test_the_example_runs_on_it(environment: dict[str, str], started: Any, tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[N,3] x) => (float[N,3] y) { a = Relu(x)  y = Neg(a) }'
    (tmp_path / "model.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    program = Path(__file__).resolve().parents[2] / "examples" / "cluster" / "run_model.py"
    done = subprocess.run(
        [sys.executable, str(program), "model.onnx", "--actors", "2", "--runs", "3", "--dim", "N=5"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "y: (5, 3)" in done.stdout and "ms a run" in done.stdout and "a: 0 -> 1, 180 bytes" in done.stdout


def test_starting_it_again_leaves_it_as_it_is(command: Command, started: Any) -> None:
    again = command("start")
    assert again["started"] is False
    assert (again["address"], again["pid"]) == (started["address"], started["pid"])


def test_it_tells_of_itself(command: Command, started: Any) -> None:
    status = command("status")
    assert status["running"] and status["address"] == started["address"] and status["joined_without_address"]
    (node,) = status["nodes"]
    assert node["n_cpus"] == os.cpu_count() and node["address"] == "127.0.0.1" and node["here"]
    assert status["actors"] == []


def test_a_killed_program_takes_its_actors_along(command: Command, environment: dict[str, str], started: Any) -> None:
    waiting = SESSION.replace("print(json", "    print(json", 1) + "    sys.stdout.flush(); time.sleep(600)\n"
    with subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, env=environment) as program:
        try:
            assert program.stdout is not None and json.loads(program.stdout.readline())[0] == "own"
            actors = command("status")["actors"]
            assert len(actors) == 2 and {actor["state"] for actor in actors} == {"ALIVE"}  # a node of the model each
            processes = [psutil.Process(actor["pid"]) for actor in actors]
            assert len(alive(processes)) == 2
        finally:
            program.kill()
    assert wait_until(lambda: not alive(processes), 10)
    assert wait_until(lambda: command("status")["actors"] == [], 10)


def test_it_listens_on_loopback_alone(started: Any) -> None:
    listening = {
        connection.laddr.ip
        for process in [psutil.Process(started["pid"]), *children_of(started["pid"])]
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening and listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_it_asks_for_the_token(environment: dict[str, str], started: Any, tmp_path: Path) -> None:
    from distort.cluster.head import asks_for_tokens

    if not asks_for_tokens():
        pytest.skip("this Ray starts clusters without tokens")
    stranger = {**environment, "HOME": str(tmp_path), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    script = f"from ray._raylet import GcsClient; GcsClient(address={started['address']!r})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=stranger, timeout=60, check=False
    )
    assert done.returncode != 0 and "InvalidAuthToken" in done.stderr


def test_a_killed_one_is_noticed_and_replaced(command: Command, started: Any) -> None:
    members = [psutil.Process(started["pid"]), *children_of(started["pid"])]
    os.kill(started["pid"], signal.SIGKILL)
    # Ray's head goes with its keeper; its agents stay behind until the next start
    assert wait_until(lambda: len(alive(members)) < len(members), 10)
    assert command("status", code=1) == {"running": False}
    assert Path(started["folder"]).exists()
    began = time.monotonic()
    new = command("start")
    assert new["started"] and new["pid"] != started["pid"]
    assert not alive(members)
    assert not Path(started["folder"]).exists()
    members = [psutil.Process(new["pid"]), *children_of(new["pid"])]
    assert command("stop") == {"stopped": True, "address": new["address"]}
    assert not alive(members)
    assert not Path(new["folder"]).exists()
    assert time.monotonic() - began < 60
    assert command("stop") == {"stopped": False, "address": None}
