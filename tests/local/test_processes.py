"""Parallel sessions and processes: fork, spawn, pickles; and the path to the fetches on actors."""

from __future__ import annotations

import multiprocessing
import operator
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest

import distort
from distort.capi.onnxruntime_pybind11_state import Fail

from .conftest import actor_pids

MODEL = onnx.parser.parse_model(
    """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N] x, float[2] z) => (float[N] y, float[K] w) {
    a = Abs (x)
    y = Neg (a)
    w = Add (a, z)
}
"""
).SerializeToString()
FEEDS = {"x": np.ones(2, np.float32), "z": np.ones(2, np.float32)}
WANTED = [[-1, -1], [2, 2]]


def _options() -> distort.SessionOptions:
    options = distort.SessionOptions()
    options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("distort.start", "wait")
    options.inter_op_num_threads = 2
    options.log_severity_level = 4
    return options


def _answers(session: distort.InferenceSession) -> list[Any]:
    return [result.tolist() for result in session.run(None, FEEDS)]


def test_only_the_path_to_the_fetches() -> None:
    feeds = FEEDS | {"x": np.ones(3, np.float32)}
    with distort.InferenceSession(MODEL, _options()) as session:
        options = distort.RunOptions()
        with pytest.raises(Fail, match="while running Add node"):
            session.run(["y"], feeds, options)
        options.only_execute_path_to_fetches = True
        assert session.run(["y"], feeds, options)[0].tolist() == [-1, -1, -1]
        with pytest.raises(Fail, match="while running Add node"):
            session.run(["w"], feeds, options)
        assert _answers(session) == WANTED


def test_a_forked_process_has_no_actors() -> None:
    with distort.InferenceSession(MODEL, _options()) as session:
        assert _answers(session) == WANTED
        kept = session.run_with_ort_values(
            ["y"], {k: distort.OrtValue.ortvalue_from_numpy(v) for k, v in FEEDS.items()}
        )
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            told = []
            for ask in (lambda: _answers(session), kept[0].numpy, lambda: distort.InferenceSession(MODEL, _options())):
                try:
                    ask()
                except Exception as error:  # noqa: BLE001  # the parent looks at it
                    told.append(f"{type(error).__name__}: {error}")
                else:
                    told.append("it ran")
            session.close()  # takes nothing from the parent
            os.write(writing, "\n".join(told).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading) as pipe:
            lines = pipe.read().splitlines()
        assert len(lines) == 3
        for line in lines:
            assert line.startswith("Fail: ")
            assert "which this one was forked from" in line
        assert len(actor_pids()) == 2
        assert _answers(session) == WANTED


def test_a_sequential_session_survives_a_fork() -> None:
    session = distort.InferenceSession(MODEL)
    child = os.fork()
    if child == 0:
        os._exit(0 if _answers(session) == WANTED else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_session_goes_to_a_spawned_process() -> None:
    session = distort.InferenceSession(MODEL)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = pool.submit(operator.methodcaller("run", None, FEEDS), session).result(timeout=60)
    assert [result.tolist() for result in results] == WANTED


def test_a_parallel_session_pickles() -> None:
    with distort.InferenceSession(MODEL, _options()) as session:
        copied = pickle.loads(pickle.dumps(session))
        with copied:
            assert _answers(copied) == _answers(session) == WANTED
            assert len(actor_pids()) == 4
