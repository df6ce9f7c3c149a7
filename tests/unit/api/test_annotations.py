"""``distort.partition``: what a session refuses, before any actor is started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import distort as onnxruntime
from distort.capi.onnxruntime_pybind11_state import InvalidArgument, InvalidGraph, NotImplemented

from ...annotated_models import annotate

CHAIN = "g (float[2] x) => (float[2] y) { [a] b = Sqrt(x) [c] d = Exp(b) [e] f = Neg(d) [h] y = Exp(f) }"


def session(placed: Mapping[str, int | None], n_actors: int = 0, on: Any = None, **entries: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = n_actors
    for key, value in {"partition": "annotations", **entries}.items():
        options.add_session_config_entry(f"distort.{key}", value)
    return onnxruntime.InferenceSession(annotate(CHAIN, placed, on=on).SerializeToString(), options)


@pytest.mark.parametrize("value", ["", "annotations:", "mine"])
def test_what_the_key_takes(value: str) -> None:
    options = onnxruntime.SessionOptions()
    with pytest.raises(InvalidArgument, match=r"distort\.partition.*auto.*annotations:NAME"):
        options.add_session_config_entry("distort.partition", value)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"placed": {"a": 0, "c": 1, "e": 0}}, InvalidGraph, "Node 'e' of pipeline stage 0 reads 'd' of node 'c'"),
        ({"placed": {"a": -2}}, InvalidGraph, "Node 'a' has the pipeline stage -2"),
        ({"placed": {"a": 0}, "on": {"a": [5]}}, InvalidGraph, "Node 'a' puts 'b' on device 5"),
        ({"placed": {"a": 0}, "partition": "annotations:no"}, InvalidArgument, "no device configuration 'no'"),
        ({"placed": {"a": 0, "h": 1}, "n_actors": 3}, InvalidArgument, "3 stages are asked for"),
        ({"placed": {"a": 0, "h": 1}, "stages": "4"}, InvalidArgument, "4 stages are asked for"),
        ({"placed": {"a": 0, "h": 1}, "n_actors": 2}, None, ""),
        ({"placed": {"a": 0, "h": 1}, "strict_placement": "1"}, InvalidGraph, "Node 'c' has no pipeline stage"),
    ],
)
def test_what_a_session_refuses(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], error: type[Exception] | None, text: str
) -> None:
    def no_actors(*_: Any) -> None:
        raise RuntimeError("actors are wanted")

    monkeypatch.setattr("distort.parallel.Actors", no_actors)
    # the one that is right gets as far as its actors
    with pytest.raises(error or RuntimeError, match=text or "actors are wanted"):
        session(**arguments)


def test_tensor_parallelism_is_not_implemented() -> None:
    proto = annotate(CHAIN, {"a": 0}, on={"a": [0, 1]})
    spec = proto.graph.node[0].device_configurations[0].sharding_spec[0]
    spec.sharded_dim.add(axis=0).simple_sharding.add(dim_value=2, num_shards=2)
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.partition", "annotations:two")
    with pytest.raises(NotImplemented, match="Node 'a' splits 'b'"):
        onnxruntime.InferenceSession(proto.SerializeToString(), options)


def test_one_stage_runs_in_this_process() -> None:
    opened = session({"a": 3, "c": 3, "e": 3, "h": 3})
    x = np.ones(2, np.float32)
    np.testing.assert_allclose(opened.run(None, {"x": x})[0], np.exp(-np.exp(np.sqrt(x))), rtol=1e-6)
    assert len(opened.plan.stages) == 1
    assert "stage is what the model is annotated with" in opened.plan.explain()
