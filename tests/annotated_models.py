"""Models with annotations (IR 11), which ONNX's text form has no words for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx.parser

HEADER = '<ir_version: 11, opset_import: ["" : 21]>\n'


def annotate(
    text: str,
    stages: Mapping[str, int | None],
    *,
    name: str = "two",
    devices: Sequence[str] = ("cpu:0", "cpu:1"),
    on: Mapping[str, Sequence[int]] | None = None,
) -> onnx.ModelProto:
    """A model whose nodes, by name, have these stages; ``on`` puts their first outputs on devices."""
    proto = onnx.parser.parse_model(text if text.lstrip().startswith("<") else HEADER + text)
    proto.configuration.add(name=name, num_devices=len(devices), device=devices)
    found = {node.name: node for node in every_node(proto)}
    for node_name in {**stages, **(on or {})}:
        annotation = found[node_name].device_configurations.add(configuration_id=name)
        stage = stages.get(node_name)
        if stage is not None:
            annotation.pipeline_stage = stage
        if on is not None and node_name in on:
            annotation.sharding_spec.add(tensor_name=found[node_name].output[0], device=on[node_name])
    return proto


def every_node(proto: Any) -> list[Any]:
    """Nodes of a model, its bodies and functions."""
    waiting = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    found = []
    while waiting:
        node = waiting.pop(0)
        found.append(node)
        for attribute in node.attribute:
            waiting += attribute.g.node
    return found
