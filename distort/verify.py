"""Values between stages compared with those of one process: the first that differs, who made it, and where.

Only values that actors hand on are looked at, in the order of the graph: what came before the first one that differs
agreed, so the fault lies in its stage, or on the way to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distort import errors
from distort.graph.ir import Graph, Node, SparseInitializer
from distort.kernels.program import Program

if TYPE_CHECKING:
    from distort.scheduler.plan import Plan

#: element type -> (relative tolerance, tolerance relative to the lower quartile of the magnitudes in the tensor).
#: Sums of another order (another number of threads) stay well below; other types than these must be equal.
_TOLERANCES: dict[str, tuple[float, float]] = {
    "float64": (1e-9, 1e-9),
    "complex128": (1e-9, 1e-9),
    "float32": (1e-3, 1e-3),
    "complex64": (1e-3, 1e-3),
    "float16": (1e-2, 1e-2),
    "bfloat16": (5e-2, 5e-2),
    # one step of what they can tell apart
    "float8_e4m3fn": (0.13, 0.13),
    "float8_e4m3fnuz": (0.13, 0.13),
    "float8_e5m2": (0.26, 0.26),
    "float8_e5m2fnuz": (0.26, 0.26),
    "float8_e8m0fnu": (1.0, 0.0),
    "float4_e2m1fn": (0.5, 0.5),
}
_RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
)
#: the first version of Dropout whose training is an input, and the one that dropped it from the attributes
_DROPOUT_TRAINS, _DROPOUT_INFERS = 12, 7


@dataclass(frozen=True, slots=True)
class Divergence:
    """A value that an actor made and one process doesn't."""

    value: str
    node: str  # its label
    op_type: str
    stage: str  # "stage1", or "stage1.1" for its first replica
    device: str
    how: str  # in words
    largest: float | None = None  # absolute difference; None: they can't be subtracted
    where: tuple[int, ...] | None = None  # the element that it is at
    n_agreed: int = 0  # values before it that agree

    def text(self) -> str:
        before = {0: "It is the first that was compared.", 1: "The one value before it agrees."}
        return (
            f"distort.verify: '{self.value}', made by node '{self.node}' ({self.op_type}) in {self.stage} on "
            f"{self.device}, differs from a run in one process: {self.how}. "
            f"{before.get(self.n_agreed, f'The {self.n_agreed} values before it agree.')}"
        )

    def error(self) -> Exception:
        """The exception that ends the run."""
        return errors.make("EP_FAIL", self.text())


class Reference:
    """One program of the whole graph, in this process, that makes every value which the plan's stages hand on."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self._graph = graph
        self._plan = plan
        handed_on = _handed_on(graph, plan)
        drawn = drawn_values(graph)
        #: values to compare, in the order of the graph
        self.names = tuple(name for name in handed_on if name not in drawn)
        #: values that depend on random numbers, which no two runs share
        self.not_comparable = tuple(name for name in handed_on if name in drawn)
        self._program = Program(graph, outputs=self.names)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The values by name."""
        return dict(zip(self.names, self._program.run(feeds), strict=True))

    def check(
        self,
        edge_values: Mapping[str, Any],
        feeds: Mapping[str, Any],
        ran_on: Mapping[int, tuple[str, str]] | None = None,
    ) -> Divergence | None:
        """What the actors made of ``feeds``, compared with what this process makes of them."""
        wanted = {name: value for name, value in edge_values.items() if name in self.names}
        return check(self._graph, self._plan, wanted, self.run(feeds), ran_on)


def check(
    graph: Graph,
    plan: Plan,
    edge_values: Mapping[str, Any],
    reference_values: Mapping[str, Any],
    ran_on: Mapping[int, tuple[str, str]] | None = None,
) -> Divergence | None:
    """The first of ``edge_values``, in the order of the graph, that differs from ``reference_values``; None: none does.

    ``ran_on`` has the name and the device of the replica that ran a stage, where it was not the stage's own device.
    Feeds and initializers among the values are not looked at. Raises KeyError where the reference lacks a value.
    """
    makers = graph.producers()
    stages = {index: stage for stage in plan.stages for index in stage.nodes}
    for n_agreed, name in enumerate(_ordered(graph, edge_values)):
        found = _difference(edge_values[name], reference_values[name])
        if found is not None:
            index = makers[name]
            stage = stages[index]
            unit, device = (ran_on or {}).get(stage.index, (stage.id, stage.device.id))
            return _divergence(name, graph.nodes[index], unit, device, found, n_agreed)
    return None


def drawn_values(graph: Graph) -> frozenset[str]:
    """Values that depend on random numbers."""
    drawn: set[str] = set()
    for node in graph.nodes:
        if _draws(node) or any(name in drawn for name in node.reads()):
            drawn.update(name for name in node.outputs if name)
    return frozenset(drawn)


def _draws(node: Node) -> bool:
    if any(_draws(inner) for body in node.subgraphs() for inner in body.nodes):
        return True
    if node.domain:
        return False
    if node.op_type == "Dropout":
        if node.opset >= _DROPOUT_TRAINS:
            return len(node.inputs) > 2 and bool(node.inputs[2])
        return node.opset < _DROPOUT_INFERS and not node.attributes.get("is_test", 0)
    return node.op_type in _RANDOM


def _handed_on(graph: Graph, plan: Plan) -> list[str]:
    return _ordered(graph, {edge.value: None for edge in plan.edges})


def _ordered(graph: Graph, names: Mapping[str, Any]) -> list[str]:
    """Those names that nodes make, as the graph's order makes them."""
    return [name for node in graph.nodes for name in node.outputs if name and name in names]


def _divergence(name: str, node: Node, unit: str, device: str, found: _Difference, n_agreed: int) -> Divergence:
    return Divergence(
        value=name,
        node=node.label(),
        op_type=node.op_type,
        stage=unit,
        device=device,
        how=found.how,
        largest=found.largest,
        where=found.where,
        n_agreed=n_agreed,
    )


# -- two values


@dataclass(frozen=True, slots=True)
class _Difference:
    how: str
    largest: float | None = None
    where: tuple[int, ...] | None = None


def _difference(got: Any, wanted: Any) -> _Difference | None:
    if isinstance(wanted, (list, tuple)) or isinstance(got, (list, tuple)):
        return _of_parts(got, wanted, (list, tuple), "sequence")
    if isinstance(wanted, dict) or isinstance(got, dict):
        return _of_parts(got, wanted, (dict,), "map")
    if isinstance(wanted, SparseInitializer) or isinstance(got, SparseInitializer):
        if not isinstance(got, SparseInitializer) or not isinstance(wanted, SparseInitializer):
            return _of_kinds(got, wanted)
        return _of_tensors(got.dense(), wanted.dense())
    if got is None or wanted is None:
        return None if got is wanted else _of_kinds(got, wanted)
    return _of_tensors(np.asarray(got), np.asarray(wanted))


def _of_kinds(got: Any, wanted: Any) -> _Difference:
    return _Difference(f"it is {_kind(got)}, and {_kind(wanted)} there")


def _kind(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, SparseInitializer):
        return "a sparse tensor"
    if isinstance(value, dict):
        return f"a map of {len(value)}"
    return f"a sequence of {len(value)}" if isinstance(value, (list, tuple)) else "a tensor"


def _of_parts(got: Any, wanted: Any, kinds: tuple[type, ...], what: str) -> _Difference | None:
    """Of two sequences, or two maps."""
    if not (isinstance(got, kinds) and isinstance(wanted, kinds)) or _kind(got) != _kind(wanted):
        return _of_kinds(got, wanted)
    if isinstance(got, dict) and isinstance(wanted, dict) and set(got) != set(wanted):
        return _Difference("its keys are others")
    for key, ours, theirs in _parts(got, wanted):
        found = _difference(ours, theirs)
        if found is not None:
            return _Difference(f"in entry {key!r} of the {what}, {found.how}", found.largest, found.where)
    return None


def _parts(got: Any, wanted: Any) -> Iterator[tuple[Any, Any, Any]]:
    if isinstance(wanted, dict):
        return ((key, got[key], value) for key, value in wanted.items())
    return ((i, ours, theirs) for i, (ours, theirs) in enumerate(zip(got, wanted, strict=True)))


def _of_tensors(got: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> _Difference | None:
    # texts are objects in one process, and may be numpy's own after a transfer
    if got.dtype != wanted.dtype and not (_is_text(got) and _is_text(wanted)):
        return _Difference(f"its element type is {got.dtype}, and {wanted.dtype} there")
    if got.shape != wanted.shape:
        return _Difference(f"its shape is {list(got.shape)}, and {list(wanted.shape)} there")
    if np.array_equal(got, wanted):  # nearly always, and quick
        return None
    tolerance = _TOLERANCES.get(wanted.dtype.name)
    if tolerance is None:
        return _of_elements(got, wanted, np.asarray(got != wanted), _gaps(got, wanted))
    # the small types have no arithmetic of their own worth using
    wide = np.complex128 if wanted.dtype.kind == "c" else np.float64
    ours, theirs = got.astype(wide), wanted.astype(wide)
    with np.errstate(all="ignore"):
        gaps = np.abs(ours - theirs)
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))  # infinities too
        magnitudes = np.abs(theirs)
        close = gaps <= np.maximum(tolerance[0] * magnitudes, tolerance[1] * _typical(magnitudes))
        # infinity is close to nothing but itself
        unequal = ~(same | (close & np.isfinite(gaps) & np.isfinite(magnitudes)))
    if not unequal.any():
        return None
    return _of_elements(got, wanted, unequal, np.where(np.isnan(gaps), np.inf, gaps))


def _is_text(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype.kind in "OUST"


def _typical(magnitudes: np.ndarray[Any, Any]) -> float:
    """The lower quartile of what is neither zero nor infinite: masks full of huge numbers don't move it."""
    counted = magnitudes[np.isfinite(magnitudes) & (magnitudes > 0)]
    if not counted.size:
        return 0.0
    position = counted.size // 4
    return float(np.partition(counted, position)[position])


def _gaps(got: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """Absolute differences of integers, near enough to find the largest; None for texts."""
    if _is_text(wanted):
        return None
    gaps: np.ndarray[Any, Any] = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    return gaps


def _of_elements(
    got: np.ndarray[Any, Any],
    wanted: np.ndarray[Any, Any],
    unequal: np.ndarray[Any, Any],
    gaps: np.ndarray[Any, Any] | None,
) -> _Difference:
    """In words: how many elements differ, and the one that differs most."""
    if gaps is None:
        flat = int(np.argmax(unequal))
        largest = None
    else:
        flat = int(np.argmax(np.where(unequal, gaps, -1.0)))
        largest = float(gaps.reshape(-1)[flat])
        if wanted.dtype.kind in "iu":
            largest = abs(int(got.reshape(-1)[flat]) - int(wanted.reshape(-1)[flat]))
    where = tuple(int(i) for i in np.unravel_index(flat, wanted.shape))
    n_unequal = int(np.count_nonzero(unequal))
    ours, theirs = _told(got.reshape(-1)[flat]), _told(wanted.reshape(-1)[flat])
    at = f"at {list(where)}" if where else "there"
    first = "the first is" if largest is None else f"the largest difference, {largest:.6g}, is"
    how = f"{n_unequal} of {wanted.size} elements differ; {first} {at}, {ours} and not {theirs}"
    return _Difference(how, largest, where)


def _told(element: Any) -> str:
    return repr(element) if isinstance(element, (str, bytes)) else str(element)


__all__ = ["Divergence", "Reference", "check", "drawn_values"]
