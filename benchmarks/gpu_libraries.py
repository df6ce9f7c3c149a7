"""What cuBLASLt and cuDNN make on this GPU against NumPy: products, convolutions and attention with what joins them.

    python benchmarks/gpu_libraries.py [--only TEXT] [--runs N]

Each case is run step by step, and again as one launch of a captured graph with other feeds. It tells which operations
there were, the largest error against NumPy's result as a share of the largest number, and why a library refused what.
Exits with 1 where a result is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

#: the largest error, as a share of the largest number
TOLERANCES = {"float32": 2e-5, "tf32": 5e-3, "float16": 1e-2, "int32": 0.0}
_MICROSOFT = "com.microsoft"


@dataclass
class Case:
    nodes: list[NodeProto]
    feeds: dict[str, tuple[int, ...]]
    weights: dict[str, tuple[int, ...]]


@dataclass
class Outcome:
    operations: list[str]
    errors: list[float]  # of each run
    milliseconds: float
    reasons: list[str]


def _node(op: str, inputs: str, output: str = "y", domain: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], domain=domain, **attributes)


def cases() -> dict[str, Case]:
    """By name: models of few nodes, with the shapes of their feeds and weights."""
    made: dict[str, Case] = {}
    for rows in (1, 7, 64):
        gelu = [_node("MatMul", "x w", "m"), _node("Add", "m b", "a"), _node("Gelu", "a", approximate="tanh")]
        made[f"product, bias, gelu: {rows} rows"] = Case(gelu, {"x": (rows, 48)}, {"w": (48, 40), "b": (40,)})
    residual = [_node("MatMul", "x w", "m"), _node("Add", "m b", "a"), _node("Add", "a r", "s"), _node("Relu", "s")]
    feeds = {"x": (3, 5, 48), "r": (3, 5, 33)}
    made["product, bias, residual, relu"] = Case(residual, feeds, {"w": (48, 33), "b": (33,)})
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        shapes = {"x": (40, 24) if a else (24, 40), "w": (32, 40) if b else (40, 32), "b": (24, 32)}
        made[f"gemm, transposed {a}{b}"] = Case([_node("Gemm", "x w b", transA=a, transB=b, alpha=0.5)], shapes, {})
    made["products of a batch"] = Case([_node("MatMul", "x w")], {"x": (6, 9, 16), "w": (6, 16, 8)}, {})
    made["one matrix for a batch"] = Case([_node("MatMul", "x w")], {"x": (1, 9, 16), "w": (6, 16, 8)}, {})
    made["products in two loops"] = Case([_node("MatMul", "x w")], {"x": (4, 1, 9, 16), "w": (1, 3, 16, 8)}, {})
    made["one column"] = Case([_node("MatMul", "x w")], {"x": (33, 64)}, {"w": (64, 1)})
    for name, shapes, attributes in (
        ("plain", ((2, 16, 14, 14), (32, 16, 3, 3)), {"pads": [1, 1, 1, 1]}),
        ("uneven pads and steps", ((2, 3, 15, 14), (8, 3, 5, 3)), {"pads": [2, 0, 1, 1], "strides": [2, 1]}),
        ("groups", ((1, 16, 9, 9), (32, 4, 3, 3)), {"group": 4}),
        ("depthwise", ((1, 16, 9, 9), (16, 1, 3, 3)), {"group": 16, "dilations": [2, 2]}),
        ("one axis", ((2, 8, 50), (16, 8, 5)), {"pads": [2, 2]}),
        ("three axes", ((1, 4, 6, 7, 8), (8, 4, 3, 3, 3)), {}),
    ):
        x, w = shapes
        made[f"convolution, {name}"] = Case([_node("Conv", "x w", **attributes)], {"x": x}, {"w": w})
        nodes = [_node("Conv", "x w b", "c", **attributes), _node("Relu", "c")]
        made[f"convolution, {name}, bias, relu"] = Case(nodes, {"x": x}, {"w": w, "b": (w[0],)})
    block = [_node("Conv", "x w b", "c", pads=[1, 1, 1, 1]), _node("Add", "c x", "s"), _node("Relu", "s")]
    made["residual block"] = Case(block, {"x": (2, 16, 10, 10)}, {"w": (16, 16, 3, 3), "b": (16,)})
    swish = [_node("Conv", "x w b", "c"), _node("Sigmoid", "c", "g"), _node("Mul", "c g")]
    made["convolution, swish"] = Case(swish, {"x": (1, 16, 10, 10)}, {"w": (16, 16, 3, 3), "b": (16,)})
    last = [_node("Transpose", "x", "t", perm=[0, 3, 1, 2]), _node("Conv", "t w", "c")]
    last.append(_node("Transpose", "c", perm=[0, 2, 3, 1]))
    made["convolution, channels last"] = Case(last, {"x": (2, 10, 10, 16)}, {"w": (32, 16, 3, 3)})
    turned = _node("ConvTranspose", "x w b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])
    made["transposed convolution"] = Case([turned], {"x": (2, 16, 7, 7)}, {"w": (16, 8, 3, 3), "b": (8,)})
    for groups in (4, 2):
        feeds = {"q": (2, 4, 9, 32), "k": (2, groups, 9, 32), "v": (2, groups, 9, 32)}
        for causal in (0, 1):
            name = f"attention, {groups} heads of keys{', causal' if causal else ''}"
            made[name] = Case([_node("Attention", "q k v", is_causal=causal)], feeds, {})
    feeds = {name: (2, 4, 9, 32) for name in "qkv"}
    made["attention, a mask"] = Case([_node("Attention", "q k v m")], feeds | {"m": (2, 1, 9, 9)}, {})
    flat = _node("MultiHeadAttention", "q k v b", domain=_MICROSOFT, num_heads=4)
    made["attention, by positions"] = Case([flat], {name: (2, 9, 64) for name in "qkv"} | {"b": (192,)}, {})
    return made


def model_of(case: Case, dtype: Any, rng: np.random.Generator) -> bytes:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        case.nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in case.feeds.items()],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
        [numpy_helper.from_array(array, name) for name, array in _arrays(case.weights, dtype, rng).items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets).SerializeToString()


def _arrays(shapes: dict[str, tuple[int, ...]], dtype: Any, rng: np.random.Generator) -> dict[str, Any]:
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def run(case: Case, dtype: str, n_runs: int) -> Outcome:
    """``dtype``: float32, tf32 (the same with operands rounded) or float16."""
    from distort.engine import load_model
    from distort.kernels.cuda.options import CudaOptions
    from distort.kernels.cuda.program import CudaProgram
    from distort.kernels.program import Program

    rng = np.random.default_rng(7)
    stored = "float32" if dtype == "tf32" else dtype
    graph = load_model(model_of(case, stored, rng)).graph
    program = CudaProgram(graph, CudaOptions(use_tf32=dtype == "tf32", enable_cuda_graph=True))
    plain = Program(graph)
    errors = []
    for _ in range(4):  # step by step, then captured, then replayed
        feeds = _arrays(case.feeds, stored, rng)
        (got,), (wanted,) = program.run(feeds), plain.run(feeds)
        got = np.asarray(got.get() if hasattr(got, "get") else got)
        scale = max(1e-6, float(np.abs(wanted.astype(np.float64)).max()))
        wrong = float(np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max()) / scale
        errors.append(wrong if np.isfinite(wrong) else float("inf"))
    begin = time.perf_counter()
    for _ in range(n_runs):
        program.run(feeds)
    milliseconds = (time.perf_counter() - begin) / max(1, n_runs) * 1e3
    operations = [step.operation.kind for _, plan in program.plans for step in plan.steps]
    libraries = program.context.libraries
    reasons = [f"{name} is missing: {why}" for name, why in libraries.missing.items()]
    for library in (libraries.products, libraries.networks):
        reasons += [] if library is None else list(library.reasons.values())
    return Outcome(operations, errors, milliseconds, reasons)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose names have this text")
    parser.add_argument("--runs", type=int, default=20, help="how many are timed")
    given = parser.parse_args(arguments)
    n_wrong = 0
    for name, case in cases().items():
        if given.only not in name:
            continue
        for dtype in ("float32", "tf32", "float16"):
            outcome = run(case, dtype, given.runs)
            right = max(outcome.errors) <= TOLERANCES[dtype]
            n_wrong += not right
            told = f"{'ok' if right else 'WRONG':5} {dtype:7} {name}: error {max(outcome.errors):.1e}"
            print(f"{told}, {outcome.milliseconds:.3f} ms, {', '.join(outcome.operations)}")
            for reason in outcome.reasons:
                print(f"      {reason}")
    print(f"{n_wrong} wrong" if n_wrong else "all right")
    return 1 if n_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
