"""benchmarks/gpu_check.py: that its checks run here on what stands in for a GPU, see errors, and end in time."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx.parser
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_check.py"
FAKE = ROOT / "tests" / "fake_cuda"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def run(tmp_path: Path, *arguments: str, fake: bool = True) -> tuple[int, str, list[dict[str, Any]]]:
    """Its exit code, what it printed, its rows."""
    out = tmp_path / "rows.json"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(FAKE)} if fake else {}
    command = [sys.executable, str(SCRIPT), "--out", str(out), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False, env=environment)
    assert out.exists(), done.stderr
    return done.returncode, done.stdout, json.loads(out.read_text())


def test_quick_checks_pass_on_what_stands_in_for_a_gpu(tmp_path: Path) -> None:
    code, printed, rows = run(tmp_path, "--only", "^(setup|machine|kernels|limits|sharing|replays)$")
    bad = [row for row in rows if row["result"] in ("wrong", "failed")]
    assert code == 0 and not bad, bad
    seen = {(row["check"], row["what"]): row for row in rows}
    assert "graphs, 0 differ" in seen["replays", "6 replays float32: bit for bit as enqueued"]["figure"]
    assert seen["sharing", "scenario 3: both on the GPU by address"]["result"] == "ok"
    assert seen["setup", "GPU as distort sees it"]["figure"].startswith("Fake GPU")
    assert "2 of 4 runs were graphs" in seen["setup", "a model of float16"]["figure"]
    assert int(seen["kernels", "kernels compared"]["figure"]) >= 8
    assert f"{len(rows)} rows: " in printed.splitlines()[-1]


def test_processes_on_one_gpu_exchange_values_and_outlive_each_other(tmp_path: Path) -> None:
    code, _, rows = run(tmp_path, "--only", "^neighbours$")
    assert code == 0 and len(rows) == 4, rows


def test_a_model_is_measured_against_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    code, _, rows = run(tmp_path, "--only", "^vit$")
    assert code == 0, rows
    (time,) = [row for row in rows if row["what"] == "vit float16 batch 1: time"]
    assert set(time["details"]["ms"]) == {"ours", "eager"}


def test_node_tests_run_in_processes_of_their_own(tmp_path: Path) -> None:
    code, _, rows = run(tmp_path, "--only", "^nodes$")
    assert code == 0
    assert next(row for row in rows if row["what"] == "node tests run")["figure"] == "5"


def test_without_a_gpu_it_says_so_and_fails(tmp_path: Path) -> None:
    code, printed, rows = run(tmp_path, "--only", "^(setup|machine|limits)$", fake=False)
    assert code == 1
    assert [(row["check"], row["result"]) for row in rows] == [
        ("setup", "failed"),
        ("machine", "skipped"),
        ("limits", "skipped"),
    ]
    assert all("There is no NVIDIA driver" in row["figure"] for row in rows)
    assert "1 failed" in printed.splitlines()[-1]


def test_what_does_not_fit_the_budget_is_skipped(tmp_path: Path) -> None:
    code, _, rows = run(tmp_path, "--budget-s", "9", "--only", "^(machine|peaks)$")
    assert code == 0
    assert {row["result"] for row in rows} == {"skipped"} and len(rows) == 2
    assert "s are left of the budget" in rows[0]["figure"]


def test_a_check_that_hangs_or_dies_is_a_row(
    module: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONFAULTHANDLER", raising=False)  # else its words are the last ones of who dies
    script = module("gpu_check")
    folder = ROOT / "benchmarks" / "gpu_checks"
    assert {path.stem for path in folder.glob("*.py")} >= {check.module for check in script.CHECKS.values()}
    with pytest.MonkeyPatch.context() as patch:
        # whatever the check: a process that never ends, then one that kills itself after a row
        patch.setattr(script, "__file__", str(tmp_path / "hangs.py"))
        (tmp_path / "hangs.py").write_text("import time\ntime.sleep(600)\n")
        patch.setattr(script, "CHECKS", {"machine": script.Check("machine", 2.0)})
        (row,) = script.Driver(60, True, tmp_path).run(["machine"])
        assert (row.result, row.figure) == ("failed", "ended at its limit of 2 s")
        (tmp_path / "hangs.py").write_text(
            "import json, os, signal, sys\n"
            "row = dict(check='machine', what='first', result='ok')\n"
            "open(sys.argv[sys.argv.index('--rows') + 1], 'w').write(json.dumps(row) + '\\n{\"cut')\n"
            "print('it is over', file=sys.stderr, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGSEGV)\n"
        )
        first, last = script.Driver(60, True, tmp_path).run(["machine"])
        assert (first.what, first.result) == ("first", "ok")
        assert last.result == "failed" and "ended with -11: it is over" in last.figure
        assert last.details["last words"] == ["it is over"]


def test_who_is_ended_leaves_what_was_known(module: Callable[[str], Any], tmp_path: Path) -> None:
    """Rows of a check that still runs are in the file, a few seconds late."""
    script = module("gpu_check")
    out = tmp_path / "there" / "rows.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "__file__", str(tmp_path / "slow.py"))
        patch.setattr(script, "_EVERY_S", 0.05)
        patch.setattr(script, "CHECKS", {"machine": script.Check("machine", 30.0)})
        done = tmp_path / "done"
        (tmp_path / "slow.py").write_text(
            "import json, pathlib, sys, time\n"
            "row = dict(check='machine', what='first', result='ok')\n"
            "open(sys.argv[sys.argv.index('--rows') + 1], 'w').write(json.dumps(row) + '\\n')\n"
            f"while not pathlib.Path({str(done)!r}).exists(): time.sleep(0.02)\n"
        )
        driver = script.Driver(60, True, tmp_path)
        with script._written(out, driver), ThreadPoolExecutor(1) as pool:
            running = pool.submit(driver.run, ["machine"])
            until = time.monotonic() + 20
            while '"first"' not in (out.read_text() if out.exists() else "") and time.monotonic() < until:
                time.sleep(0.02)
            assert not running.done() and [row["what"] for row in json.loads(out.read_text())] == ["first"]
            done.write_text("")
            (row,) = running.result(20)
    assert row.result == "ok"


def test_a_plan_that_could_not_be_made_is_a_row(
    module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, fake_cuda: Any
) -> None:
    """Answers are right without one."""
    report, nodes = module("gpu_checks.report"), module("gpu_checks.nodes")

    def broken(*_: Any) -> Any:
        raise TypeError("no such argument")

    monkeypatch.setattr("distort.kernels.cuda.plan.launches", broken)
    node = onnx.helper.make_node("Abs", ["x"], ["y"])
    infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3]) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", infos[:1], infos[1:]), ir_version=10)
    x = np.array([1, -2, 3], np.float32)
    case = SimpleNamespace(model=model, data_sets=[([x], [np.abs(x)])], rtol=1e-5, atol=1e-7)
    answer = nodes.run_case(case)
    assert answer.result == "failed"
    assert re.fullmatch(r"no plan: TypeError: no such argument \(kernels\.cuda\.plan:\d+ in _step\)", answer.words)
    made = report.Report("check", None, small=True, limit_s=9)
    program = SimpleNamespace(faults={(None,): "Traceback"}, refused={(None,): "TypeError: of ours"})
    made.faults("a model", program)
    assert [(row.what, row.result) for row in made.rows] == [("a model: a plan", "failed")]


def test_errors_are_seen(module: Callable[[str], Any]) -> None:
    arrays, nodes = module("gpu_checks.arrays"), module("gpu_checks.nodes")
    x = np.array([1, 2, np.inf, np.nan], np.float32)
    assert arrays.error(x, x) == 0
    assert arrays.error(x * np.float32(1.001), x) == pytest.approx(1e-3, rel=1e-2)
    assert not arrays.error(np.array([np.nan, 2]), np.array([1.0, 2])) <= 1  # NaN is within nothing
    assert not arrays.error(x[:2], x) <= 1
    assert nodes.differs(x, x, 1e-3, 1e-7) == ""
    assert "differs by" in nodes.differs(x + 1, x, 1e-3, 1e-7)
    assert nodes.differs(x.astype(np.float64), x, 1e-3, 1e-7) == "float64 for float32"
    assert nodes.differs([x], [x, x], 1e-3, 1e-7) == "no sequence of 2"


def test_a_report_goes_on_after_errors(module: Callable[[str], Any], tmp_path: Path) -> None:
    report = module("gpu_checks.report")
    made = report.Report("check", tmp_path / "rows", small=True, limit_s=9)
    with made.part("breaks"):
        raise ValueError("of itself\nand more")
    with made.part("lacks"):
        raise report.Skipped("no torch")
    made.within("far", float("nan"), 1e-3)
    made.within("near", 1e-4, 1e-3)
    assert [(row.what, row.result) for row in made.rows] == [
        ("breaks", "failed"),
        ("lacks", "skipped"),
        ("far", "wrong"),
        ("near", "ok"),
    ]
    assert made.rows[0].figure == "ValueError: of itself" and "Traceback" in made.rows[0].details["traceback"]
    read = report.read_rows(tmp_path / "rows")
    assert [row.result for row in read] == [row.result for row in made.rows]
    lines = report.table(read).splitlines()
    assert lines[0].startswith("failed") and lines[1].startswith("wrong")
    assert lines[-1] == "4 rows: 1 wrong, 1 failed, 1 ok, 1 skipped"


def test_a_wrong_kernel_is_noticed(
    module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, fake_cuda: Any
) -> None:
    kernels = module("gpu_checks.kernels")
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    for family in ("maps", "rows"):
        operation = next(iter(kernels.families()[family]))
        assert kernels.compare(operation, 0) == ""
    real = kernels._on_gpu

    def spoiled(*arguments: Any) -> Any:
        found = real(*arguments)
        found[operation.outputs[0].buffer][1] ^= 0x40
        return found

    monkeypatch.setattr(kernels, "_on_gpu", spoiled)
    assert "differ" in kernels.compare(operation, 0)


HALVES = """<ir_version: 10, opset_import: ["": 21]> g (float[2,3] x) => (float[2,3] y, int64[1] n)
    <float[3] w = {1.0, 2.0, -1e38}, int64[2] s = {2, 3}> {
    c = Constant <value = float {0.5}> ()
    d = Constant <value_float = 3.0e38> ()
    z = ConstantOfShape <value = float[1] {2.0}> (s)
    t = Cast <to = 1> (s)
    m = Mul (x, w)
    a = Add (m, c)
    e = Min (a, d)
    y = Add (e, z)
    n = Shape (t)
}"""


def test_a_model_in_half_precision(module: Callable[[str], Any]) -> None:
    from distort.engine import load_model
    from distort.kernels.program import Program

    halves = module("gpu_checks.halves")
    model = onnx.parser.parse_model(HALVES)
    made = halves.halved(model)
    onnx.checker.check_model(made, full_check=True)
    x = np.array([[1, 2, 1e-3], [3, 4, 5e-3]], np.float32)
    wide = Program(load_model(model.SerializeToString()).graph)
    narrow = Program(load_model(made.SerializeToString()).graph)
    got, n = narrow.run({"x": x.astype(np.float16)})
    assert got.dtype == np.float16 and n.tolist() == [2]
    np.testing.assert_allclose(got[:, :2], wide.run({"x": x})[0][:, :2], rtol=1e-3)
    # what float16 has no number for is its largest, and not infinite
    np.testing.assert_allclose(got[:, 2], (x[:, 2] * -65504 + 2.5), rtol=5e-3)
    assert next(t for t in model.graph.initializer if t.name == "w").data_type == onnx.TensorProto.FLOAT


GRAPH = """<ir_version: 10, opset_import: ["": 20]> g (float[N,C,6,6] x, int64[N] i) => (float[N,K] y, int64[2] t)
    <int64[1] last = {-1}, int64[1] one = {1}> {
    r = Conv <pads = [1,1,1,1], group = 2> (x, w)
    a = Relu (r)
    p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (a)
    s = Shape <start = 0, end = 1> (p)
    u = Concat <axis = 0> (s, last)
    f = Reshape (p, u)
    h = Slice (f, one, last, one)
    k = ReduceMean <keepdims = 1> (h, one)
    e = Gather (v, i)
    g = Gelu (e)
    m = Mul (g, k)
    n = Softmax (m)
    z = Unsqueeze (n, one)
    o = Squeeze (z, one)
    q = Shape (o)
    b = Expand (k, q)
    d = Div (b, b)
    y = Sub (o, d)
    t = Shape (y)
}"""


def test_torch_computes_the_same_graph(module: Callable[[str], Any]) -> None:
    pytest.importorskip("torch")
    from distort.engine import load_model
    from distort.kernels.program import Program

    torch_graph = module("gpu_checks.torch_graph")
    import torch

    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(GRAPH)
    for name, shape in (("w", (4, 2, 3, 3)), ("v", (3, 8))):
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    feeds = {"x": rng.standard_normal((2, 4, 6, 6)).astype(np.float32), "i": np.array([2, -1])}
    want = Program(load_model(model.SerializeToString()).graph).run(feeds)
    made = torch_graph.TorchGraph(model, feeds, "cpu")
    with torch.inference_mode():
        got = made(*[torch_graph.tensor_of(feeds[name]) for name in made.inputs])
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-4, atol=1e-5)
    assert torch_graph.operators_missing(model) == []
    with pytest.raises(KeyError, match="Atan"):
        unknown = onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] y) { y = Atan (x) }'
        )
        torch_graph.TorchGraph(unknown, {"x": np.zeros(2, np.float32)}, "cpu")


def test_models_written_here_are_right(module: Callable[[str], Any]) -> None:
    from distort.engine import load_model
    from distort.kernels.program import Program

    sketch = module("gpu_checks.sketch")
    vit = sketch.vit(size=16, heads=2, layers=1, image=32)
    onnx.checker.check_model(vit, full_check=True)
    (logits,) = Program(load_model(vit.SerializeToString()).graph).run(
        {"pixels": np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)}
    )
    assert logits.shape == (3, 1000) and 0.1 < logits.std() < 10
    for dtype in (np.float32, np.float16):
        mixed = sketch.mixed(dtype, batch=1, channels=16, side=4, heads=2)
        onnx.checker.check_model(mixed, full_check=True)
        (y,) = Program(load_model(mixed.SerializeToString()).graph).run(sketch.feed_of(mixed))
        assert y.dtype == dtype and np.isfinite(y).all() and 0.1 < y.std() < 10


def test_references_hold_for_problems_of_all_kinds(module: Callable[[str], Any]) -> None:
    """Against the definition that tests of cuDNN's plans go by."""
    pytest.importorskip("torch")
    from .dnn_problems import CONVOLUTIONS, attention
    from .test_dnn import reference

    references = module("gpu_checks.references")
    rng = np.random.default_rng(0)
    for name in ("uneven pads", "groups", "leaky", "transposed", "transposed, longer", "one axis, all"):
        p = CONVOLUTIONS[name]
        views = {"x": rng.standard_normal(p.x), "w": rng.standard_normal(p.w), "z": rng.standard_normal(p.y)}
        views["bias"] = rng.standard_normal(p.y[1])
        views = {one: view.astype(np.float32) for one, view in views.items()}
        want = reference(p, views["x"], views["w"], views["bias"], views["z"])
        np.testing.assert_allclose(references.convolution(p, views), want, rtol=1e-6, atol=1e-6, err_msg=name)
    p = attention("float16", causal="last")
    q, k, v = ((2, 4, 3, 8), (2, 2, 5, 8), (2, 2, 5, 16))
    views = {name: rng.standard_normal(shape).astype(np.float16) for name, shape in zip("qkv", (q, k, v), strict=True)}
    theirs = references.torch_attention(p, views)
    np.testing.assert_allclose(references.attention(p, views), theirs, rtol=0, atol=4e-3)


def test_who_loses_the_gpu_is_named_and_blames_nobody_else(
    module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that lost the GPU is replaced before the next case; the case runs again, each launch waited for."""
    nodes, report = module("gpu_checks.nodes"), module("gpu_checks.report")
    made: list[Any] = []

    class Worker:
        def __init__(self, waits: bool = False) -> None:
            self.waits, self.lost = waits, False
            made.append(self)

        def ask(self, case: Any, limit_s: float) -> Any:
            assert not self.lost, "a lost process is asked again"
            self.lost = case.name == "bad"
            if not self.lost:
                return nodes.Answer("float32", "ok", "")
            words = "illegal address in rows_1" if self.waits else "illegal address"
            return nodes.Answer("float32", "failed", words, (), True)

        def kill(self) -> str:
            return ""

    monkeypatch.setattr(nodes, "_Worker", Worker)
    cases = [SimpleNamespace(name=name) for name in ("one", "bad", "two")]
    found = nodes._Pool(cases, report.Report("nodes", None, small=True, limit_s=60)).run()
    assert [found[name].result for name in ("one", "bad", "two")] == ["ok", "failed", "ok"]
    assert found["bad"].words == "illegal address; where each launch is waited for: illegal address in rows_1"
    assert [worker.waits for worker in made] == [False, True, False]


def test_a_check_goes_on_in_a_new_process_when_the_gpu_is_lost(
    module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, fake_cuda: Any
) -> None:
    report = module("gpu_checks.report")
    began: list[Any] = []
    monkeypatch.setattr(report.os, "execve", lambda *given: began.append(given))
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--check", "kernels", "--limit-s", "90", "--full"])
    monkeypatch.delenv("GPU_CHECK_DONE", raising=False)
    made = report.Report("kernels", None, small=True, limit_s=50)
    made.go_on("maps 0")
    assert not began

    def lost() -> None:
        raise fake_cuda.cuda.runtime.CUDARuntimeError(700)

    monkeypatch.setattr(fake_cuda.cuda.runtime, "deviceSynchronize", lost)
    told: list[str] = []
    made.go_on("maps 1", lambda: told.append("before"))
    ((_, words, environment),) = began
    assert words[1:5] == ["gpu_check.py", "--check", "kernels", "--limit-s"] and 40 < float(words[5]) <= 50
    assert words[6] == "--full" and told == ["before"]
    assert made.rows[-1].result == "failed" and "cudaErrorIllegalAddress" in made.rows[-1].figure
    monkeypatch.setenv("GPU_CHECK_DONE", environment["GPU_CHECK_DONE"])
    after = report.Report("kernels", None, small=True, limit_s=9)
    assert after.is_done("maps 0") and after.is_done("maps 1") and not after.is_done("maps 2")
