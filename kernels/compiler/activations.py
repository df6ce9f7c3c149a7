"""What a recurrent node's gates do, as its attributes say it."""

from __future__ import annotations

from distort.graph.ir import Node
from distort.kernels.compiler.codegen.gates import Activation
from distort.kernels.errors import InvalidInput
from distort.kernels.ops.recurrent_parts import activations_of

#: of one direction, where a node names none
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


def activations_by_direction(kind: str, node: Node, n_directions: int) -> tuple[tuple[Activation, ...], ...] | None:
    """Those of each direction; None where the attributes are wrong."""
    defaults = _DEFAULTS[kind]
    names = node.attributes.get("activations") or [*defaults] * n_directions
    alphas, betas = (node.attributes.get(name) for name in ("activation_alpha", "activation_beta"))
    count = len(defaults)
    try:
        found = activations_of(names, alphas, betas, count * n_directions)
    except InvalidInput:
        return None
    made = [Activation(name.lower(), a.alpha, a.beta) for name, a in zip(names, found, strict=False)]
    return tuple([tuple(made[count * k : count * (k + 1)]) for k in range(n_directions)])


__all__ = ["activations_by_direction"]
