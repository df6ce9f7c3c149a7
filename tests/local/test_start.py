"""A parallel session answers at once, in this process, and moves onto its actors when they are there."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import numpy as np
import onnx
import pytest

import distort
from distort.capi.onnxruntime_pybind11_state import Fail

from .conftest import actor_pids

MODEL = onnx.parser.parse_model(
    """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N] x) => (float[N] y) {
    a = Abs (x)
    y = Neg (a)
}
"""
).SerializeToString()


def options(**keys: str) -> distort.SessionOptions:
    made = distort.SessionOptions()
    made.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    made.inter_op_num_threads = 2
    for key, value in keys.items():
        made.add_session_config_entry(f"distort.{key}", value)
    return made


def test_runs_go_on_while_the_actors_come() -> None:
    with distort.InferenceSession(MODEL, options()) as session:
        engine = session._sess._loaded.engine
        answers: list[list[float]] = []

        def caller(start: int) -> None:
            answers.append([])
            mine = answers[-1]
            count = start
            # until the actors have answered some
            while engine._actors.ready is None or len(mine) - before.setdefault(start, len(mine)) < 20:
                mine.append(float(session.run(None, {"x": np.array([count], np.float32)})[0][0]) + count)
                count += 1

        before: dict[int, int] = {}
        threads = [threading.Thread(target=caller, args=(1000 * i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # each answer is to its own question
        assert len(answers) == 3 and not any(any(mine) for mine in answers)
        assert sum(row["messages"] for row in session.get_transfer_stats() if row["consumer"] == -1) >= 60
        assert len(actor_pids()) == 2


def test_wait_has_actors_when_it_returns() -> None:
    with distort.InferenceSession(MODEL, options(start="wait")) as session:
        assert len(actor_pids()) == 2
        session.run(None, {"x": np.ones(1, np.float32)})
        assert {row["consumer"] for row in session.get_transfer_stats()} == {-1, 0, 1}


def test_a_state_moves_onto_the_actors() -> None:
    """What a run here made is fed to one on actors."""
    with distort.InferenceSession(MODEL, options()) as session:
        value = session.run_with_ort_values(None, {"x": distort.OrtValue.ortvalue_from_numpy(np.ones(3, np.float32))})
        session._sess._loaded.engine.executor  # noqa: B018  # waits
        again = session.run_with_ort_values(None, {"x": value[0]})
        np.testing.assert_array_equal(again[0].numpy(), [-1, -1, -1])


def test_a_bound_output_moves_onto_the_actors() -> None:
    """The same binding before and after: what it holds stays where it is made."""
    with distort.InferenceSession(MODEL, options()) as session:
        binding = session.io_binding()
        binding.bind_cpu_input("x", np.ones(3, np.float32))
        binding.bind_output("y", "cpu")
        session.run_with_iobinding(binding)
        first = binding.get_outputs()[0]
        session._sess._loaded.engine.executor  # noqa: B018  # waits
        session.run_with_iobinding(binding)
        second = binding.get_outputs()[0]
        assert not any(row["value"] == "y" for row in session.get_transfer_stats()), "nobody asked for it"
        for value in (first, second):
            np.testing.assert_array_equal(value.numpy(), [-1, -1, -1])


def test_closed_while_the_actors_come() -> None:
    session = distort.InferenceSession(MODEL, options())
    session.close()
    with pytest.raises(Fail, match="closed"):
        session.run(None, {"x": np.ones(1, np.float32)})


def test_what_keeps_actors_from_coming_is_raised_by_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no more files")

    monkeypatch.setattr("distort.parallel.ActorTransport.open", refuse)
    session = distort.InferenceSession(MODEL, options())
    engine = session._sess._loaded.engine
    engine._actors._there.wait(30)
    with pytest.raises(Exception, match="no more files"):
        session.run(None, {"x": np.ones(1, np.float32)})
    session.close()


def test_a_program_that_ends_early_leaves_nothing() -> None:
    """It answers, and ends while its cluster is still being started; the cluster ends too."""
    program = f"""
        import numpy as np, distort, onnx
        options = distort.SessionOptions()
        options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
        options.inter_op_num_threads = 2
        session = distort.InferenceSession({MODEL!r}, options)
        print(session.run(None, {{"x": np.ones(1, np.float32)}})[0])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[-1.]\n"
    assert done.stderr == ""
