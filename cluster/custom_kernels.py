"""Kernels that the user registered, on their way to the actors.

Functions travel by value: the module that defines them need not exist where the actor runs. What they import does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from distort.graph.ir import Graph
from distort.kernels import registry
from distort.kernels.registry import Kernel


def pack(graph: Graph) -> bytes:
    """The user's kernels for a graph's operators; empty where there are none."""
    kernels: dict[int, Kernel] = {}
    for domain, op_type in dict.fromkeys(_operators(graph)):
        kernels.update((id(entry), entry) for entry in registry.custom_of(domain, op_type))
    if not kernels:
        return b""
    from ray import cloudpickle

    fields = [
        (k.domain, k.op_type, k.since, k.device, k.function, k.host, k.prepare, k.module) for k in kernels.values()
    ]
    with ExitStack() as stack:
        for module in _modules(kernels.values()):
            cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]  # it has no types
            stack.callback(cloudpickle.unregister_pickle_by_value, module)
        return bytes(cloudpickle.dumps(fields))  # type: ignore[no-untyped-call]  # it has no types


def unpack(content: bytes) -> None:
    from ray import cloudpickle

    for fields in cloudpickle.loads(content):
        registry.add_custom(registry.entry_of(*fields))


def _operators(graph: Graph) -> Iterator[tuple[str, str]]:
    for node in graph.nodes:
        yield node.domain, node.op_type
        for body in node.subgraphs():
            yield from _operators(body)


def _modules(kernels: Any) -> list[ModuleType]:
    """Modules of the functions, but those that are part of this package: every actor has them."""
    names = {f.__module__ for k in kernels for f in (k.function, k.prepare) if f is not None}
    return [sys.modules[name] for name in sorted(names) if name in sys.modules and not name.startswith("distort.")]
