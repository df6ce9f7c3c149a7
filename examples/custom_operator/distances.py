"""An operator of one's own: distances on a sphere, as a node of a model, in one process and on two actors.

python examples/custom_operator/distances.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

import distort as onnxruntime
from distort import TensorSpec

DOMAIN = "com.example.geography"


def distance_types(inputs: Sequence[TensorSpec | None], attributes: Mapping[str, Any]) -> list[TensorSpec | None]:
    """[..., 2] and [..., 2] give [...]: a plan knows how much the value weighs."""
    points = inputs[0]
    if points is None or points.shape is None:
        return [None]
    return [TensorSpec(points.dtype, points.shape[:-1])]


@onnxruntime.register_kernel(DOMAIN, "GreatCircleDistance", 1, shape_inference=distance_types)
def great_circle_distance(xp: Any, points: Any, others: Any, *, radius_km: float = 6371.0) -> Any:
    """Kilometres between latitudes and longitudes in degrees, by the haversine formula."""
    there, here = xp.radians(others), xp.radians(points)
    half = xp.sin((there - here) / 2) ** 2
    inner = half[..., 0] + xp.cos(here[..., 0]) * xp.cos(there[..., 0]) * half[..., 1]
    return (2 * radius_km * xp.arcsin(xp.sqrt(inner))).astype(points.dtype)


def model() -> bytes:
    """The nearest of some cities to each point."""
    nodes = [
        helper.make_node("Unsqueeze", ["points", "one"], ["column"]),
        helper.make_node("GreatCircleDistance", ["column", "cities"], ["km"], domain=DOMAIN),
        helper.make_node("ReduceMin", ["km", "one"], ["nearest_km"], keepdims=0),
        helper.make_node("ArgMin", ["km"], ["nearest"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "nearest_city",
        [
            helper.make_tensor_value_info("points", TensorProto.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("cities", TensorProto.FLOAT, ["m", 2]),
        ],
        [
            helper.make_tensor_value_info("nearest", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("nearest_km", TensorProto.FLOAT, ["n"]),
        ],
        [helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def main() -> None:
    cities = {"Lisbon": (38.72, -9.14), "Nairobi": (-1.29, 36.82), "Quito": (-0.18, -78.47)}
    feeds = {
        "points": np.array([[40.42, -3.70], [4.61, -74.08]], dtype=np.float32),  # Madrid, Bogota
        "cities": np.array(list(cities.values()), dtype=np.float32),
    }
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    for name, chosen in (("in this process", onnxruntime.SessionOptions()), ("on two actors", options)):
        with onnxruntime.InferenceSession(model(), chosen) as session:
            nearest, km = session.run(None, feeds)
        found = [f"{list(cities)[city]} ({distance:.0f} km)" for city, distance in zip(nearest, km, strict=True)]
        print(f"{name}: {', '.join(found)}")


if __name__ == "__main__":
    main()
