"""A message through 1, 2 and 4 actors and back: distort against plain Ray actor calls and Ray's Compiled Graphs.

    python benchmarks/hops.py [--quick] [--without-graph]

Each actor negates what it gets: 8 bytes, and 1 MB. Plain: the driver calls the first actor, each next one takes the
reference of the one before, the driver fetches the last. Compiled Graph: `ray.dag`, compiled once; its teardown waits
for a timeout of its own, so it is given a few seconds, and then the actors are killed. All sides run in one process on
one Ray cluster and take turns, but the Compiled Graph, which comes after them: while its actors are there, all others
take longer. "Alone" is the executor before the others' actors are there. Medians, in microseconds, without a turn's
first calls, for which its side's processes wake up. A hop is what one more actor costs. Every process has one BLAS
thread (OMP_NUM_THREADS=1, set below).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from side_by_side import median_us, open_session, print_machine, print_table

PAYLOADS = {"8 B": 2, "1 MB": 1 << 18}  # floats
ACTORS = (1, 2, 4)
#: how long a Compiled Graph may take to end
TEARDOWN_S = 5.0


def chain(n_nodes: int) -> bytes:
    import onnx

    names = ["x", *(f"h{i}" for i in range(n_nodes - 1)), "y"]
    nodes = [onnx.helper.make_node("Neg", [names[i]], [names[i + 1]], f"neg_{i}") for i in range(n_nodes)]
    ends = [onnx.helper.make_tensor_value_info(name, 1, ["N"]) for name in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def ray_actors(n_actors: int) -> list[Any]:
    import ray

    @ray.remote(num_cpus=0)
    class Negative:
        def go(self, x: np.ndarray) -> np.ndarray:
            return -x

    return [Negative.remote() for _ in range(n_actors)]


def plain_calls(actors: list[Any], x: np.ndarray) -> Callable[[], np.ndarray]:
    import ray

    def call() -> np.ndarray:
        value: Any = x
        for actor in actors:
            value = actor.go.remote(value)
        return ray.get(value)

    return call


def compiled_graph(actors: list[Any], x: np.ndarray) -> tuple[Callable[[], np.ndarray], Any]:
    import ray
    from ray.dag import InputNode

    with InputNode() as node:
        value = node
        for actor in actors:
            value = actor.go.bind(value)
    graph = value.experimental_compile(_buffer_size_bytes=x.nbytes + (1 << 16))
    return lambda: ray.get(graph.execute(x)), graph


def end(actors: list[Any], graph: Any = None) -> None:
    import ray

    if graph is not None:
        ending = threading.Thread(target=graph.teardown, daemon=True)
        ending.start()
        ending.join(TEARDOWN_S)
    for actor in actors:
        ray.kill(actor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few calls: to see that it works")
    parser.add_argument("--without-graph", action="store_true", help="leave Compiled Graphs out")
    arguments = parser.parse_args()
    import ray

    rounds, calls = (3, 10) if arguments.quick else (20, 50)
    print_machine()
    found: dict[tuple[str, int], dict[str, float]] = {}
    for n_actors in ACTORS:
        with open_session(chain(n_actors), actors=n_actors) as session:
            executor = session._sess._loaded.engine.executor
            for payload, n_floats in PAYLOADS.items():
                x = np.arange(n_floats, dtype=np.float32)
                want = -x if n_actors % 2 else x

                def run(x: np.ndarray = x, executor: Any = executor) -> Any:
                    return executor.run(["y"], {"x": x})[0][0]

                found[payload, n_actors] = median_us({"alone": run}, rounds, calls)
                actors = ray_actors(n_actors)
                sides: dict[str, Callable[[], Any]] = {
                    "executor": run,
                    "session.run": lambda x=x, session=session: session.run(["y"], {"x": x})[0],
                    "plain calls": plain_calls(actors, x),
                }
                for name, call in sides.items():
                    assert np.array_equal(call(), want), name
                found[payload, n_actors] |= median_us(sides, rounds, calls)
                if not arguments.without_graph:
                    compiled = ray_actors(n_actors)
                    go, graph = compiled_graph(compiled, x)
                    assert np.array_equal(go(), want)
                    found[payload, n_actors] |= median_us({"Compiled Graph": go}, rounds, calls)
                    end(compiled, graph)
                end(actors)
    names = list(next(iter(found.values())))
    rows = []
    for payload in PAYLOADS:
        for n_actors in ACTORS:
            us = found[payload, n_actors]
            ratio = f"{us['plain calls'] / us['executor']:.1f}"
            rows.append((payload, str(n_actors), *(f"{us[name]:.0f}" for name in names), ratio))
        least, most = ACTORS[0], ACTORS[-1]
        hop = {name: (found[payload, most][name] - found[payload, least][name]) / (most - least) for name in names}
        ratio = f"{hop['plain calls'] / hop['executor']:.1f}" if hop["executor"] > 0 else ""
        rows.append((payload, "a hop", *(f"{hop[name]:.0f}" for name in names), ratio))
    print_table(("payload", "actors", *(f"{name} µs" for name in names), "plain ÷ executor"), rows)
    ray.shutdown()
    os._exit(0)  # a graph that is still being torn down would hold up the interpreter's end


if __name__ == "__main__":
    main()
