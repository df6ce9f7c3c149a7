"""What a node lacks, told so that its owner can help it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from distort.cluster import requirements
from distort.cluster.nodes import Node
from distort.cluster.requirements import Facts, lacks, report

NODE = Node("n", "10.0.0.7", 1, "worker", 4, 4, 0, 0, False)
OWN = Facts("3.11.7", {"numpy": "2.4.1", "onnx": "1.20.0", "ml_dtypes": "0.5.3", "threadpoolctl": "3.6.0"}, "d1")


def without(package: str) -> Facts:
    return dataclasses.replace(OWN, versions={k: v for k, v in OWN.versions.items() if k != package})


def test_a_node_like_this_one_lacks_nothing() -> None:
    assert lacks(NODE, OWN, OWN) == []
    assert lacks(NODE, dataclasses.replace(OWN, python="3.11.2"), OWN) == []


@pytest.mark.parametrize(
    ("has", "words"),
    [
        (without("onnx"), ["worker (10.0.0.7)", "lacks onnx", ">=1.19", "here: onnx 1.20.0", '{"pip": ["onnx']),
        (dataclasses.replace(OWN, versions={**OWN.versions, "numpy": "1.26.4"}), ["has numpy 1.26.4", ">=2.1"]),
        (dataclasses.replace(OWN, python="3.12.1"), ["has Python 3.12.1", "3.11.7"]),
        (dataclasses.replace(OWN, digest=""), ["no distort"]),
        (dataclasses.replace(OWN, digest="d2"), ["another distort"]),
    ],
)
def test_what_is_missing_is_named(has: Facts, words: list[str]) -> None:
    (text,) = lacks(NODE, has, OWN)
    for word in words:
        assert word in text


def test_every_lack_is_told_at_once() -> None:
    assert len(lacks(NODE, Facts("3.9.1", {}, ""), OWN)) == 1 + len(requirements.NEEDED)


def test_this_python_satisfies_itself() -> None:
    facts = report(requirements.PARTS, tuple(requirements.NEEDED))
    assert facts.digest and set(facts.versions) >= {*requirements.NEEDED, "ray"}
    assert lacks(NODE, facts, facts) == []


def test_the_digest_is_of_every_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("outer", "outer/inner"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    digests = {report(("outer", "outer.inner"), ()).digest}
    for path in ("outer/a.py", "outer/inner/a.py"):
        (tmp_path / path).write_text("x = 1")
        digests.add(report(("outer", "outer.inner"), ()).digest)
    assert len(digests) == 3 and "" not in digests
    assert report(("no_such_package",), ()).digest == ""
