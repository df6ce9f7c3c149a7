"""Wrong models, made of right ones: what a session raises for them is one of its error classes, and it ends.

    python tests/faults/fuzz.py [--seconds 60] [--seed 0] [--only N]

Each round takes a case of onnx's backend suite, damages it (its bytes, its graph, its attributes, its feeds) and runs
it. Prints what is wrong with the rounds' numbers, by which ``--only`` repeats one; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

import distort
from distort.capi import onnxruntime_pybind11_state as state

#: what a session may raise
ALLOWED: tuple[type[Exception], ...] = tuple(
    getattr(state, name)
    for name in (
        *("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "ModelLoaded"),
        *("NoModel", "NoSuchFile", "NotImplemented", "RuntimeException"),
    )
)
#: texts of Python's about its own objects: they name nothing that a user knows
INTERNAL = re.compile(r"'\w+' object|KeyError|AttributeError|NoneType|positional argument|unsupported operand")
#: rounds that take longer hang
ROUND_S = 20
_MEMORY_NBYTES = 6 << 30
_INTERESTING = (0, 1, -1, 2, 3, 7, -2, 127, 128, 255, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63))


class Hang(BaseException):
    """A round that did not end; no handler of exceptions may swallow it."""


def corpus() -> list[tuple[str, bytes, list[Any]]]:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in load_model_tests(kind="node"):
            if case.model is not None and case.model.ByteSize() < 20000:
                found.append((case.name, case.model.SerializeToString(), list(case.data_sets[0][0])))
    return found


def _damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        position = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[position] = rng.randrange(256)
        elif kind == 1:
            data[position] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[position : position + rng.randint(1, 8)]
        else:
            data[position:position] = rng.randbytes(rng.randint(1, 4))
        if not data:
            return b""
    return bytes(data)


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            nodes.extend(_all_nodes(attribute.g))
    return nodes


def _damage_attribute(rng: random.Random, attribute: onnx.AttributeProto) -> None:
    kind = attribute.type
    if kind == AttributeProto.INT:
        attribute.i = rng.choice(_INTERESTING)
    elif kind == AttributeProto.FLOAT:
        attribute.f = rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e30, 1e-30))
    elif kind == AttributeProto.INTS and attribute.ints and rng.random() < 0.7:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(_INTERESTING)
    elif kind == AttributeProto.INTS:
        attribute.ints.extend([rng.choice(_INTERESTING)])
    elif kind == AttributeProto.STRING:
        attribute.s = rng.choice((b"", b"SAME_UPPER", b"\xff\xfe", b"linear", b"x"))
    elif kind == AttributeProto.TENSOR:
        _damage_tensor(rng, attribute.t)
    else:
        attribute.type = rng.choice((1, 2, 3, 6, 7))


def _damage_tensor(rng: random.Random, tensor: onnx.TensorProto) -> None:
    kind = rng.randrange(3)
    if kind == 0:
        tensor.data_type = rng.randrange(27)
    elif kind == 1 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_INTERESTING)
    elif tensor.raw_data:
        tensor.raw_data = _damaged_bytes(rng, tensor.raw_data)
    else:
        tensor.dims.append(rng.choice(_INTERESTING))


def _damage_graph(rng: random.Random, model: onnx.ModelProto, op_types: list[str]) -> None:
    nodes = _all_nodes(model.graph)
    if not nodes:
        return
    node = rng.choice(nodes)
    kind = rng.randrange(12)
    names = [name for item in nodes for name in (*item.input, *item.output)] or [""]
    if kind == 0:
        node.op_type = rng.choice(op_types)
    elif kind == 1 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, ""])
    elif kind == 2 and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice([*names, ""])
    elif kind == 3:
        node.input.append(rng.choice(names))
    elif kind == 4 and node.input:
        del node.input[rng.randrange(len(node.input))]
    elif kind in (5, 6) and node.attribute:
        _damage_attribute(rng, rng.choice(node.attribute))
    elif kind == 7 and node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]
    elif kind == 8 and model.opset_import:
        rng.choice(model.opset_import).version = rng.choice((1, 6, 9, 11, 13, 18, 22, 25, 28, 29, 1000, 0, -1))
    elif kind == 9 and model.graph.input:
        info = rng.choice(model.graph.input).type.tensor_type
        if rng.random() < 0.5:
            info.elem_type = rng.randrange(27)
        elif info.shape.dim:
            info.shape.dim[rng.randrange(len(info.shape.dim))].dim_value = rng.choice((0, 1, 2, 5))
    elif kind == 10 and model.graph.initializer:
        _damage_tensor(rng, rng.choice(model.graph.initializer))
    else:
        model.ir_version = rng.choice((3, 7, 8, 10, 13))


def _forget_shapes(model: onnx.ModelProto) -> None:
    """Feeds of any shape go in then, and it is the kernels that have to look at them."""
    for info in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


class Obscure(Exception):
    """An error of the right class whose text is Python's."""


def _look_at(error: Exception) -> None:
    if INTERNAL.search(str(error)):
        raise Obscure(str(error)) from error


def _fed(rng: random.Random, given: Any) -> Any:
    value = numpy_helper.to_array(given) if isinstance(given, TensorProto) else given
    value = np.asarray(value) if isinstance(value, np.generic) else value
    if not isinstance(value, np.ndarray) or rng.random() < 0.5:
        return value
    kind = rng.randrange(5)
    if kind == 0:
        return value.reshape(-1)
    if kind == 1:
        return value[..., None]
    if kind == 2 and value.ndim:
        return value[: rng.randrange(value.shape[0] + 1)]
    if kind == 3 and value.dtype.kind in "iu" and value.size:
        return np.full_like(
            value, rng.choice((0, 1, 2, 5, 100)) if value.dtype.kind == "u" else rng.choice((-1, -5, 100))
        )
    if value.dtype.kind == "f":
        return np.full_like(value, rng.choice((np.nan, np.inf, -np.inf, 0, 1e30)))
    return value


def round_of(
    number: int, cases: list[tuple[str, bytes, list[Any]]], op_types: list[str]
) -> tuple[str, Callable[[], None]]:
    """The case's name, and the round."""
    rng = random.Random(number)
    name, content, inputs = rng.choice(cases)
    if rng.random() < 0.15:
        content = _damaged_bytes(rng, content)
    else:
        model = onnx.ModelProto.FromString(content)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            _damage_graph(rng, model, op_types)
        if rng.random() < 0.5:
            _forget_shapes(model)
        content = model.SerializeToString()

    def run() -> None:
        try:
            session = distort.InferenceSession(content)
        except ALLOWED as error:
            _look_at(error)
            return
        arguments = session.get_inputs()
        feeds = {a.name: _fed(rng, inputs[i]) for i, a in enumerate(arguments) if i < len(inputs)}
        try:
            session.run(None, feeds)
        except ALLOWED as error:
            _look_at(error)

    return name, run


def _alarm(number: int, frame: FrameType | None) -> None:
    raise Hang("".join(traceback.format_stack(frame)[-6:]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--only", type=int, help="one round, with its traceback")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_NBYTES, _MEMORY_NBYTES))
    signal.signal(signal.SIGALRM, _alarm)
    warnings.simplefilter("ignore")
    cases = corpus()
    op_types = sorted(
        {node.op_type for _, content, _ in cases for node in onnx.ModelProto.FromString(content).graph.node}
    )
    numbers = (
        [arguments.only] if arguments.only is not None else range(arguments.first, arguments.first + arguments.rounds)
    )
    wrong = 0
    for number in numbers:
        name, run = round_of(number, cases, op_types)
        signal.alarm(ROUND_S)
        try:
            run()
        except (Exception, Hang) as error:  # noqa: BLE001  # whatever it is, it is what is looked for
            wrong += 1
            last = traceback.extract_tb(error.__traceback__)[-1]
            print(
                f"{number} {name}: {type(error).__name__}: {str(error)[:200]} ({last.filename}:{last.lineno})",
                flush=True,
            )
            if arguments.only is not None:
                traceback.print_exc()
        finally:
            signal.alarm(0)
    print(f"{len(numbers)} rounds, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
