"""Devices that stages may run on, and the links between them. They need not exist."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Estimates, for devices of which nothing was measured: what numpy with a BLAS gets out of one thread of a server CPU
#: in float32, and what one process draws from main memory.
CPU_GFLOPS_PER_THREAD = 50.0
CPU_GBYTES_PER_S = 10.0
#: Estimates for a data-centre GPU: half of what an A100 promises in float32 (TF32 off) and of its memory's bandwidth.
CUDA_GFLOPS = 10_000.0
CUDA_GBYTES_PER_S = 750.0

_NBYTES_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_ENTRY = re.compile(r"(?:(\d+)\s*[x×])?\s*([a-z]+)((?:\s*:\s*[0-9.]+\s*[A-Za-z]*)*)", re.IGNORECASE)
_FIELD = re.compile(r"([0-9.]+)\s*([A-Za-z]*)")


@dataclass(frozen=True, slots=True)
class Device:
    """Something that runs stages one at a time."""

    id: str  # "cpu:0"
    kind: str  # "cpu" or "cuda"
    index: int
    threads: int
    memory_nbytes: int | None  # None: not limited
    gflops: float  # of the whole device, all threads
    gbytes_per_s: float  # to and from its memory

    def __post_init__(self) -> None:
        if self.kind not in ("cpu", "cuda"):
            raise ValueError(f"device {self.id}: unknown kind {self.kind!r}; known are cpu, cuda")
        if self.threads < 1 or self.gflops <= 0 or self.gbytes_per_s <= 0:
            raise ValueError(f"device {self.id}: threads, gflops and gbytes_per_s must be positive")


@dataclass(frozen=True, slots=True)
class Link:
    """What it costs to bring values to a stage: a delay for each call, then bytes at a rate."""

    latency_us: float
    gbytes_per_s: float
    transport: str = "object_store"

    def transfer_us(self, nbytes: float) -> float:
        return self.latency_us + nbytes / (self.gbytes_per_s * 1e3)


#: Estimates from runs on one shared host: a call of a Ray actor with references as arguments; slots in shared memory.
RAY_CALLS = Link(latency_us=1000.0, gbytes_per_s=1.0, transport="object_store")
SHARED_MEMORY = Link(latency_us=50.0, gbytes_per_s=4.0, transport="shm")


def cpu(
    index: int = 0, threads: int = 1, memory_nbytes: int | None = None, gflops_per_thread: float = CPU_GFLOPS_PER_THREAD
) -> Device:
    """A CPU share of ``threads`` threads."""
    return Device(f"cpu:{index}", "cpu", index, threads, memory_nbytes, gflops_per_thread * threads, CPU_GBYTES_PER_S)


def cuda(index: int = 0, memory_nbytes: int | None = None) -> Device:
    """A GPU."""
    return Device(f"cuda:{index}", "cuda", index, 1, memory_nbytes, CUDA_GFLOPS, CUDA_GBYTES_PER_S)


def parse_devices(text: str) -> tuple[Device, ...]:
    """Devices from ``COUNTxKIND:FIELDS,…``: ``2xcpu:4,1xcuda:80GB`` is two CPU shares of four threads and one GPU.

    A bare number is threads, a number with a unit is memory; both may be given (``cpu:4:16GB``). Raises ValueError
    with the part that can't be read.
    """
    devices: list[Device] = []
    counts = {"cpu": 0, "cuda": 0}
    for part in (item.strip() for item in text.split(",")):
        match = _ENTRY.fullmatch(part)
        kind = match.group(2).lower() if match else ""
        if match is None or kind not in counts:
            raise ValueError(f"devices {text!r}: can't read {part!r}; write for example 2xcpu:4 or 1xcuda:80GB")
        threads, memory_nbytes = _fields(match.group(3), part, text)
        if kind == "cuda" and threads is not None:
            raise ValueError(f"devices {text!r}: {part!r} gives a GPU threads; memory needs a unit, as 80GB")
        if threads == 0:
            raise ValueError(f"devices {text!r}: {part!r} has no threads")
        for _ in range(int(match.group(1) or 1)):
            index = counts[kind]
            counts[kind] += 1
            devices.append(cpu(index, threads or 1, memory_nbytes) if kind == "cpu" else cuda(index, memory_nbytes))
    if not devices:
        raise ValueError(f"devices {text!r}: no device is named")
    return tuple(devices)


def _fields(text: str, part: str, whole: str) -> tuple[int | None, int | None]:
    threads: int | None = None
    memory_nbytes: int | None = None
    for field in (item.strip() for item in text.split(":")[1:]):
        match = _FIELD.fullmatch(field)
        unit = match.group(2).upper() if match else "?"
        try:
            if match is None or unit not in _NBYTES_UNITS:
                raise ValueError(field)
            if unit:
                memory_nbytes = int(float(match.group(1)) * _NBYTES_UNITS[unit])
            else:
                threads = int(match.group(1))
        except ValueError:
            raise ValueError(f"devices {whole!r}: can't read {field!r} of {part!r} (threads, or memory)") from None
    return threads, memory_nbytes


def format_nbytes(nbytes: float | None) -> str:
    """Bytes for people: 1.5 MB. ``?`` where they aren't known."""
    if nbytes is None:
        return "?"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if abs(nbytes) >= size:
            return f"{nbytes / size:.4g} {unit}"
    return f"{nbytes:.0f} B"


def format_us(time_us: float) -> str:
    """A time for people: 850 µs, 1.2 ms, 3 s."""
    if time_us >= 1e6:
        return f"{time_us / 1e6:.4g} s"
    if time_us >= 1e3:
        return f"{time_us / 1e3:.4g} ms"
    return f"{time_us:.4g} µs"
