"""The common bodies of operators run over CuPy's subset of NumPy, or ``fallback`` says why they do not."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

from distort.kernels.cuda.fallback import CONDITIONS, REASONS, on_host
from distort.kernels.cuda.waits import WAITS
from distort.kernels.errors import KernelError
from distort.kernels.program import Program
from distort.kernels.registry import find, registered

from ..operators.case import feeds_of, model_of
from .bodies import compare, graph_of, to_device

#: no two runs are alike, but where the model gives a seed
RANDOM = (
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
)
#: the nodes inside may wait
WITH_BODIES = ("FlexAttention", "If", "Loop", "Scan", "SequenceMap", "several nodes")
TESTS = Path(__file__).resolve().parents[1]
OTHERS = Path(__file__).with_name("test_contrib_bodies.py")


class Run(NamedTuple):
    name: str
    model: onnx.ModelProto
    feeds: Mapping[str, Any]


def _of_onnx() -> Iterator[Run]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in load_model_tests(kind="node"):
            for inputs, _ in found.data_sets:
                values = [_plain(value) for value in inputs]
                feeds = dict(zip((one.name for one in found.model.graph.input), values, strict=False))
                yield Run(found.name, found.model, feeds)


def _plain(value: Any) -> Any:
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "US":
        return value.astype(object)
    return list(value) if isinstance(value, tuple) else value


def _of_ours() -> Iterator[Run]:
    with np.errstate(all="ignore"):
        for path in sorted((TESTS / "operators" / "cases").glob("*.py")):
            for item in importlib.import_module(f"..operators.cases.{path.stem}", __package__).CASES:
                for version in item.versions:
                    yield Run(item.name(version), model_of(item, version), feeds_of(item))


def _in_bfloat16(run: Run) -> Run | None:
    """The same in bfloat16, which some of CuPy's functions have no loops for. None where that is no model."""
    model = onnx.ModelProto()
    model.CopyFrom(run.model)
    changed = False
    for info in (*model.graph.input, *model.graph.output):
        kind = info.type.tensor_type
        if info.type.HasField("tensor_type") and kind.elem_type == TensorProto.FLOAT:
            kind.elem_type = TensorProto.BFLOAT16
            changed = True
    if not changed or any(node.op_type in ("If", "Loop", "Scan", "SequenceMap") for node in model.graph.node):
        return None
    try:
        graph_of(model.SerializeToString())
    except Exception:  # noqa: BLE001  # whatever the loader says: the operator does not take this type
        return None
    feeds = {
        name: value.astype(ml_dtypes.bfloat16) if getattr(value, "dtype", None) == np.float32 else value
        for name, value in run.feeds.items()
    }
    return Run(f"{run.name}-bfloat16", model, feeds)


RUNS: dict[str, list[Run]] = {}
for _run in (*_of_onnx(), *_of_ours()):
    _nodes = _run.model.graph.node
    RUNS.setdefault(_nodes[0].op_type if len(_nodes) == 1 else "several nodes", []).append(_run)


@pytest.mark.filterwarnings("ignore")  # what onnx and NumPy warn of on the way
@pytest.mark.parametrize("op_type", sorted(RUNS))
def test_over_cupy_as_over_numpy(op_type: str, fake_cuda_for_all: Any) -> None:
    waiting: set[tuple[str, str]] = set()
    fell_back: set[str] = set()
    for run in RUNS[op_type]:
        is_random = op_type in RANDOM or "bernoulli" in run.name
        try:
            bodies = compare(fake_cuda_for_all, run.model.SerializeToString(), run.feeds, random=is_random)
        except Exception as error:
            error.add_note(run.name)
            raise
        waiting.update(key for key, cost in bodies.costs.items() if cost["synchronization"])
        fell_back.update(bodies.fell_back)
    if op_type not in WITH_BODIES:
        known = {key for key in WAITS if key[1] == op_type and key[0] != "com.microsoft"}
        assert waiting <= known if op_type in fell_back else waiting == known


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op_type", sorted(set(RUNS) - {"several nodes"}))
def test_in_bfloat16(op_type: str, fake_cuda_for_all: Any) -> None:
    for run in RUNS[op_type][:: max(1, len(RUNS[op_type]) // 6)]:
        half = _in_bfloat16(run)
        if half is None:
            continue
        content = half.model.SerializeToString()
        try:
            Program(graph_of(content)).run(half.feeds)
        except KernelError:
            continue  # refused over NumPy too
        try:
            compare(fake_cuda_for_all, content, half.feeds, random=op_type in RANDOM)
        except Exception as error:
            error.add_note(half.name)
            raise


def test_every_operator_is_run_here() -> None:
    """All that have a kernel; those of onnxruntime's domain by test_contrib_bodies.py."""
    texts = "".join(path.read_text() for path in [*(TESTS / "differential").glob("*.py"), OTHERS])
    nodes = {node.op_type for runs in RUNS.values() for run in runs for node in run.model.graph.node}
    ours = {(kernel.domain, kernel.op_type) for kernel in registered() if kernel.module.startswith("distort.")}
    missing = [name for name in sorted(ours) if name[1] not in nodes and f'"{name[1]}"' not in texts]
    assert missing == []


def test_the_table_names_what_has_no_body_for_cupy_and_nothing_else() -> None:
    versions: dict[tuple[str, str], int] = {}
    for kernel in registered():
        if kernel.module.startswith("distort."):
            versions[kernel.domain, kernel.op_type] = max(
                versions.get((kernel.domain, kernel.op_type), 0), kernel.since
            )
    of_the_cpu = {name for name, version in versions.items() if find(*name, version, "cuda") is None}
    assert set(REASONS) == of_the_cpu


@pytest.mark.parametrize("operator", sorted(CONDITIONS))
@pytest.mark.parametrize("reduction", ["add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.int8, np.bool_])
def test_conditions_are_as_cupy_has_it(
    operator: tuple[str, str], reduction: str, dtype: Any, fake_cuda_for_all: Any
) -> None:
    """A condition gives a reason where CuPy raises, and none where it does not."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node = helper.make_node(operator[1], ["x", "i", "u"], ["y"], reduction=reduction)
    infos = [("x", element, (4,)), ("i", TensorProto.INT64, (2, 1)[: 2 if operator[1] == "ScatterND" else 1])]
    feeds = [helper.make_tensor_value_info(*info) for info in (*infos, ("u", element, (2,)))]
    graph = helper.make_graph([node], "graph", feeds, [helper.make_tensor_value_info("y", element, (4,))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    values = {
        "x": np.arange(4).astype(dtype),
        "i": np.zeros(infos[1][2], np.int64),
        "u": np.arange(2).astype(dtype),
    }
    known = graph_of(model.SerializeToString())
    why = CONDITIONS[operator](known.nodes[0], np.dtype(dtype))
    program = Program(known, device="cuda", xp=fake_cuda_for_all)
    placed = {name: to_device(fake_cuda_for_all, value) for name, value in values.items()}
    if why:
        with pytest.raises(KernelError):
            program.run(placed)
    else:
        program.run(placed)


def test_types_that_stay_on_the_host(fake_cuda_for_all: Any) -> None:
    for dtype in (np.float32, np.bool_, np.complex64, np.int8, np.uint64, ml_dtypes.bfloat16):
        assert not on_host(np.dtype(dtype))
        fake_cuda_for_all.empty(1, dtype)
    for dtype in (object, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn, ml_dtypes.int4, np.dtype("U3")):
        assert on_host(np.dtype(dtype))
        with pytest.raises(ValueError):
            fake_cuda_for_all.empty(1, dtype)
