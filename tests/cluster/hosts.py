"""Hosts as network namespaces: a head and two workers behind a bridge, each with an address and a link of its own.

``python hosts.py NAME FOLDER`` as root. Everything has names of this process, and is removed at the end.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import scenarios  # beside this file

#: Ray's own idea of when a node is gone is minutes away from what is looked at here
TIMEOUT_S = 15.0


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Hosts:
    """Namespaces dsPID-0 (the bridge's, the head's), -1, -2, … at 10.213.77.(n + 1)."""

    def __init__(self, count: int, folder: Path) -> None:
        self.names = [f"ds{os.getpid()}-{n}" for n in range(count)]
        self._folder = folder
        self._token = secrets.token_hex(32)
        self._processes: list[subprocess.Popen[bytes]] = []

    def _inside(self, host: int) -> list[str]:
        return ["ip", "netns", "exec", self.names[host]]

    def address(self, host: int) -> str:
        return f"10.213.77.{host + 1}"

    def make(self) -> None:
        head = self.names[0]
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", head, "link", "add", "bridge", "type", "bridge")
        ip("-n", head, "addr", "add", f"{self.address(0)}/24", "dev", "bridge")
        ip("-n", head, "link", "set", "bridge", "up")
        for n, name in enumerate(self.names[1:], 1):
            ip("-n", head, "link", "add", f"to{n}", "type", "veth", "peer", "name", "up0", "netns", name)
            ip("-n", head, "link", "set", f"to{n}", "master", "bridge", "up")
            ip("-n", name, "addr", "add", f"{self.address(n)}/24", "dev", "up0")
            ip("-n", name, "link", "set", "up0", "up")

    def ray(self, host: int, n_cpus: int) -> subprocess.Popen[bytes]:
        """A Ray node on a host, in a session of its own."""
        folder = f"/tmp/{self.names[host]}-{len(self._processes)}"
        where = (
            ["--head", "--port=6379", "--include-dashboard=False"]
            if host == 0
            else [f"--address={self.address(0)}:6379"]
        )
        command = [
            "ip",
            "netns",
            "exec",
            self.names[host],
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
        ]
        with (self._folder / f"ray{len(self._processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *command,
                    *where,
                    f"--node-ip-address={self.address(host)}",
                    f"--num-cpus={n_cpus}",
                    "--object-store-memory=100000000",
                    f"--temp-dir={folder}",
                    "--disable-usage-stats",
                    "--include-log-monitor=False",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token},
                cwd="/",
            )
        self._processes.append(process)
        return process

    def answers(self, host: int) -> bool:
        script = f"import socket; socket.create_connection(({self.address(host)!r}, 6379), 1)"
        command = [*self._inside(host), sys.executable, "-c", script]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def cut(self, host: int) -> None:
        ip("-n", self.names[0], "link", "set", f"to{host}", "down")

    def join(self, host: int) -> None:
        ip("-n", self.names[0], "link", "set", f"to{host}", "up")

    def driver(self, function: str, folder: Path) -> Any:
        """Run a function of this module on the head's host, with orders (cut 1, join 1, …) taken from its stdout."""
        command = [*self._inside(0), sys.executable, __file__, function, str(folder)]
        environment = {**os.environ, "RAY_AUTH_TOKEN": self._token}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment
        )
        assert process.stdout is not None and process.stdin is not None
        found = None
        try:
            for line in process.stdout:
                words = line.split()
                if words[:1] == ["do"]:
                    getattr(self, words[1])(*map(int, words[2:]))
                    process.stdin.write("done\n")
                    process.stdin.flush()
                elif line.startswith("{"):
                    found = json.loads(line)
        finally:
            process.kill()
            process.wait()
        assert found is not None, "the driver has failed, and says why above"
        return found

    def kill_raylet(self, node: int) -> None:
        """Of the nth node that was started."""
        from distort.cluster.processes import members_of

        for pid in members_of(self._processes[node].pid):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet":
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        from distort.cluster.keeper import kill_members

        for process in self._processes:
            kill_members(process.pid)
            process.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        for n, _ in enumerate(self._processes):
            for name in self.names:
                subprocess.run(["rm", "-rf", f"/tmp/{name}-{n}"], check=False)


@contextmanager
def hosts(count: int, folder: Path) -> Iterator[Hosts]:
    made = Hosts(count, folder)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def order(text: str) -> None:
    """Ask whoever holds the namespaces for something, and wait for it."""
    print("do", text, flush=True)
    input()


def two_workers(folder: Path) -> dict[str, Any]:
    """The head, which hosts no actors, and two workers of one CPU."""
    with hosts(3, folder) as made:
        made.ray(0, 0)
        wait_for(lambda: made.answers(0))  # workers give up on a head that isn't there
        made.ray(1, 1)
        made.ray(2, 1)
        found: dict[str, Any] = made.driver("on_the_head", folder)
        return found


def on_the_head(folder: Path) -> dict[str, Any]:
    from distort.cluster import nodes, resources

    address = "10.213.77.1:6379"
    resources.attach(address)
    wait_for(lambda: len(nodes.nodes()) == 3)
    found: dict[str, Any] = {}
    session = scenarios.open_session(address, 2, timeout_s=str(TIMEOUT_S))
    executor = session._sess._loaded.engine.executor
    found["addresses"] = [host.facts.node_ip for host in executor._hosts]
    found["right"] = scenarios.right(session)
    found["edges"] = sorted({edge["transport"] for edge in session.get_transfer_stats()})
    trips = scenarios.trips_of(3)
    want = float(scenarios.distort.InferenceSession(scenarios.build()).run(None, scenarios.feeds(trips))[0].sum())

    def during(disturb: str) -> dict[str, Any]:
        """A run in the middle of which something happens."""
        ended: list[dict[str, Any]] = []

        def run() -> None:
            ended.append(scenarios.outcome(lambda: float(session.run(None, scenarios.feeds(trips))[0].sum()) == want))

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.3)
        order(disturb)
        under_way = not ended
        thread.join(60)
        return {"under way": under_way, **ended[0]} if ended else {"error": "hangs"}

    def rejoin() -> None:
        """The second worker is back: it answers again, or was cut off for so long that Ray has ended it."""
        order("join 2")
        wait_for(lambda: len(on_second(nodes.answering(nodes.nodes()))) == len(on_second(nodes.nodes())))
        if not on_second(nodes.nodes()):
            order("ray 2 1")
            wait_for(lambda: on_second(nodes.answering(nodes.nodes())))

    def on_second(found: Sequence[nodes.Node]) -> list[nodes.Node]:
        return [node for node in found if node.address == "10.213.77.3"]

    # no other node has room: an error, in time
    second = found["addresses"].index("10.213.77.3")
    found["cut"] = during("cut 2")
    found["cut again"] = scenarios.outcome(lambda: scenarios.right(session))
    found["second"] = second
    began = time.monotonic()
    session.close()
    found["closing"] = time.monotonic() - began
    rejoin()
    wait_for(lambda: sum(node.n_free_cpus for node in nodes.answering(nodes.nodes())) == 2)
    session = scenarios.open_session(address, 2, timeout_s=str(TIMEOUT_S))
    executor = session._sess._loaded.engine.executor
    found["before"] = [host.facts.node_ip for host in executor._hosts]
    order("ray 1 1")  # a node in reserve, on the other worker
    wait_for(lambda: len(nodes.answering(nodes.nodes())) == 4)
    found["cut, with a reserve"] = during("cut 2")
    found["moved"] = [host.facts.node_ip for host in executor._hosts]
    rejoin()
    found["raylet killed"] = during("kill_raylet 1")
    # (the run may have been past what was there)
    wait_for(lambda: len({host.facts.node_ip for host in executor._hosts}) == 2)
    found["moved again"] = [host.facts.node_ip for host in executor._hosts]
    found["right again"] = scenarios.right(session)
    session.close()
    return found


def wait_for(condition: Any, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come about")
        time.sleep(0.1)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))), flush=True)
