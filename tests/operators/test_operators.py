"""Every version of every operator: our cases against independent numpy code, and against onnxruntime where it can."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import defs
from onnx.backend.test.loader import load_model_tests

import distort
from distort.capi import onnxruntime_pybind11_state as runtime

from .case import VERSIONS, Case, assert_same, feeds_of, model_of

CASES: list[Case] = []
with np.errstate(all="ignore"):  # what is expected has NaN and infinities
    for _path in sorted(Path(__file__).with_name("cases").glob("*.py")):
        CASES.extend(importlib.import_module(f".cases.{_path.stem}", __package__).CASES)
RUNS = [pytest.param(item, version, id=item.name(version)) for item in CASES for version in item.versions]


@pytest.mark.parametrize(("item", "version"), RUNS)
def test_against_numpy(item: Case, version: int) -> None:
    results = distort.InferenceSession(model_of(item, version).SerializeToString()).run(None, feeds_of(item))
    wanted = [value for value in item.expected if value is not None]
    assert len(results) == len(wanted)
    for got, want in zip(results, wanted, strict=True):
        assert_same(got, want, item.rtol, item.atol)


@pytest.mark.parametrize(("item", "version"), RUNS)
def test_against_onnxruntime(item: Case, version: int) -> None:
    """The same expectations hold for onnxruntime, where it loads the model: they can't be wrong in our favour."""
    rival = pytest.importorskip("onnxruntime")
    if item.onnxruntime_differs:
        pytest.skip(item.onnxruntime_differs)
    if any(getattr(value, "dtype", np.dtype(bool)).isbuiltin == 2 for value in (*item.inputs, *item.expected)):
        pytest.skip("onnxruntime's bindings take no arrays of ml_dtypes")
    options = rival.SessionOptions()
    options.log_severity_level = 4
    try:
        session = rival.InferenceSession(
            model_of(item, version).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # noqa: BLE001  # its classes have no common base
        pytest.skip(f"onnxruntime does not load it: {str(error).splitlines()[0][:100]}")
    try:
        results = session.run(None, feeds_of(item))
    except RuntimeError as error:
        if "Unable to handle" in str(error) or "not supported" in str(error):
            pytest.skip(f"onnxruntime does not take it: {str(error).splitlines()[0][:100]}")
        raise
    for got, want in zip(results, [value for value in item.expected if value is not None], strict=True):
        assert_same(got, want, max(item.rtol, 1e-4), max(item.atol, 1e-5))


def _operators(nodes: Any, opsets: dict[str, int]) -> Iterator[tuple[str, str, int]]:
    for node in nodes:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (domain, node.op_type) in VERSIONS and domain in opsets:
            yield domain, node.op_type, defs.get_schema(node.op_type, opsets[domain], domain).since_version
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _operators(body.node, opsets)


def _opsets(imports: Any) -> dict[str, int]:
    return {"" if item.domain == "ai.onnx" else item.domain: item.version for item in imports}


def in_suite() -> set[tuple[str, str, int]]:
    """The operator versions in onnx's backend suite."""
    found: set[tuple[str, str, int]] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in ("node", "simple", "pytorch-converted", "pytorch-operator", "light"):
            for item in load_model_tests(kind=kind):
                model = item.model or onnx.load(f"{item.model_dir}/model.onnx", load_external_data=False)
                found.update(_operators(model.graph.node, _opsets(model.opset_import)))
                for function in model.functions:
                    found.update(_operators(function.node, _opsets(function.opset_import)))
    return found


def deprecated() -> list[tuple[str, str, int]]:
    """Versions that only say that another operator is to be used: models with them are invalid, for onnxruntime too."""
    return [
        (domain, name, version)
        for (domain, name), versions in VERSIONS.items()
        for version in versions
        if defs.get_schema(name, version, domain).deprecated
    ]


@pytest.mark.parametrize(("domain", "name", "version"), deprecated())
def test_deprecated_versions_are_refused(domain: str, name: str, version: int) -> None:
    x = np.zeros((1, 2, 2, 2), np.float32)
    item = Case(name, (version,), [x] * 3, [x], domain=domain)
    with pytest.raises(runtime.InvalidGraph, match=f"{name} is deprecated"):
        distort.InferenceSession(model_of(item, version).SerializeToString())


def test_every_version_of_every_operator_has_a_case() -> None:
    covered = (
        in_suite()
        | set(deprecated())
        | {(item.domain, item.op_type, version) for item in CASES for version in item.versions}
    )
    every = {(domain, name, version) for (domain, name), versions in VERSIONS.items() for version in versions}
    missing = sorted(every - covered)
    assert not missing, f"{len(missing)} of {len(every)} versions have no case: {missing}"
