"""Every name of onnxruntime's Python package is here too."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

LINES = [
    line.split()
    for line in Path(__file__).with_name("surface.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize("module", sorted({line[0] for line in LINES}))
def test_names(module: str) -> None:
    found = importlib.import_module("distort" if module == "." else f"distort.{module}")
    missing = []
    for _, name, *members in (line for line in LINES if line[0] == module):
        if not hasattr(found, name):
            missing.append(name)
            continue
        owner = getattr(found, name)
        annotated = {key for cls in getattr(owner, "__mro__", ()) for key in getattr(cls, "__annotations__", {})}
        missing += [f"{name}.{member}" for member in members if not hasattr(owner, member) and member not in annotated]
    assert missing == []


def test_dir_tells_them() -> None:
    import distort

    assert {line[1] for line in LINES if line[0] == "."} <= {*dir(distort), *distort.__all__}
