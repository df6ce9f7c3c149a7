"""Weights: each actor has its own and no others, replicas share pages, and no process holds all of a large model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import psutil
import pytest

import distort

#: of all weights of the model that is made here; DISTORT_LARGE_MODEL_MB makes it larger
MODEL_MB = int(os.environ.get("DISTORT_LARGE_MODEL_MB", "512"))
N_LAYERS = 8
ROWS = 1024


def write_model(folder: Path) -> Path:
    """A chain of products; the weights lie in a file beside the model, written a piece at a time."""
    columns = MODEL_MB * 2**20 // (N_LAYERS * ROWS * 4)
    graph = onnx.helper.make_graph(
        [
            node
            for i in range(N_LAYERS)
            for node in (
                onnx.helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"p{i}"]),
                onnx.helper.make_node("Slice", [f"p{i}", "start", "end", "axis"], [f"x{i + 1}"]),
            )
        ],
        "large",
        [onnx.helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, [1, ROWS])],
        [onnx.helper.make_tensor_value_info(f"x{N_LAYERS}", onnx.TensorProto.FLOAT, [1, ROWS])],
        [
            onnx.numpy_helper.from_array(np.array([value], np.int64), name)
            for name, value in (("start", 0), ("end", ROWS), ("axis", 1))
        ],
    )
    block = np.full((ROWS, columns), 0.5 / ROWS, np.float32).tobytes()
    with (folder / "weights.bin").open("wb") as file:
        for i in range(N_LAYERS):
            tensor = onnx.TensorProto(
                name=f"w{i}",
                data_type=onnx.TensorProto.FLOAT,
                dims=[ROWS, columns],
                data_location=onnx.TensorProto.EXTERNAL,
            )
            for key, value in (("location", "weights.bin"), ("offset", str(file.tell())), ("length", str(len(block)))):
                tensor.external_data.add(key=key, value=value)
            graph.initializer.append(tensor)
            file.write(block)
    path = folder / "model.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("large")
    yield write_model(folder)
    (folder / "weights.bin").unlink()


def options(**keys: str) -> distort.SessionOptions:
    made = distort.SessionOptions()
    made.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    made.inter_op_num_threads = 2
    made.intra_op_num_threads = 1
    for key, value in {"start": "wait", "costs": "estimated", **keys}.items():
        made.add_session_config_entry(f"distort.{key}", value)
    return made


def resident_mb(pid: int) -> float:
    """Pages of a file or of others that a process maps and has touched count whole."""
    return psutil.Process(pid).memory_info().rss / 2**20


def proportional_mb(pid: int) -> float:
    """Pages that several processes share count in part."""
    return psutil.Process(pid).memory_full_info().pss / 2**20


def test_no_process_holds_all_weights(model: Path) -> None:
    with distort.InferenceSession(str(model), options()) as session:
        before = resident_mb(os.getpid())
        x = np.ones((1, ROWS), np.float32)
        y = session.run(None, {"x0": x})[0]
        np.testing.assert_allclose(y, np.full((1, ROWS), 0.5**N_LAYERS, np.float32), rtol=1e-4)
        hosts = session._sess._loaded.engine.executor.hosts
        assert [len(host.facts and host.facts.endpoint) > 0 for host in hosts] == [True, True]
        held = [stage.weights_nbytes / 2**20 for stage in session.plan.stages]
        assert sum(held) == pytest.approx(MODEL_MB, rel=0.01)
        assert max(held) < 0.7 * MODEL_MB
        for host, own in zip(hosts, held, strict=True):
            assert own * 0.9 < resident_mb(host.pid) < own + 250
        # this process has the model, and has read none of its weights
        assert resident_mb(os.getpid()) - before < 0.2 * MODEL_MB


def test_replicas_share_their_weights(model: Path) -> None:
    keys = {"stages": "1", "replicas": "2"}
    with distort.InferenceSession(str(model), options(**keys)) as session:
        for _ in range(6):
            session.run(None, {"x0": np.ones((1, ROWS), np.float32)})
        pids = [host.pid for host in session._sess._loaded.engine.executor.hosts]
        assert len(set(pids)) == 2
        assert all(resident_mb(pid) > 0.9 * MODEL_MB for pid in pids), "both have read all weights"
        # together they have them once
        assert sum(proportional_mb(pid) for pid in pids) < MODEL_MB + 2 * 200


def test_weights_that_a_node_lacks_are_sent(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor that finds another file than the one that was read asks for the weights themselves."""
    from distort.cluster import weights

    true_place = weights.in_file

    def elsewhere(value: object) -> weights.FileWeight | None:
        place = true_place(value)
        return (
            None
            if place is None
            else place.__class__(
                path=place.path,
                offset=place.offset,
                element=place.element,
                shape=place.shape,
                file_nbytes=place.file_nbytes,
                mtime_ns=place.mtime_ns - 1,
            )
        )

    session_weights: dict[str, object] = {}
    true_open = weights.open_weights

    def open_all(places: dict[str, weights.FileWeight]) -> dict[str, object]:
        """In this process, whose file it is."""
        fixed = {name: _with_time(place) for name, place in places.items()}
        session_weights.update(fixed)
        return true_open(fixed)

    monkeypatch.setattr(weights, "in_file", elsewhere)
    monkeypatch.setattr("distort.cluster.transport.actors.open_weights", open_all)
    with distort.InferenceSession(str(model), options()) as session:
        y = session.run(None, {"x0": np.ones((1, ROWS), np.float32)})[0]
    np.testing.assert_allclose(y, np.full((1, ROWS), 0.5**N_LAYERS, np.float32), rtol=1e-4)
    assert len(session_weights) == N_LAYERS


def _with_time(place: object) -> object:
    from dataclasses import replace

    return replace(place, mtime_ns=place.mtime_ns + 1)  # type: ignore[attr-defined,type-var]  # a FileWeight
