"""What a node costs on a device: measured where somebody measured, else flops, bytes and a fixed overhead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from distort.graph.ir import Graph, Initializer, Node, SparseInitializer
from distort.graph.types import DTYPE_OF, SparseTensorType, TensorType, ValueType
from distort.scheduler.device import LOCAL, Device, cpu
from distort.scheduler.flops import Operands, Shape, flops, is_free, is_product, passes, reads_selected, slowness

#: µs that starting one kernel costs, whatever its size: a step of compiled code; a launch on a GPU
NODE_OVERHEAD_US = {"cpu": 0.2, "cuda": 8.0}
#: what runs the nodes of a GPU's stage that no GPU can run
_HOST = cpu()
#: elements of 16 bits, of which products have units of their own on GPUs
_HALVES = (10, 16)
#: iterations of a Loop whose trip count nothing tells
TRIP_COUNT_GUESS = 8
#: bytes of one string, where its length isn't known
STRING_NBYTES = 16


@dataclass(frozen=True, slots=True)
class Work:
    """What a node does: arithmetic, bytes read and written, kernels started (more than one for control flow)."""

    flops: float
    nbytes: float
    kernels: float = 1.0
    slowness: float = 1.0  # of a CPU at this arithmetic, against products of float32
    product_flops: float = 0.0  # of the flops, those of products of 32 bits and of 16
    half_flops: float = 0.0

    @property
    def effort(self) -> float:
        """Flops as a CPU feels them."""
        return self.flops * self.slowness

    def scaled(self, times: float) -> Work:
        return Work(
            self.flops * times,
            self.nbytes * times,
            self.kernels * times,
            self.slowness,
            self.product_flops * times,
            self.half_flops * times,
        )

    def __add__(self, other: Work) -> Work:
        flops = self.flops + other.flops
        slowness = (self.effort + other.effort) / flops if flops else 1.0
        return Work(
            flops,
            self.nbytes + other.nbytes,
            self.kernels + other.kernels,
            slowness,
            self.product_flops + other.product_flops,
            self.half_flops + other.half_flops,
        )


def weight_nbytes(value: Initializer) -> int:
    if isinstance(value, SparseInitializer):
        return int(value.values.nbytes + value.indices.nbytes)
    if value.dtype == np.object_:
        return sum(len(str(item).encode()) for item in value.reshape(-1))
    return int(value.nbytes)


class CostModel:
    """Costs of a graph's nodes and bytes of its values, with symbolic dimensions set by ``dims``.

    A dimension that is unknown counts as 1, and its value is listed in ``unknown_values``. ``measured`` is µs by node
    index, by the number of threads of a CPU that it was measured with; it wins over any estimate. Other numbers of
    threads are scaled from it as the estimates of both are. ``measured_nbytes`` is what values were then; shapes count
    for the others. ``on_host`` are nodes that no GPU can run: a GPU's stage runs them on a thread of its host, and
    copies what they read and make.
    """

    def __init__(
        self,
        graph: Graph,
        dims: Mapping[str, int] | None = None,
        measured: Mapping[int, Mapping[int, float]] | None = None,
        measured_nbytes: Mapping[str, int] | None = None,
        on_host: frozenset[int] = frozenset(),
    ) -> None:
        self.graph = graph
        self.on_host = on_host
        self.dims = dict(dims or {})
        self.measured = {threads: dict(times) for threads, times in (measured or {}).items() if times}
        self.measured_nbytes = dict(measured_nbytes or {})
        self._costs: dict[tuple[object, ...], list[float]] = {}
        self._unknown: dict[str, None] = {}
        self._shapes: dict[str, Shape | None] = {}

    @cached_property
    def work(self) -> tuple[Work, ...]:
        """Of every node, in the graph's order."""
        return tuple(self._node_work(node) for node in self.graph.nodes)

    @property
    def unknown_values(self) -> tuple[str, ...]:
        """Values asked for so far whose rank, type or a dimension isn't known."""
        return tuple(self._unknown)

    def node_cost_us(self, node: int, device: Device) -> float:
        """Of the node at index ``node``: the slower of arithmetic and memory, and the overhead of starting it."""
        if device.kind == "cpu" and self.measured:
            # More threads take no longer: where they were measured to, others were at work on the machine.
            at_most = [threads for threads in self.measured if threads <= device.threads] or [min(self.measured)]
            known = [(self.measured[threads][node], threads) for threads in at_most if node in self.measured[threads]]
            if known:
                time_us, _ = min(known)
                if device.threads in self.measured:
                    return time_us
                threads = max(at_most)
                like = replace(device, threads=threads, gflops=device.gflops * threads / device.threads)
                return time_us * self._estimate_us(node, device) / self._estimate_us(node, like)
        return self._estimate_us(node, device)

    def _estimate_us(self, node: int, device: Device) -> float:
        work = self.work[node]
        if device.kind == "cuda":
            if node in self.on_host:
                return self._copied_us(node)
            views = is_free(self.graph.nodes[node].op_type) and work.kernels <= 1
            return 0.0 if views else _gpu_us(work, device)  # a view launches nothing
        busy_us = max(work.effort / (device.gflops * 1e3), work.nbytes / (device.gbytes_per_s * 1e3))
        return busy_us + work.kernels * NODE_OVERHEAD_US[device.kind]

    def _copied_us(self, node: int) -> float:
        """Of a node on the host of a GPU, with what it reads from the GPU and brings there."""
        name = self.graph.nodes[node]
        read = sum(self.value_nbytes(v) or 0 for v in name.inputs if v and v not in self.graph.initializers)
        made = sum(self.value_nbytes(v) or 0 for v in name.outputs if v)
        copies_us = LOCAL.from_gpu.transfer_us(read) + LOCAL.to_gpu.transfer_us(made)
        return self.node_cost_us(node, _HOST) + copies_us

    def node_costs_us(self, device: Device) -> list[float]:
        """Of all nodes, in the graph's order."""
        key = device.speeds
        if key not in self._costs:
            self._costs[key] = [self.node_cost_us(node, device) for node in range(len(self.graph.nodes))]
        return self._costs[key]

    def basis(self, device: Device) -> str:
        """What the costs of a device rest on, for people."""
        if device.kind != "cpu" or not self.measured:
            return "estimated from operators and shapes"
        threads = ", ".join(map(str, sorted(self.measured)))
        known = max(len(times) for times in self.measured.values())
        text = f"measured on this machine with {threads} thread{'' if threads == '1' else 's'}"
        if device.threads not in self.measured:
            text += f", and scaled to {device.threads}"
        if known < len(self.graph.nodes):
            text += f" ({len(self.graph.nodes) - known} nodes estimated)"
        return text

    def value_nbytes(self, name: str) -> int | None:
        """Bytes of a value; None where its type or rank isn't known. Symbols nobody set count as 1."""
        initializer = self.graph.initializers.get(name)
        if initializer is not None:
            return weight_nbytes(initializer)
        if name in self.measured_nbytes:
            return self.measured_nbytes[name]
        value_type = self.graph.types.get(name)
        shape = self.shape(name)
        if shape is None or not isinstance(value_type, (TensorType, SparseTensorType)):
            self._unknown[name] = None
            return None
        return prod(shape) * _itemsize(value_type)

    def weights_nbytes(self, names: Iterable[str]) -> int:
        """Bytes of the initializers among ``names``, each once."""
        known = self.graph.initializers
        return sum(weight_nbytes(known[name]) for name in dict.fromkeys(names) if name in known)

    def shape(self, name: str) -> Shape | None:
        """The shape with every dimension a number; None where the rank isn't known."""
        if name not in self._shapes:
            self._shapes[name] = self._resolve(name)
        return self._shapes[name]

    def _resolve(self, name: str) -> Shape | None:
        initializer = self.graph.initializers.get(name)
        if initializer is not None:
            return tuple(initializer.dims if isinstance(initializer, SparseInitializer) else initializer.shape)
        value_type: ValueType | None = self.graph.types.get(name)
        if not isinstance(value_type, (TensorType, SparseTensorType)) or value_type.shape is None:
            self._unknown[name] = None
            return None
        sizes = []
        for dim in value_type.shape:
            size = self.dims.get(dim) if isinstance(dim, str) else dim
            if size is None:
                self._unknown[name] = None
                size = 1
            sizes.append(size)
        return tuple(sizes)

    def _node_work(self, node: Node) -> Work:
        inputs = [self.shape(name) if name else None for name in node.inputs]
        outputs = [self.shape(name) if name else None for name in node.outputs]
        n_flops, is_half = flops(Operands(node, inputs, outputs)), self._is_half(node)
        work = Work(n_flops, self._traffic(node), 1.0, slowness(node.op_type))
        if is_product(node.op_type):
            work = replace(work, product_flops=0.0 if is_half else n_flops, half_flops=n_flops if is_half else 0.0)
        if (several := passes(node.op_type)) > 1:
            work = replace(work, kernels=several)
        bodies = [self._body_work(body) for body in node.subgraphs()]
        if not bodies:
            return work
        if node.op_type == "If":
            return work + max(bodies, key=lambda body: (body.flops, body.nbytes, body.kernels))
        total = Work(0.0, 0.0, 0.0)
        for body in bodies:
            total = total + body
        return work + total.scaled(self.trip_count(node))

    def _is_half(self, node: Node) -> bool:
        """Whether a node computes in 16 bits, by its first input."""
        name = node.inputs[0] if node.inputs else ""
        value_type, value = self.graph.types.get(name), self.graph.initializers.get(name)
        if isinstance(value, np.ndarray):
            return value.dtype.itemsize == 2 and value.dtype.kind not in "iub"
        return isinstance(value_type, TensorType) and value_type.element in _HALVES

    def _traffic(self, node: Node) -> float:
        if is_free(node.op_type):
            return 0.0
        written = sum(self.value_nbytes(name) or 0 for name in node.outputs if name)
        read = [self.value_nbytes(name) or 0 for name in node.inputs if name]
        if reads_selected(node.op_type) and read:
            read[0] = min(read[0], written)
        return float(written + sum(read))

    def _body_work(self, body: Graph) -> Work:
        inner = CostModel(
            Graph(
                inputs=body.inputs,
                nodes=body.nodes,
                initializers={**self.graph.initializers, **body.initializers},
                types={**self.graph.types, **body.types},
            ),
            self.dims,
        )
        total = Work(0.0, 0.0, 0.0)
        for work in inner.work:
            total = total + work
        return total

    def trip_count(self, node: Node) -> int:
        """Iterations of a Loop (its constant trip count) or a Scan (its sequence's length); a guess for others."""
        if node.op_type == "Loop" and node.inputs and node.inputs[0]:
            count = self.graph.initializers.get(node.inputs[0])
            if isinstance(count, np.ndarray) and count.size == 1:
                given = int(count.reshape(-1)[0])
                return given if 0 <= given < 2**31 else TRIP_COUNT_GUESS
        if node.op_type == "Scan" and node.inputs:
            n_scanned = int(node.attributes.get("num_scan_inputs", 1))
            axes: Any = node.attributes.get("scan_input_axes") or [0]
            shape = self.shape(node.inputs[-n_scanned]) if n_scanned else None
            if shape and -len(shape) <= axes[0] < len(shape):
                # version 8 has a batch axis in front
                return int(shape[axes[0]] if node.opset != 8 or len(shape) < 2 else shape[0] * shape[1])
        return TRIP_COUNT_GUESS


def _gpu_us(work: Work, device: Device) -> float:
    """A roofline with several roofs, and the launches."""
    products = device.product_gflops or device.gflops
    others = max(0.0, work.flops - work.product_flops - work.half_flops)
    busy_us = (
        others / device.gflops + work.product_flops / products + work.half_flops / (device.half_gflops or products)
    )
    return max(busy_us / 1e3, work.nbytes / (device.gbytes_per_s * 1e3)) + work.kernels * NODE_OVERHEAD_US["cuda"]


def _itemsize(value_type: TensorType | SparseTensorType) -> int:
    if value_type.element == 8:
        return STRING_NBYTES
    dtype = DTYPE_OF.get(value_type.element)
    return int(dtype.itemsize) if dtype is not None else 4
