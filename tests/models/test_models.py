"""Real models and real architectures: right in this process, and on two and three actors."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distort as onnxruntime

from . import real

pytestmark = pytest.mark.models
#: in this process, and on so many actors
N_ACTORS = pytest.mark.parametrize("n_actors", [0, *(pytest.param(n, marks=pytest.mark.parallel) for n in (2, 3))])
EXPECTED = Path(__file__).with_name("architectures.npz")


@pytest.fixture(scope="session")
def architectures(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the architectures with seeded weights; each is written when it is first asked for."""
    return tmp_path_factory.mktemp("architectures")


def open_session(path: Path, n_actors: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if n_actors:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
        options.add_session_config_entry("distort.start", "wait")
        options.inter_op_num_threads = n_actors
        options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_stages(session: onnxruntime.InferenceSession, n_actors: int) -> None:
    n_nodes = sum(stage.n_nodes for stage in session.plan.stages)
    assert len(session.plan.stages) == max(1, min(n_actors, n_nodes))


@N_ACTORS
@pytest.mark.parametrize("name", real.REAL)
def test_trained_model(name: str, n_actors: int) -> None:
    with open_session(real.model_path(name), n_actors) as session:
        check_stages(session, n_actors)
        expected = real.expected_of(name)
        feeds = real.feeds_of(name)
        results = dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))
        again = session.run(list(results), feeds)
    for output, want in expected.items():
        real.assert_close(name, output, results[output], want)
    for first, second in zip(results.values(), again, strict=True):
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))


@pytest.fixture(scope="module", params=real.ARCHITECTURES)
def architecture(request: pytest.FixtureRequest, architectures: Path) -> Iterator[tuple[str, Path]]:
    folder = real.materialize(request.param, architectures)
    yield request.param, folder
    gc.collect()
    (folder / "model.onnx").unlink()  # half a gigabyte each


@N_ACTORS
def test_architecture(architecture: tuple[str, Path], n_actors: int) -> None:
    name, folder = architecture
    feeds = real.load_arrays(folder / "inputs.npz")
    with open_session(folder / "model.onnx", n_actors) as session:
        check_stages(session, n_actors)
        outputs = [output.name for output in session.get_outputs()]
        results = dict(zip(outputs, session.run(None, feeds), strict=True))
    assert_sampled(name, results, real.load_arrays(EXPECTED))


def assert_sampled(name: str, results: Mapping[str, Any], expected: Mapping[str, np.ndarray]) -> None:
    """Against samples of what onnxruntime gave (``sample_architectures.py`` wrote them)."""
    for output, got in results.items():
        positions = expected[f"{name}/{output}/positions"]
        want = expected[f"{name}/{output}/values"]
        scale = float(expected[f"{name}/{output}/scale"])
        assert list(got.shape) == expected[f"{name}/{output}/shape"].tolist()
        worst = float(np.abs(got.reshape(-1)[positions] - want).max())
        assert worst <= 1e-4 * scale, f"{output}: differs by {worst:.3g}, allowed {1e-4 * scale:.3g}"
