"""What libraries do to the results of products and convolutions on their way, found in element-wise work."""

from __future__ import annotations

from dataclasses import dataclass, field

from distort.kernels.compiler.ir import Buffer, Map, Tensor


@dataclass(slots=True)
class Epilogue:
    """activation(scale · sums + added …), stored as ``dtype``."""

    dtype: str
    scale: float = 1.0
    added: list[Tensor] = field(default_factory=list)
    activation: str = ""
    parameters: tuple[float, ...] = ()


def epilogue_of(after: Map, made: Buffer, activation: str = "") -> Epilogue | None:
    """What a map does to the values of ``made``, as an epilogue; None where it does something else.

    ``activation``: what was done to them before.
    """
    expression = after.expression
    if len(expression.results) != 1:
        return None
    n_inputs = len(expression.inputs)
    reads = [position for position, tensor in enumerate(after.inputs) if tensor.buffer is made]
    if len(reads) != 1:
        return None
    current = reads[0]
    found = Epilogue(expression.inputs[current], activation=activation)
    if not activation and [i.op for i in expression.body] == ["sigmoid", "mul"]:
        (sigmoid, product), last = expression.body, n_inputs + 1
        if sigmoid.operands == (current,) and sorted(product.operands) == [current, n_inputs]:
            found.activation = "swish"
            return found if expression.results[0] == last else None
    numbers: dict[int, float] = {}
    for place, instruction in enumerate(expression.body, n_inputs):
        op, operands = instruction.op, instruction.operands
        if op == "constant":
            numbers[place] = float(instruction.attributes[0])
            continue
        if operands.count(current) != 1:
            return None
        others = [o for o in operands if o != current]
        if op == "div" and operands[0] != current:
            return None
        if not _takes(found, op, others, numbers, after, instruction.attributes):
            return None
        found.dtype = instruction.dtype
        current = place
    return found if expression.results[0] == current else None


def _takes(
    found: Epilogue, op: str, others: list[int], numbers: dict[int, float], after: Map, attributes: tuple[object, ...]
) -> bool:
    """Make one more instruction part of an epilogue. ``others``: its operands, but for the value on the way."""
    if op == "cast":
        # rounded only once, at the end
        return not found.added and not found.activation and found.scale == 1.0
    if found.activation == "relu" and op == "min" and others[0] in numbers:
        found.activation, found.parameters = "clip", (0.0, numbers[others[0]])
        return True
    if found.activation:
        return False
    if op in ("mul", "div") and others[0] in numbers:
        number = numbers[others[0]]
        if found.added or not number or found.dtype[:3] == "int":
            return False
        found.scale *= number if op == "mul" else 1 / number
        return True
    if op == "add" and others[0] < len(after.inputs):
        found.added.append(after.inputs[others[0]])
        return True
    if op == "max" and others[0] in numbers and numbers[others[0]] == 0.0:
        found.activation = "relu"
        return True
    if op == "gelu" and attributes == ("tanh",):
        found.activation = "gelu_tanh"
        return True
    if op in ("relu", "sigmoid", "tanh", "leaky_relu") and not others:
        found.activation = op
        found.parameters = tuple(float(value) for value in attributes if isinstance(value, int | float))
        return True
    return False


__all__ = ["Epilogue", "epilogue_of"]
