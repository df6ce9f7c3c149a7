"""Keep a Ray cluster of your own warm: parallel sessions join it rather than start one.

start is done at once where it runs already. It listens on this machine alone unless --host says otherwise; whoever
can reach it and has its token (~/.ray/auth_token) can run programs on it. Sessions without distort.address use it if
it was started in their environment, and those with distort.address=auto in any case. Exit code 1 of status: none runs.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from distort.cli import console
from distort.cli.arguments import positive
from distort.cli.errors import FAILED, OK

if TYPE_CHECKING:
    from distort.cluster.own_cluster import OwnCluster


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    start = actions.add_parser("start", help="Start it, and return when it answers.", allow_abbrev=False)
    start.add_argument("--host", default="127.0.0.1", help="the address to listen at (127.0.0.1)")
    start.add_argument("--port", type=int, default=0, help="its port (0: one that is free)")
    start.add_argument("--cpus", type=positive, metavar="N", help="CPUs to offer (this machine's)")
    start.add_argument("--timeout", type=positive, default=60, metavar="SECONDS", help="how long to wait for it (60)")
    status = actions.add_parser("status", help="Show its address, nodes and actors.", allow_abbrev=False)
    stop = actions.add_parser("stop", help="End it; nothing of it stays.", allow_abbrev=False)
    for action in (start, status, stop):
        action.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    return {"start": _start, "status": _status, "stop": _stop}[arguments.action](arguments)


def _start(arguments: argparse.Namespace) -> int:
    from distort.cluster import own_cluster

    began = time.perf_counter()
    with console.progress("starting a Ray cluster"):
        cluster, started = own_cluster.start(
            host=arguments.host, port=arguments.port, n_cpus=arguments.cpus, timeout_s=arguments.timeout
        )
    seconds = time.perf_counter() - began
    if arguments.json:
        console.print_json({**_facts(cluster), "started": started, "seconds": round(seconds, 3)})
    elif started:
        console.Screen().line(f"started in {seconds:.1f} s at {cluster.address}; `distort cluster stop` ends it")
    else:
        console.Screen().line(f"runs already, at {cluster.address}, since {_moment(cluster.since_s)}")
    return OK


def _stop(arguments: argparse.Namespace) -> int:
    from distort.cluster import own_cluster

    with console.progress("ending the cluster"):
        cluster = own_cluster.stop()
    if arguments.json:
        console.print_json({"stopped": cluster is not None, "address": cluster.address if cluster else None})
    else:
        console.Screen().line(f"ended, {cluster.address}" if cluster else "none runs")
    return OK


def _status(arguments: argparse.Namespace) -> int:
    from distort.cluster import own_cluster

    cluster = own_cluster.find()
    if cluster is None:
        if arguments.json:
            console.print_json({"running": False})
        else:
            console.Screen().line("none runs; `distort cluster start` starts one")
        return FAILED
    with console.progress(f"asking {cluster.address}"):
        nodes, actors = _seen(cluster)
    if arguments.json:
        console.print_json({"running": True, **_facts(cluster), "nodes": nodes, "actors": actors})
    else:
        _show(cluster, nodes, actors)
    return OK


def _seen(cluster: OwnCluster) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from dataclasses import asdict

    from distort.cluster.nodes import nodes, stage_actors
    from distort.cluster.resources import attach

    attach(cluster.address)
    return [asdict(node) for node in nodes()], [asdict(actor) for actor in stage_actors()]


def _facts(cluster: OwnCluster) -> dict[str, Any]:
    return {
        "address": cluster.address,
        "pid": cluster.pid,
        "since": _moment(cluster.since_s),
        "folder": cluster.folder,
        "python": cluster.python,
        "ray": cluster.ray_version,
        "joined_without_address": cluster.like_here,
    }


def _moment(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))


def _show(cluster: OwnCluster, nodes: list[dict[str, Any]], actors: list[dict[str, Any]]) -> None:
    from distort.scheduler.device import format_nbytes

    screen = console.Screen()
    screen.heading(f"Cluster at {cluster.address}, since {_moment(cluster.since_s)}")
    if cluster.like_here:
        screen.line("sessions of this environment use it without an address, others with distort.address = auto")
    else:
        screen.line(f"made in {cluster.python} (Python {cluster.python_version}, ray {cluster.ray_version}); sessions")
        screen.line("of this environment use it only with distort.address = auto")
    screen.heading("Nodes")
    screen.table(
        ("node", "host", "address", "CPUs", "free", "GPUs", "memory"),
        [
            (
                node["node_id"][:8],
                node["host"],
                node["address"],
                f"{node['n_cpus']:g}",
                f"{node['n_free_cpus']:g}",
                f"{node['n_gpus']:g}",
                format_nbytes(node["memory_nbytes"]),
            )
            for node in nodes
        ],
        frozenset({3, 4, 5, 6}),
    )
    screen.heading("Actors of sessions")
    if not actors:
        screen.line("none")
        return
    rows = [(actor["actor_id"][:8], actor["state"], actor["node_id"][:8], str(actor["pid"])) for actor in actors]
    screen.table(("actor", "state", "node", "process"), rows, frozenset({3}))
