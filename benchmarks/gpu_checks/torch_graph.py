"""An ONNX graph as a torch module, so that torch runs, eagerly or compiled, the very operators that the session runs.

What follows from constants and from shapes alone is computed once, when the module is made for feeds of certain shapes;
what is left is one torch function a node. Nothing is rewritten: attention that the graph spells out as products and a
softmax stays so, unless torch's compiler finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from gpu_checks.torch_operators import OPERATORS

Tensor = torch.Tensor


def tensor_of(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.array(array, order="C", copy=True))


class TorchGraph(torch.nn.Module):
    """Called with tensors in the order of ``inputs``; gives a tuple in the order of the graph's outputs.

    Raises KeyError for an operator that there is no torch function for.
    """

    def __init__(self, model: onnx.ModelProto, feeds: Mapping[str, np.ndarray[Any, Any]], device: str) -> None:
        super().__init__()
        graph = model.graph
        self.inputs = [value.name for value in graph.input]
        self._outputs = [value.name for value in graph.output]
        #: what is known before a run, by name: weights among it
        known: dict[str, Tensor] = {t.name: tensor_of(numpy_helper.to_array(t)) for t in graph.initializer}
        sizes: dict[str, Tensor] = {name: tensor_of(feeds[name]).to(device) for name in self.inputs}
        self._steps: list[tuple[Callable[..., Any], list[str], list[str]]] = []
        on_device: dict[str, Tensor] = {}
        with torch.no_grad():
            for node in graph.node:
                self._take(node, known, sizes, on_device, device)
        needed = {name for _, names, _ in self._steps for name in names} | set(self._outputs)
        self._weights: dict[str, str] = {}
        for name in needed & set(known):
            self._weights[name] = f"w{len(self._weights)}"
            # sizes and axes are read by the host
            self.register_buffer(self._weights[name], on_device.get(name, known[name].to(device)))

    def _take(
        self,
        node: onnx.NodeProto,
        known: dict[str, Tensor],
        sizes: dict[str, Tensor],
        on_device: dict[str, Tensor],
        device: str,
    ) -> None:
        """A node: done now where all that it reads is known, else a step, which is done once for the shapes."""
        attributes = {a.name: _attribute(a) for a in node.attribute}
        names = list(node.input)
        if node.op_type == "Constant":
            known[node.output[0]] = _constant(attributes)
            return
        operator = OPERATORS[node.op_type]
        if node.op_type == "Shape":
            made: Any = operator(attributes, [None])(sizes.get(names[0], known.get(names[0])))
            known[node.output[0]] = made.cpu()
            return
        settled = all(not name or name in known for name in names)
        # what the host must know comes as numbers, the rest as tensors
        values = [known.get(name) if name else None for name in names]
        run = operator(attributes, values)
        if settled:
            made = run(*values)
            known.update(zip(node.output, made if isinstance(made, tuple) else (made,), strict=False))
            return
        given = []
        for name in names:
            if name in sizes:
                given.append(sizes[name])
            elif name:
                if name not in on_device:
                    on_device[name] = known[name].to(device)
                given.append(on_device[name])
            else:
                given.append(None)
        made = run(*given)
        outputs = [name for name in node.output if name]
        sizes.update(zip(outputs, made if isinstance(made, tuple) else (made,), strict=False))
        self._steps.append((run, names, list(node.output)))

    def forward(self, *feeds: Tensor) -> tuple[Tensor, ...]:
        values: dict[str, Any] = dict(zip(self.inputs, feeds, strict=True))
        values[""] = None
        for name, own in self._weights.items():
            values[name] = getattr(self, own)
        for run, names, outputs in self._steps:
            made = run(*[values[name] for name in names])
            if len(outputs) == 1:
                values[outputs[0]] = made
            else:
                values.update(zip(outputs, made, strict=False))
        return tuple([values[name] for name in self._outputs])


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value.decode() if isinstance(value, bytes) else value


def _constant(attributes: Mapping[str, Any]) -> Tensor:
    (name, value), *_ = attributes.items()
    if isinstance(value, np.ndarray):
        return tensor_of(value)
    return torch.tensor(value, dtype=torch.float32 if "float" in name else torch.int64)


def operators_missing(model: onnx.ModelProto) -> Sequence[str]:
    """Operators of a graph that there is no torch function for."""
    return sorted({node.op_type for node in model.graph.node} - set(OPERATORS) - {"Constant"})


__all__ = ["TorchGraph", "operators_missing", "tensor_of"]
