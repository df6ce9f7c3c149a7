"""What a step tells of itself in a profile, by onnxruntime's names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.graph.types import NAME_OF, element_of


def describe(
    node: Node, inputs: Sequence[Any], outputs: Sequence[Any], weights: Collection[str], provider: str
) -> dict[str, Any]:
    """The arguments of a node's event. Sizes are bytes, as text; ``weights`` are names of initializers."""
    parameters = [value for name, value in zip(node.inputs, inputs, strict=False) if name in weights]
    activations = [value for name, value in zip(node.inputs, inputs, strict=False) if name not in weights]
    return {
        "op_name": node.op_type,
        "provider": provider,
        "input_type_shape": _types_and_shapes(inputs),
        "output_type_shape": _types_and_shapes(outputs),
        "activation_size": str(_nbytes(activations)),
        "parameter_size": str(_nbytes(parameters)),
        "output_size": str(_nbytes(outputs)),
    }


def _arrays(values: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    return [value for value in values if isinstance(value, np.ndarray)]


def _types_and_shapes(values: Sequence[Any]) -> list[dict[str, list[int]]]:
    return [{NAME_OF[element_of(array.dtype)]: list(array.shape)} for array in _arrays(values)]


def _nbytes(values: Sequence[Any]) -> int:
    return sum(array.nbytes for array in _arrays(values))
