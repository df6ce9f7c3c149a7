"""What actors are told and what they tell: orders, reports. Plain data, so that it travels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distort.cluster.resident import ResidentMeta
from distort.graph.ir import Graph

if TYPE_CHECKING:
    from distort.cluster.weights import FileWeight

#: attempts of one run that numbers have room for; a run's number on the wire is ``run * ATTEMPTS + attempt``
ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Held:
    """Stands for an input that the actor already holds."""

    key: int


@dataclass(frozen=True, slots=True)
class FarValue:
    """Stands for a value that waits on a GPU of another host until it is asked for."""

    unit: int  # that has it
    sender: str  # its process, by a name that no other has
    key: int
    element: int
    dims: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class NcclFacts:
    """What an actor knows of NCCL."""

    version: str  # "" where it can't be used
    obstacle: str  # why it can't
    uuid: bytes  # of the actor's GPU: two actors on one can't have a communicator


@dataclass(frozen=True, slots=True)
class Offer:
    """Where an actor waits for the reader of its values, and how the two find each other's GPU."""

    unit: int
    sender: str  # the actor's process
    address: str
    port: int
    token: bytes
    unique_id: bytes  # of the communicator


@dataclass(frozen=True, slots=True)
class GpuSeat:
    """The GPU of a unit, as the plan has it."""

    device_id: int  # as the caller's process numbers its host's
    share: float = 1.0  # of it, which Ray is asked for: less where units share it
    options: dict[str, str] = field(default_factory=dict)  # the provider's
    #: CUDA_VISIBLE_DEVICES of the caller, by which the numbers of its host's devices go; None: not set
    visible: str | None = None


@dataclass(frozen=True, slots=True)
class StagePayload:
    """A stage as it travels: the graph without its weights, and what is asked of it."""

    session: str
    stage: int
    graph: Graph
    outputs: tuple[str, ...]
    threads: int  # 0: the library's default
    custom_kernels: bytes = b""  # kernels that the user registered, pickled
    unit: int = 0  # the stage's, or a replica's
    names: tuple[str, ...] = ()  # every value that may cross, of all stages: messages say their numbers
    token: str = ""  # whoever connects must know it
    spin_us: int = 0  # how long the actor waits awake for the next message
    host: str | None = None  # where the plan has it ("": the caller's); None: anywhere
    compile: str = "1"  # the config key ``distort.compile``
    pool: str = ""  # under which replicas of a host share what they make of weights
    compute_precision: str = "float32"  # ``distort.compute_precision``
    keep_qdq: bool = False  # ``session.disable_quant_qdq``
    files: dict[str, FileWeight] = field(default_factory=dict)  # weights that the actor maps itself
    gpu: GpuSeat | None = None  # None: on the CPU


@dataclass(frozen=True, slots=True)
class ExecuteOrder:
    """Which of the stage's inputs come how, and which outputs go where. The same for many runs."""

    inputs: tuple[str, ...]  # values that come with the order
    returns: tuple[str, ...] = ()  # outputs handed back by reference
    keep: tuple[str, ...] = ()  # outputs that stay here
    mail: tuple[str, ...] = ()  # inputs that other actors of this host send
    sends: tuple[tuple[int, tuple[str, ...]], ...] = ()  # outputs that go to them, by unit
    #: outputs that wait on this GPU for units of other hosts, which ask for them; FarValue is handed back, by reference
    announces: tuple[tuple[str, tuple[int, ...]], ...] = ()
    forwards: tuple[tuple[int, int], ...] = ()  # units whose orders, by number, go along with what they are sent
    results: tuple[str, ...] = ()  # outputs that go to the caller with the report
    profile: bool = False
    path_only: bool = False  # run only the nodes that these outputs depend on
    report: bool = True  # tell how it went, beside the values
    silent: bool = False  # nothing is told where all goes well: a later stage's says enough

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the order is for, each once."""
        sent = (name for _, names in self.sends for name in names)
        announced = (name for name, _ in self.announces)
        return tuple(dict.fromkeys((*self.returns, *self.results, *self.keep, *sent, *announced)))


@dataclass(frozen=True, slots=True)
class NodeEvent:
    """A node's step in a profile."""

    node: str
    op_type: str
    output: str  # its first output, which is known by the whole graph
    start_ns: int  # time.time_ns() of the actor's host
    end_ns: int
    args: dict[str, Any]


@dataclass(slots=True)
class StageReport:
    """What an execution tells beside its values."""

    run: int  # its number on the wire
    stage: int
    start_ns: int
    end_ns: int
    received: dict[str, int]  # value -> bytes that crossed into this actor
    kept: dict[str, ResidentMeta]
    events: list[NodeEvent] = field(default_factory=list)
    pid: int = 0
    thread: int = 0
    mail: dict[str, int] = field(default_factory=dict)  # of an execution by a call: what came by mail beside it
    by_nccl: tuple[str, ...] = ()  # of what was received, what came from another host's GPU
    # what the executor adds, where a profile is asked for
    unit: int = 0
    #: value, producing stage (-1: the caller), bytes, transport
    edges: list[tuple[str, int, int, str]] = field(default_factory=list)
    returned: list[tuple[str, int, str]] = field(default_factory=list)  # to the caller: value, bytes, transport
    clock_error_ns: int = 0  # how far the times may be off; -1: nobody knows


@dataclass(frozen=True, slots=True)
class ActorFacts:
    """What an actor says of itself when it has loaded its stage."""

    pid: int
    node: str  # Ray's id of its node
    node_ip: str
    network: str  # which namespace of names its sockets are in
    endpoint: str  # where it listens; "" where it doesn't
    threads: int
    gpu: str = ""  # which GPU it has, by a name that tells all GPUs apart; "" for none


@dataclass(frozen=True, slots=True)
class ActorStats:
    """What an actor has done since it was loaded."""

    executions: int
    busy_ns: int
    queued: int  # orders that wait
    received: dict[str, tuple[int, int]]  # mail: value -> bytes, messages
    held: int  # values that stay for callers
    held_nbytes: int
    slots_nbytes: int
    program: str = ""  # what is compiled and what is not, in words
    by_device: frozenset[str] = frozenset()  # of what was received, what came by GPUs' memory
    device_slots_nbytes: int = 0
