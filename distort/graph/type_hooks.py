"""What users say of the outputs of operators that onnx has no schema of."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ModelError
from .ir import Node
from .types import DTYPE_OF, Dim, TensorType, ValueType, element_of


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's element type and shape. A dimension is a size, a symbol, or None; a shape of None is unknown."""

    dtype: np.dtype[Any]
    shape: tuple[Dim, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(self.shape))


#: (inputs, attributes) -> outputs. An input that is absent, unknown or no tensor is None.
TypeHook = Callable[[Sequence[TensorSpec | None], Mapping[str, Any]], Sequence[TensorSpec | None]]
_HOOKS: dict[tuple[str, str], list[tuple[int, TypeHook]]] = {}


def register(domain: str, op_type: str, since: int, hook: TypeHook) -> None:
    known = _HOOKS.setdefault((domain, op_type), [])
    known[:] = sorted([item for item in known if item[0] != since] + [(since, hook)], key=lambda item: item[0])


def remove(domain: str, op_type: str, since: int) -> None:
    known = _HOOKS.get((domain, op_type), [])
    known[:] = [item for item in known if item[0] != since]


def outputs_of(node: Node, types: Mapping[str, ValueType]) -> dict[str, ValueType] | None:
    """Types of a node's outputs by its hook; None where it has none. Raises ModelError for a hook that fails."""
    known = _HOOKS.get((node.domain, node.op_type))
    position = bisect_right(known, node.opset, key=lambda item: item[0]) if known else 0
    if not known or not position:
        return None
    try:
        specs = known[position - 1][1]([_spec(types.get(name)) for name in node.inputs], dict(node.attributes))
        return {
            name: TensorType(element_of(spec.dtype), spec.shape)
            for name, spec in zip(node.outputs, specs, strict=False)
            if name and spec is not None
        }
    except Exception as error:  # the user's code may raise anything: it is named with its node
        raise ModelError(
            "FAIL",
            f"Node ({node.label()}) Op ({node.op_type}) [ShapeInferenceError] {type(error).__name__}: {error}",
        ) from error


def _spec(known: ValueType | None) -> TensorSpec | None:
    if not isinstance(known, TensorType) or known.element not in DTYPE_OF:
        return None
    return TensorSpec(DTYPE_OF[known.element], known.shape)


def any_for(nodes: Sequence[Node]) -> bool:
    """Whether one of the nodes may have a hook."""
    return bool(_HOOKS) and any((node.domain, node.op_type) in _HOOKS for node in nodes)
