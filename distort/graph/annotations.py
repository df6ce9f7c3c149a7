"""IR 11's annotations: a model's device configurations, and what each node says of its place in them.

``ModelProto.configuration`` names sets of devices; a node's ``device_configurations`` say for each of them which
pipeline stage the node belongs to and on which of the devices its tensors lie (``DeviceConfigurationProto``,
``NodeDeviceConfigurationProto`` and ``ShardingSpecProto`` of onnx.proto). Between reading and writing they are
carried as the messages' bytes; passes ask :func:`apart` before they make one node of two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .errors import ModelError
from .ir import Graph, Model, Node
from .onnx_parts import protobuf

#: the first version of the IR with annotations
IR_VERSION = 11
#: the configuration that a plan is written to
DEFAULT_NAME = "distort"


@dataclass(frozen=True, slots=True)
class Configuration:
    """A set of devices that annotations refer to by index."""

    name: str
    n_devices: int
    devices: tuple[str, ...] = ()  # their names; empty where the model gives none

    def device_name(self, index: int) -> str:
        return self.devices[index] if self.devices else f"device {index}"


@dataclass(frozen=True, slots=True)
class Sharding:
    """Where one tensor of a node lies."""

    tensor: str
    devices: tuple[int, ...]  # groups replaced by what is in them; each once
    splits: tuple[tuple[int, int], ...] = ()  # (axis, number of shards) where there are several


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a node says of itself under one configuration."""

    configuration: str
    stage: int | None
    shardings: tuple[Sharding, ...] = ()

    def devices(self, outputs: Iterable[str]) -> tuple[int, ...]:
        """The devices that all of the node's outputs lie on; of its inputs, where nothing is said of outputs."""
        made = set(outputs)
        told = [sharding for sharding in self.shardings if sharding.devices]
        first, *others = [s.devices for s in told if s.tensor in made] or [s.devices for s in told] or [()]
        return tuple(device for device in first if all(device in devices for devices in others))


# -- reading


def configurations(model: Model) -> tuple[Configuration, ...]:
    """The model's configurations. Raises ModelError for one that contradicts itself or another."""
    found: dict[str, Configuration] = {}
    for content in model.configurations:
        proto = protobuf().DeviceConfigurationProto.FromString(content)
        configuration = Configuration(proto.name, proto.num_devices, tuple(proto.device))
        if not proto.name:
            raise _invalid("A device configuration of the model has no name.")
        if proto.name in found:
            raise _invalid(f"The model has two device configurations named '{proto.name}'.")
        if proto.num_devices < 1:
            raise _invalid(f"Device configuration '{proto.name}' has {proto.num_devices} devices; it needs at least 1.")
        if proto.device and len(proto.device) != proto.num_devices:
            raise _invalid(
                f"Device configuration '{proto.name}' has {proto.num_devices} devices and {len(proto.device)} names."
            )
        found[proto.name] = configuration
    return tuple(found.values())


def annotation(node: Node, configuration: str) -> Annotation | None:
    """What a node says under a configuration. Raises ModelError where it says it twice."""
    found: Annotation | None = None
    for content in node.device_configurations:
        proto = protobuf().NodeDeviceConfigurationProto.FromString(content)
        if proto.configuration_id != configuration:
            continue
        if found is not None:
            raise _invalid(f"Node '{node.label()}' has two annotations for device configuration '{configuration}'.")
        found = _annotation(proto)
    return found


def _annotation(proto: Any) -> Annotation:
    stage = int(proto.pipeline_stage) if proto.HasField("pipeline_stage") else None
    return Annotation(proto.configuration_id, stage, tuple(_sharding(spec) for spec in proto.sharding_spec))


def _sharding(spec: Any) -> Sharding:
    groups = {entry.key: list(entry.value) for entry in spec.index_to_device_group_map}
    devices = dict.fromkeys(int(device) for index in spec.device for device in groups.get(index, [index]))
    splits = []
    for dim in spec.sharded_dim:
        n_shards = 1
        for part in dim.simple_sharding:
            n_shards *= max(1, part.num_shards)
        if n_shards > 1:
            splits.append((int(dim.axis), int(n_shards)))
    return Sharding(spec.tensor_name, tuple(devices), tuple(splits))


def _invalid(text: str) -> ModelError:
    return ModelError("INVALID_GRAPH", text)


# -- through optimization


def apart(first: Node, second: Node) -> bool:
    """Whether some configuration puts two nodes in different places, so that they must not become one."""
    if first.device_configurations == second.device_configurations:
        return False
    ours, theirs = place(first), place(second)
    return any(theirs[name] != where for name, where in ours.items() if name in theirs)


def place(node: Node) -> dict[str, tuple[Any, ...]]:
    """Configuration -> stage, devices and splits of a node, in a form that compares."""
    found = {}
    for content in node.device_configurations:
        told = _annotation(protobuf().NodeDeviceConfigurationProto.FromString(content))
        splits = tuple(sorted(split for sharding in told.shardings for split in sharding.splits))
        found[told.configuration] = (told.stage, tuple(sorted(told.devices(node.outputs))), splits)
    return found


def joined(first: Node, last: Node) -> tuple[bytes, ...]:
    """The annotations of the one node that replaces two: the last one's, then what just the first one has."""
    return _completed(last.device_configurations, first.device_configurations)


def _completed(own: tuple[bytes, ...], more: tuple[bytes, ...]) -> tuple[bytes, ...]:
    if not more or own == more:
        return own
    known = {id_of(content) for content in own}
    return (*own, *(content for content in more if id_of(content) not in known))


def id_of(content: bytes) -> str:
    """The name of the configuration that a node's annotation belongs to."""
    return str(protobuf().NodeDeviceConfigurationProto.FromString(content).configuration_id)


def inherited(outer: Node, inner: Node) -> tuple[bytes, ...]:
    """The annotations of a node that comes out of ``outer``, a call or a branch: what that says holds for all of it."""
    if not outer.device_configurations:
        return inner.device_configurations
    made = next((name for name in inner.outputs if name), "")
    passed = []
    for content in outer.device_configurations:
        proto = protobuf().NodeDeviceConfigurationProto.FromString(content)
        told = _annotation(proto)
        if not any(sharding.splits for sharding in told.shardings):
            content = stated(told.configuration, told.stage, told.devices(outer.outputs), made)
        passed.append(content)
    return _completed(tuple(passed), inner.device_configurations)


def renamed(contents: tuple[bytes, ...], name_of: Callable[[str], str]) -> tuple[bytes, ...]:
    """Annotations whose tensors have other names."""
    result = []
    for content in contents:
        proto = protobuf().NodeDeviceConfigurationProto.FromString(content)
        for spec in proto.sharding_spec:
            spec.tensor_name = name_of(spec.tensor_name)
        result.append(proto.SerializeToString())
    return tuple(result)


# -- writing


def stated(configuration: str, stage: int | None, devices: Sequence[int] = (), tensor: str = "") -> bytes:
    """A node's annotation: its stage, and the devices that ``tensor`` lies on whole."""
    proto = protobuf().NodeDeviceConfigurationProto(configuration_id=configuration)
    if stage is not None:
        proto.pipeline_stage = stage
    if devices:
        proto.sharding_spec.add(tensor_name=tensor, device=list(devices))
    return bytes(proto.SerializeToString())


def fitted(node: Node) -> tuple[bytes, ...]:
    """A node's annotations for writing: a tensor that passes took from the node is not spoken of any more.

    Where it was the only one that named the device, its place goes to the node's first output.
    """
    tensors = {*node.inputs, *node.outputs}
    result = []
    for content in node.device_configurations:
        proto = protobuf().NodeDeviceConfigurationProto.FromString(content)
        kept = [spec for spec in proto.sharding_spec if spec.tensor_name in tensors]
        if len(kept) < len(proto.sharding_spec):
            told = _annotation(proto)
            whole = not any(sharding.splits for sharding in told.shardings)
            if not kept and whole and (devices := told.devices(node.outputs)):
                first = next((name for name in node.outputs if name), "")
                content = stated(told.configuration, told.stage, devices, first)
            else:
                specs = [type(spec).FromString(spec.SerializeToString()) for spec in kept]
                proto.ClearField("sharding_spec")
                proto.sharding_spec.extend(specs)
                content = proto.SerializeToString()
        result.append(content)
    return tuple(result)


def annotated(model: Model, configuration: Configuration, places: Sequence[tuple[int, Sequence[int]]]) -> Model:
    """A copy of the model with a configuration, and each node's stage and devices under it.

    ``places`` has one entry a node of the graph. Nodes in bodies belong to the node around them and get none. What
    the model says of a configuration of that name goes; others stay. The IR version is raised to 11 where it is less.
    """
    name = configuration.name
    proto = protobuf().DeviceConfigurationProto(
        name=name, num_devices=configuration.n_devices, device=configuration.devices
    )
    others = [c for c in model.configurations if protobuf().DeviceConfigurationProto.FromString(c).name != name]
    nodes = []
    for node, (stage, devices) in zip(model.graph.nodes, places, strict=True):
        first = next((output for output in node.outputs if output), "")
        kept = _without(node, name)
        nodes.append(
            replace(kept, device_configurations=(*kept.device_configurations, stated(name, stage, devices, first)))
        )
    return replace(
        model,
        graph=replace(model.graph, nodes=nodes),
        ir_version=max(model.ir_version, IR_VERSION),
        configurations=(*others, proto.SerializeToString()),
    )


def _without(node: Node, configuration: str) -> Node:
    """The node, bodies included, without what it says of a configuration; itself where it says nothing."""
    changed: dict[str, Any] = {}
    own = tuple(content for content in node.device_configurations if id_of(content) != configuration)
    if len(own) < len(node.device_configurations):
        changed["device_configurations"] = own
    attributes: dict[str, Any] = {}
    for key, value in node.attributes.items():
        if isinstance(value, Graph):
            attributes[key] = _body_without(value, configuration)
        elif isinstance(value, list) and any(isinstance(item, Graph) for item in value):
            attributes[key] = [_body_without(item, configuration) for item in value]
    if any(value is not node.attributes[key] for key, value in attributes.items()):
        changed["attributes"] = {**node.attributes, **attributes}
    return replace(node, **changed) if changed else node


def _body_without(graph: Graph, configuration: str) -> Graph:
    nodes = [_without(node, configuration) for node in graph.nodes]
    if all(new is old for new, old in zip(nodes, graph.nodes, strict=True)):
        return graph
    return replace(graph, nodes=nodes)


__all__ = [
    "DEFAULT_NAME",
    "IR_VERSION",
    "Annotation",
    "Configuration",
    "Sharding",
    "annotated",
    "annotation",
    "apart",
    "configurations",
    "fitted",
    "id_of",
    "inherited",
    "joined",
    "place",
    "renamed",
    "stated",
]
