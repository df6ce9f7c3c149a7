"""Devices that stages may run on, and the links between them. They need not exist."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from distort.scheduler.gpus import GpuFigures, figures_named, figures_of

#: Estimates, for devices of which nothing was measured: what compiled stages get out of one thread of a server CPU
#: in float32, and what one process draws from memory and the last cache.
CPU_GFLOPS_PER_THREAD = 150.0
CPU_GBYTES_PER_S = 30.0

_NBYTES_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_ENTRY = re.compile(
    r"(?:(\d+)\s*[x×])?\s*([a-z][a-z0-9-]*)((?:\s*:\s*[0-9.]+\s*[A-Za-z]*)*)\s*(?:@\s*([\w.-]+))?", re.IGNORECASE
)
_FIELD = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)")


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
    host: str = ""  # "": the caller's
    product_gflops: float = 0.0  # of matrix products of float32 (TF32); 0: as gflops
    half_gflops: float = 0.0  # of matrix products of 16 bits; 0: as product_gflops
    peer_gbytes_per_s: float = 25.0  # from a GPU to another of its host

    def __post_init__(self) -> None:
        if self.kind not in ("cpu", "cuda"):
            raise ValueError(f"device {self.id}: unknown kind {self.kind!r}; known are cpu, cuda")
        if self.threads < 1 or self.gflops <= 0 or self.gbytes_per_s <= 0:
            raise ValueError(f"device {self.id}: threads, gflops and gbytes_per_s must be positive")

    @property
    def speeds(self) -> tuple[object, ...]:
        """What the time of a node depends on: the same for devices that take as long for the same work."""
        rates = (self.gflops, self.product_gflops, self.half_gflops, self.gbytes_per_s)
        return (self.kind, self.threads, *rates)


@dataclass(frozen=True, slots=True)
class Link:
    """What it costs to bring values to a stage: a delay for each message, then bytes at a rate."""

    latency_us: float
    gbytes_per_s: float
    transport: str = "object_store"

    def transfer_us(self, nbytes: float) -> float:
        return self.latency_us + nbytes / (self.gbytes_per_s * 1e3)

    def between(self, producer: Device | None, consumer: Device | None) -> Link:
        """Itself: a link that is the only one there is."""
        return self


#: a pointer: within one device, and within the caller's process
INPROC = Link(latency_us=0.0, gbytes_per_s=float("inf"), transport="inproc")
#: Measured on one shared host with Ray 2.60 and a prototype of the slots (docs/design): 1.1 to 1.5 ms for one actor and
#: back, 2.3 ms for two in a row, 2 ms for a megabyte at each hop.
RAY_CALLS = Link(latency_us=800.0, gbytes_per_s=0.6, transport="object_store")
#: A third of what two actors and back take, which are three messages; a hop of a megabyte (docs/benchmarks.md)
SHARED_MEMORY = Link(latency_us=45.0, gbytes_per_s=4.0, transport="shm")
#: Estimates, for a message of shared memory and a copy over PCIe from or to memory that is page-locked
HOST_TO_GPU = Link(latency_us=65.0, gbytes_per_s=3.5, transport="h2d")
GPU_TO_HOST = Link(latency_us=65.0, gbytes_per_s=3.5, transport="d2h")
#: the same message, without the values: those a GPU reads from its neighbour's memory (at that GPU's rate)
CUDA_IPC = Link(latency_us=65.0, gbytes_per_s=25.0, transport="cuda_ipc")
#: Estimates, to a GPU of another host: the call that says what comes, a question and its answer over the network, and
#: four fifths of 100 Gb/s
NCCL = Link(latency_us=RAY_CALLS.latency_us + 100.0, gbytes_per_s=10.0, transport="nccl")


@dataclass(frozen=True, slots=True)
class Links:
    """Which link a value takes, by the devices (None: the caller) at its ends."""

    same_host: Link = SHARED_MEMORY
    across_hosts: Link = RAY_CALLS
    to_gpu: Link = HOST_TO_GPU  # of the same host
    from_gpu: Link = GPU_TO_HOST
    between_gpus: Link = CUDA_IPC
    between_far_gpus: Link = NCCL  # of two hosts

    def between(self, producer: Device | None, consumer: Device | None) -> Link:
        """Of a value's producer and its consumer. One device passes pointers to itself."""
        if producer is not None and consumer is not None and producer.id == consumer.id:
            return INPROC
        hosts = ["" if device is None else device.host for device in (producer, consumer)]
        source = producer if producer is not None and producer.kind == "cuda" else None
        target = consumer if consumer is not None and consumer.kind == "cuda" else None
        if hosts[0] != hosts[1]:
            return self.across_hosts if source is None or target is None else self.between_far_gpus
        if source is not None and target is not None:
            rate = min(source.peer_gbytes_per_s, target.peer_gbytes_per_s)
            return replace(self.between_gpus, gbytes_per_s=rate)
        if source is not None:
            return self.from_gpu
        return self.same_host if target is None else self.to_gpu


#: anything with ``between``: a plan's links, or one link for all
Network = Link | Links
LINKS = Links()
#: within the caller's process: pointers, and copies over PCIe from memory that may be paged
LOCAL = Links(
    same_host=INPROC,
    to_gpu=Link(latency_us=15.0, gbytes_per_s=8.0, transport="h2d"),
    from_gpu=Link(latency_us=15.0, gbytes_per_s=12.0, transport="d2h"),
)


def cpu(
    index: int = 0,
    threads: int = 1,
    memory_nbytes: int | None = None,
    gflops_per_thread: float = CPU_GFLOPS_PER_THREAD,
    host: str = "",
) -> Device:
    """A CPU share of ``threads`` threads."""
    gflops = gflops_per_thread * threads
    return Device(f"cpu:{index}", "cpu", index, threads, memory_nbytes, gflops, CPU_GBYTES_PER_S, host)


def cuda(
    index: int = 0,
    memory_nbytes: int | None = None,
    host: str = "",
    figures: GpuFigures | None = None,
    tf32: bool = True,
) -> Device:
    """A GPU. ``figures`` None: those of a usual one. ``tf32``: products of float32 may be rounded to TF32."""
    figures = figures or figures_of()
    return Device(
        f"cuda:{index}",
        "cuda",
        index,
        1,
        memory_nbytes,
        figures.gflops,
        figures.reached_gbytes_per_s,
        host,
        figures.product_gflops if tf32 else figures.gflops,
        figures.half_gflops,
        figures.peer_gbytes_per_s,
    )


def parse_devices(text: str) -> tuple[Device, ...]:
    """Devices from ``COUNTxKIND:FIELDS@HOST,…``: ``2xcpu:4,1xcuda:80GB`` is two CPU shares of four threads and one GPU.

    The kind may be the name of a GPU: ``2xh100``, which has the memory that such a one has. A bare number is threads, a
    number with a unit is memory; both may be given (``cpu:4:16GB``). Without ``@HOST`` a device is on the caller's
    host. Raises ValueError with the part that can't be read.
    """
    devices: list[Device] = []
    counts = {"cpu": 0, "cuda": 0}
    for part in (item.strip() for item in text.split(",")):
        match = _ENTRY.fullmatch(part)
        kind = match.group(2).lower() if match else ""
        figures = figures_named(kind)
        kind = "cuda" if figures is not None else kind
        if match is None or kind not in counts:
            raise ValueError(
                f"devices {text!r}: can't read {part!r}; write for example 2xcpu:4, 1xcuda:80GB, 2xh100 or cpu:4@host"
            )
        threads, memory_nbytes = _fields(match.group(3), part, text)
        if kind == "cuda" and threads is not None:
            raise ValueError(f"devices {text!r}: {part!r} gives a GPU threads; memory needs a unit, as 80GB")
        if threads == 0:
            raise ValueError(f"devices {text!r}: {part!r} has no threads")
        for _ in range(int(match.group(1) or 1)):
            index = counts[kind]
            counts[kind] += 1
            host = match.group(4) or ""
            if kind == "cpu":
                devices.append(cpu(index, threads or 1, memory_nbytes, host=host))
            else:
                nbytes = memory_nbytes or (int(figures.memory_gbytes * 1e9) if figures is not None else None)
                devices.append(cuda(index, nbytes, host, figures))
    if not devices:
        raise ValueError(f"devices {text!r}: no device is named")
    return tuple(devices)


def parse_nbytes(text: str) -> int:
    """Bytes from a number with a unit (B, KB, MB, GB: powers of ten; KiB, MiB, GiB: of two). Raises ValueError."""
    match = _FIELD.fullmatch(text.strip())
    unit = match.group(2).upper() if match else "?"
    if match is None or unit not in _NBYTES_UNITS:
        raise ValueError(f"can't read {text!r} as bytes; write for example 512MB or 2GiB")
    return int(float(match.group(1)) * _NBYTES_UNITS[unit])


def _fields(text: str, part: str, whole: str) -> tuple[int | None, int | None]:
    threads: int | None = None
    memory_nbytes: int | None = None
    for field in (item.strip() for item in text.split(":")[1:]):
        try:
            if field.isdecimal():
                threads = int(field)
            else:
                memory_nbytes = parse_nbytes(field)
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
