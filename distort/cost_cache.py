"""Measured costs on disk: one small file a measurement, there whole or not at all.

A file is named by what it is a measurement of: the model's structure, the machine, the version, then threads and feeds.
What can't be read is as if it weren't there.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from distort.graph import atomic, caching
from distort.graph.ir import Graph, SparseInitializer

#: raised whenever the files' meaning changes
FORMAT = 1
#: the cache holds at most this many measurements, and bytes; the longest unused ones go first
MOST_FILES = 256
MOST_NBYTES = 64 * 2**20
#: initializers up to this many bytes count with their values: shapes and axes, on which costs depend
_SMALL_NBYTES = 256


@dataclass(frozen=True, slots=True)
class Measurement:
    """µs of each node of a graph in its order (None: it didn't run), with ``threads`` threads."""

    threads: int
    node_us: tuple[float | None, ...]
    shapes: Mapping[str, tuple[str, tuple[int, ...]]]  # of the feeds: element type and sizes
    n_runs: int
    value_nbytes: Mapping[str, int] = field(default_factory=dict)  # of what the nodes made


def folder() -> Path:
    """Where measurements are."""
    return caching.folder("costs")


def key_of(graph: Graph, version: str) -> str:
    """Names the structure of a graph, the machine and the version."""
    digest = hashlib.sha256(repr((FORMAT, version, machine())).encode())
    _add_graph(digest, graph)
    return digest.hexdigest()[:32]


def load(key: str, threads: int, shapes: Mapping[str, tuple[str, tuple[int, ...]]], n_nodes: int) -> Measurement | None:
    """The measurement with these feeds."""
    return _read(folder() / _name(key, threads, shapes), n_nodes)


def newest(key: str, threads: int, n_nodes: int) -> Iterator[Measurement]:
    """Measurements with any feeds, the last made or used first."""
    files: list[tuple[float, str, Path]] = []
    for path in folder().glob(f"{key}-{threads}-*.json"):
        with suppress(OSError):  # another process took it away
            files.append((path.stat().st_mtime, path.name, path))
    found = (_read(path, n_nodes) for _, _, path in sorted(files, reverse=True))
    return (measurement for measurement in found if measurement is not None)


def store(key: str, measurement: Measurement) -> None:
    """Keep a measurement, and the cache within its bounds. Raises OSError where the folder can't be written."""
    where = folder()
    where.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "threads": measurement.threads,
        "n_runs": measurement.n_runs,
        "shapes": {name: [element, list(sizes)] for name, (element, sizes) in measurement.shapes.items()},
        "node_us": measurement.node_us,
        "value_nbytes": dict(measurement.value_nbytes),
    }
    with atomic.writing(where / _name(key, measurement.threads, measurement.shapes)) as file:
        file.write(json.dumps(content).encode())
    caching.trim(where, ".json", MOST_FILES, MOST_NBYTES)


def _name(key: str, threads: int, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    feeds = hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()[:16]
    return f"{key}-{threads}-{feeds}.json"


def _read(path: Path, n_nodes: int) -> Measurement | None:
    try:
        content = json.loads(path.read_bytes())
        measurement = Measurement(
            int(content["threads"]),
            tuple(None if us is None else float(us) for us in content["node_us"]),
            {name: (str(kind), tuple(map(int, sizes))) for name, (kind, sizes) in content["shapes"].items()},
            int(content["n_runs"]),
            {name: int(nbytes) for name, nbytes in content["value_nbytes"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    times = [us for us in measurement.node_us if us is not None]
    if content["format"] != FORMAT or len(measurement.node_us) != n_nodes:
        return None
    if not all(math.isfinite(us) and us >= 0 for us in times):
        return None
    caching.mark_used(path)
    return measurement


@cache
def machine() -> str:
    """What the speed of this machine depends on: its processor, what that can do, and the arithmetic library."""
    lines: list[str] = []
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
        wanted = ("model name", "flags", "Features", "cache size", "CPU part")
        lines = [line for line in text.splitlines() if line.partition(":")[0].strip() in wanted]
    except OSError:
        lines = [platform.processor()]
    return "\n".join([platform.machine(), platform.system(), np.__version__, str(os.cpu_count()), *lines])


def _add_graph(digest: Any, graph: Graph) -> None:
    def add(*parts: object) -> None:
        digest.update(repr(parts).encode())

    add(graph.inputs, graph.outputs, [str(graph.types.get(name)) for name in graph.inputs])
    add([getattr(graph.types.get(name), "shape", None) for name in graph.inputs])
    for name, value in sorted(graph.initializers.items()):
        if isinstance(value, SparseInitializer):
            add(name, "sparse", value.dims, value.values.size)
        else:
            add(name, str(value.dtype), value.shape)
            if value.nbytes <= _SMALL_NBYTES and value.dtype != np.object_:
                digest.update(value.tobytes())
    for node in graph.nodes:
        add(node.domain, node.op_type, node.opset, node.inputs, node.outputs)
        for name, attribute in sorted(node.attributes.items()):
            if isinstance(attribute, Graph):
                add(name)
                _add_graph(digest, attribute)
            elif isinstance(attribute, np.ndarray):
                add(name, str(attribute.dtype), attribute.shape)
            else:
                add(name, str(attribute))
