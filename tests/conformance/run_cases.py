"""Runs cases of onnx's backend test suite through the kernels, without a session.

    python tests/conformance/run_cases.py [-k REGEX] [-v]

Prints the failing cases and a count. Slower machines: choose cases with -k.
"""

from __future__ import annotations

import argparse
import re
import sys
import traceback
import warnings

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.graph.functions import expand
from distort.graph.reader import read_model
from distort.kernels.program import Program
from distort.kernels.registry import find


def value_of(proto: object) -> object:
    if isinstance(proto, onnx.TensorProto):
        return onnx.numpy_helper.to_array(proto)
    if isinstance(proto, onnx.SequenceProto):
        return onnx.numpy_helper.to_list(proto)
    if isinstance(proto, onnx.OptionalProto):
        return onnx.numpy_helper.to_optional(proto)
    return proto


def same(got: object, want: object, rtol: float, atol: float) -> None:
    if isinstance(want, list):
        assert isinstance(got, list) and len(got) == len(want), f"sequence of {len(want)} expected"
        for one, other in zip(got, want, strict=True):
            same(one, other, rtol, atol)
        return
    if want is None:
        assert got is None
        return
    assert isinstance(got, np.ndarray), f"{type(got)} is no array"
    want = np.asarray(want)
    assert got.dtype == want.dtype, f"dtype {got.dtype}, expected {want.dtype}"
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    if want.dtype == object or want.dtype.kind in "bU":
        assert (got == want).all(), f"{got} != {want}"
        return
    if want.dtype.name == "bfloat16":
        rtol = max(rtol, 2**-6)
    if want.dtype.kind not in "fciu" or want.dtype.itemsize == 1:
        got, want = got.astype(np.float64), want.astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol)


def cases() -> list[object]:
    found = []
    for kind in ("node", "simple", "pytorch-converted", "pytorch-operator", "light"):
        found.extend(load_model_tests(kind=kind))
    return found


def run(case: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto = case.model or onnx.load(f"{case.model_dir}/model.onnx")
        sets = case.data_sets
    model = read_model(proto, None if case.model else f"{case.model_dir}/model.onnx")
    expand(model, lambda domain, op_type, opset: find(domain, op_type, opset) is not None)
    program = Program(model.graph)
    if sets is None:
        import glob

        sets = []
        for folder in sorted(glob.glob(f"{case.model_dir}/test_data_set_*")):
            pair = []
            for kind, infos in (("input", proto.graph.input), ("output", proto.graph.output)):
                values = []
                for i, info in enumerate(infos[: len(glob.glob(f"{folder}/{kind}_*.pb"))]):
                    which = info.type.WhichOneof("value")
                    message = {
                        "tensor_type": onnx.TensorProto,
                        "sequence_type": onnx.SequenceProto,
                        "optional_type": onnx.OptionalProto,
                    }[which]()
                    with open(f"{folder}/{kind}_{i}.pb", "rb") as file:
                        message.ParseFromString(file.read())
                    values.append(value_of(message))
                pair.append(values)
            sets.append(tuple(pair))
    for pair in sets:
        inputs, outputs = ([value_of(value) for value in values] for values in pair)
        names = (
            [n for n in model.graph.inputs if n not in model.graph.defaults]
            if len(inputs) < len(model.graph.inputs)
            else model.graph.inputs
        )
        feeds = {name: value for name, value in zip(names, inputs, strict=False)}
        results = program.run(feeds)
        for got, want in zip(results, outputs, strict=False):
            same(got, want, case.rtol, case.atol)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", default="", help="regular expression on the case's name")
    parser.add_argument("-v", action="store_true", help="print tracebacks")
    arguments = parser.parse_args()
    np.seterr(all="ignore")
    chosen = [case for case in cases() if re.search(arguments.k, case.name)]
    failed = 0
    for case in chosen:
        try:
            run(case)
        except Exception as error:  # noqa: BLE001  # a report of whatever goes wrong is the purpose
            failed += 1
            print(f"FAIL {case.name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            if arguments.v:
                traceback.print_exc()
    print(f"{len(chosen) - failed} of {len(chosen)} passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
