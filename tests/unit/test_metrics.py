"""Metrics of a session's actors: Prometheus' text, Ray's registry, an address, and `distort top`."""

from __future__ import annotations

import gc
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx.parser
import pytest

from distort.cli import main
from distort.cluster import publisher as publishing
from distort.cluster.activity import EdgeActivity, Tally, UnitActivity
from distort.cluster.errors import ClusterError
from distort.cluster.executor import Executor
from distort.cluster.metrics import FAMILIES, RayMetrics, to_text
from distort.cluster.publisher import Publisher
from distort.cluster.transport.inproc import InprocTransport
from distort.engine import load_model, plan_model
from distort.parallel import stage_payloads

MODEL = '<ir_version: 9, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { h = Sqrt (x) y = Neg (h) }'


@pytest.fixture
def executor() -> Iterator[Executor]:
    """Two stages without actors."""
    model = load_model(onnx.parser.parse_model(MODEL).SerializeToString())
    plan, graph = plan_model(model, 2)
    made = Executor(plan, *stage_payloads(graph, plan), InprocTransport())
    yield made
    made.close()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher("127.0.0.1:0", 'a "model"')
    yield made
    made.close()


def run(executor: Executor, times: int = 1) -> None:
    for _ in range(times):
        executor.run(["y"], {"x": np.ones(4, np.float32)})


def scrape(publisher: Publisher) -> dict[str, float]:
    with urllib.request.urlopen(f"{publisher.url}/metrics", timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return parsed(answer.read().decode())


def parsed(text: str) -> dict[str, float]:
    """Samples of Prometheus' text, each of a family that was told before; session and model left out."""
    told: dict[str, str] = {}
    found = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            told[name] = kind
        elif not line.startswith("#"):
            match = re.fullmatch(r'([a-z_]+)\{session="[0-9a-f]{8}",model="a \\"model\\"",?(.*)\} (\S+)', line)
            assert match is not None, line
            name, labels, value = match.groups()
            assert name in told or told[re.sub("_(bucket|sum|count)$", "", name)] == "histogram"
            found[f"{name}{{{labels}}}"] = float(value)
    return found


def test_what_is_served_grows_with_runs(executor: Executor, publisher: Publisher) -> None:
    publisher.follow(executor)
    run(executor, 2)
    before = scrape(publisher)
    run(executor, 3)
    after = scrape(publisher)
    assert (before['distort_runs_total{outcome="done"}'], after['distort_runs_total{outcome="done"}']) == (2, 5)
    (executions,) = [key for key in after if key.startswith('distort_stage_executions_total{stage="stage1"')]
    assert (before[executions], after[executions]) == (2, 5)
    assert after['distort_edge_bytes_total{edge="caller->stage0",transport="object_store"}'] == 5 * 16
    assert after['distort_run_seconds_bucket{le="+Inf"}'] == after["distort_run_seconds_count{}"] == 5
    assert after["distort_run_seconds_sum{}"] > before["distort_run_seconds_sum{}"] > 0
    buckets = [value for key, value in after.items() if "_bucket" in key]
    assert buckets == sorted(buckets)


def test_before_the_actors_are_there_and_elsewhere(publisher: Publisher) -> None:
    for path, code in (("/metrics", 503), ("/other", 404)):
        with pytest.raises(urllib.error.HTTPError, match=str(code)) as caught:
            urllib.request.urlopen(publisher.url + path, timeout=5)
        caught.value.close()


def test_nobody_listens_after_the_end(publisher: Publisher) -> None:
    url = publisher.url
    publisher.close()
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"{url}/metrics", timeout=5)


def test_a_port_that_is_taken(publisher: Publisher) -> None:
    address = publisher.url.removeprefix("http://")
    with pytest.raises(ClusterError, match=rf"distort\.metrics={address}: .* Each session needs a port of its own"):
        Publisher(address, "second")


def test_a_publisher_ends_with_its_executor(publisher: Publisher) -> None:
    model = load_model(onnx.parser.parse_model(MODEL).SerializeToString())
    plan, graph = plan_model(model, 2)
    executor = Executor(plan, *stage_payloads(graph, plan), InprocTransport())
    publisher.follow(executor)
    assert publisher.snapshot() is not None
    del executor
    gc.collect()
    assert publisher.snapshot() is None


def test_top_shows_it(executor: Executor, publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    publisher.follow(executor)
    run(executor, 2)
    address = publisher.url.removeprefix("http://")
    assert main(["top", address, "--every", "0.01"]) == 0
    out = capsys.readouterr().out
    assert "2 runs, 0 in flight" in out and "stage1" in out and "\x1b" not in out
    assert main(["top", address, "--every", "0.01", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == 'a "model"'
    assert [actor["name"] for actor in told["actors"]] == ["stage0", "stage1"]
    assert [actor["busy"] for actor in told["actors"]] == [None, None]  # nothing ran meanwhile


@pytest.mark.parametrize(
    ("address", "text"),
    [("127.0.0.1:1", "no session answers there"), ("ftp://x", "HOST:PORT"), ("{}", "503 the actors are not there")],
)
def test_top_where_nobody_is(publisher: Publisher, capsys: pytest.CaptureFixture[str], address: str, text: str) -> None:
    assert main(["top", address.format(publisher.url), "--every", "0.01"]) == 1
    assert text in capsys.readouterr().err


class Registry:
    """Counters, gauges and histograms as Ray has them."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def __getattr__(self, kind: str) -> Any:
        def make(name: str, description: str, tag_keys: tuple[str, ...], boundaries: Any = None) -> Any:
            metric = Metric(name, self.told, tag_keys)
            return metric

        return make


class Metric:
    def __init__(self, name: str, told: dict[str, Any], keys: tuple[str, ...]) -> None:
        self._name, self._told, self._keys = name, told, keys

    def _key(self, tags: dict[str, str]) -> str:
        assert tuple(tags) == self._keys
        return " ".join([self._name, *list(tags.values())[2:]])

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0
        self._told[self._key(tags)] = self._told.get(self._key(tags), 0) + value

    def set(self, value: float, tags: dict[str, str]) -> None:
        self._told[self._key(tags)] = value

    def observe(self, value: float, tags: dict[str, str]) -> None:
        self._told.setdefault(self._key(tags), []).append(value)


def test_counters_of_ray_grow_over_a_restart_and_each_latency_is_told_once() -> None:
    registry = Registry()
    metrics = RayMetrics({"session": "s", "model": "m"}, registry)
    moments = iter(range(0, 10_000_000_000, 1_000_000_000))
    tally = Tally(lambda: next(moments))

    def unit(executions: int, epoch: int) -> UnitActivity:
        return UnitActivity(0, 0, "stage0", "cpu:0", epoch, True, executions, executions * 10**9, queued=epoch)

    for executions, epoch in ((3, 0), (5, 0), (2, 1)):
        tally.end(tally.begin(), failed=False)
        metrics.record(tally.snapshot([unit(executions, epoch)], [EdgeActivity("x", -1, 0, "shm", 8 * executions, 1)]))
    told = registry.told
    assert told["distort_stage_executions stage0 cpu:0"] == 3 + 2 + 2
    assert told["distort_stage_restarts stage0 cpu:0"] == 1
    assert told["distort_stage_queued stage0 cpu:0"] == 1
    assert told["distort_run_seconds"] == [1.0, 1.0, 1.0]
    assert told["distort_runs done"] == 3


def test_every_family_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/usage.md").read_text()
    assert [family.name for family in FAMILIES if f"`{family.name}`" not in page] == []


def test_the_text_of_a_session_without_runs() -> None:
    text = to_text(Tally().snapshot([], []), {"session": "01234567", "model": 'a "model"'})
    assert parsed(text)['distort_runs_total{outcome="done"}'] == 0


def test_ray_that_exports_nothing_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    node = {"NodeID": "n", "MetricsExportPort": -1, "NodeManagerAddress": "127.0.0.1"}
    context = SimpleNamespace(get_node_id=lambda: "n")
    ray = SimpleNamespace(get_runtime_context=lambda: context, nodes=lambda: [node])
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert "ray[default]" in publishing._ray_exports()
    assert "ray[default]" in caplog.text
    node["MetricsExportPort"] = 5000
    assert publishing._ray_exports() == "at http://127.0.0.1:5000/metrics, by Ray"
