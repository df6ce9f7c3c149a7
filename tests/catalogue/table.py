"""The form of the table: one row is one call, what onnxruntime does with it, and what distort does where it differs.

A probe is a function of ``ort``, the module that plays onnxruntime, and ``env``, which has models and sessions. What it
returns is compared after :func:`plain` has turned it into lists and strings; what it raises is compared with
:class:`Fails`. In every expected text ``…`` stands for anything, such as the place in onnxruntime's source.
"""

from __future__ import annotations

import enum
import importlib
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import helper

#: statuses by class, as the text of an error tells them
STATUS = {
    "Fail": "1 : FAIL",
    "InvalidArgument": "2 : INVALID_ARGUMENT",
    "NoSuchFile": "3 : NO_SUCHFILE",
    "InvalidProtobuf": "7 : INVALID_PROTOBUF",
    "NotImplemented": "9 : NOT_IMPLEMENTED",
    "InvalidGraph": "10 : INVALID_GRAPH",
    "ModelLoadCanceled": "12 : MODEL_LOAD_CANCELED",
}
ADVICE = "\n Please fix either the inputs/outputs or the model."


@dataclass(frozen=True, slots=True)
class Fails:
    """An error by its class's name and its text; the text of a status comes without its prefix."""

    kind: str
    text: str
    #: the class of the error's cause, where it has one
    cause: str = ""

    @property
    def message(self) -> str:
        return f"[ONNXRuntimeError] : {STATUS[self.kind]} : {self.text}" if self.kind in STATUS else self.text


@dataclass(frozen=True, slots=True)
class Row:
    section: str
    #: the call in the words of the catalogue of onnxruntime's behaviours
    call: str
    probe: Callable[[Any, Env], object]
    #: a value or a Fails: onnxruntime's
    expected: object
    #: the same of distort, which means to differ, and why
    ours: object
    why: str
    #: what the call prints
    stdout: str
    stderr: str
    #: each of them is the start of a warning: "UserWarning: Specified provider"
    warns: tuple[str, ...]
    #: why distort's log says other things than onnxruntime's
    quiet: str
    #: whether the row is worth a run with actors
    parallel: bool
    #: a value or a Fails, of distort on actors where it means to differ there, and why
    on_actors: tuple[object, str] | None
    #: whether it is about nodes one by one, which compiled runs fuse: then NumPy kernels run it
    plain: bool

    def __post_init__(self) -> None:
        if (self.ours is SAME) != (not self.why):
            raise ValueError(f"{self.call}: a row has ours= and why=, or neither")

    def wanted(self, ort_name: str, parallel: bool = False) -> object:
        if parallel and self.on_actors is not None:
            return self.on_actors[0]
        return self.expected if ort_name == "onnxruntime" or self.ours is SAME else self.ours


SAME = object()
#: onnxruntime reads memory there that isn't its own: the row is not run with it
UNSTABLE = object()
#: all rows, in the order in which their modules are imported
ROWS: list[Row] = []
#: calls that have no row, and why
LEFT_OUT: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the catalogue; ``parallel`` holds for those of its rows that don't say otherwise."""

    name: str
    parallel: bool = False

    def row(self, call: str, probe: Callable[[Any, Env], object], expected: object, **details: Any) -> None:
        defaults = {
            "ours": SAME,
            "why": "",
            "stdout": "",
            "stderr": "",
            "warns": (),
            "quiet": "",
            "parallel": self.parallel,
            "on_actors": None,
            "plain": False,
        }
        ROWS.append(Row(self.name, call, probe, expected, **(defaults | details)))

    def probe(self, call: str, expected: object, **details: Any) -> Callable[[Callable[[Any, Env], object]], None]:
        """The same as :meth:`row`, for a probe of several statements."""
        return lambda probe: self.row(call, probe, expected, **details)


@dataclass
class Env:
    """What probes work with: a temporary folder, models, and sessions of the mode that is tested."""

    ort: Any
    tmp: Path
    parallel: bool = False
    _sessions: list[weakref.ref[Any]] = field(default_factory=list)

    @cached_property
    def x(self) -> np.ndarray[Any, Any]:
        return np.arange(1, 7, dtype=np.float32).reshape(3, 2)

    @cached_property
    def mul(self) -> bytes:
        """Y [3,2] = X * [[1,2],[3,4],[5,6]], from a node named mul_1."""
        return self.model(
            "mul (float[3,2] X) => (float[3,2] Y) <float[3,2] W = {1,2,3,4,5,6}> { [mul_1] Y = Mul(X, W) }"
        )

    @cached_property
    def relu(self) -> bytes:
        """y [N,2] = relu(x)."""
        return self.model("g (float[N,2] x) => (float[N,2] y) { y = Relu(x) }")

    @cached_property
    def c(self) -> Any:
        """The native module's name: exceptions, enums, values."""
        return self.module("capi.onnxruntime_pybind11_state")

    def module(self, name: str) -> Any:
        """A submodule, which importing onnxruntime alone doesn't give."""
        return importlib.import_module(f"{self.ort.__name__}.{name}")

    def example(self, name: str) -> str:
        return str(self.module("datasets").get_example(name))

    def proto(self, graph: str, opset: int = 17, ir_version: int = 8, **domains: int) -> onnx.ModelProto:
        """A graph, and what functions follow it, in ONNX's text form; a domain's dots are underscores."""
        opsets = {"": opset} | {name.replace("_", "."): version for name, version in domains.items()}
        imports = ", ".join(f'"{name}" : {version}' for name, version in opsets.items())
        return onnx.parser.parse_model(f"<ir_version: {ir_version}, opset_import: [{imports}]>\n{graph}")

    def model(self, graph: str, opset: int = 17, ir_version: int = 8, **domains: int) -> bytes:
        return self.proto(graph, opset, ir_version, **domains).SerializeToString()

    def identity(self, type_: onnx.TypeProto | int, opset: int = 21, ir_version: int = 10) -> bytes:
        """y = Identity(x) on a type, or on vectors of an element type."""
        if isinstance(type_, int):
            type_ = helper.make_tensor_type_proto(type_, ["N"])
        infos = [helper.make_value_info(name, type_) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", infos[:1], infos[1:])
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version).SerializeToString()

    def save(self, content: bytes, name: str = "model.onnx") -> str:
        (self.tmp / name).write_bytes(content)
        return str(self.tmp / name)

    def session_options(self, **attributes: Any) -> Any:
        options = self.ort.SessionOptions()
        if self.parallel:
            options.execution_mode = self.ort.ExecutionMode.ORT_PARALLEL
            options.add_session_config_entry("distort.start", "wait")
            # one actor is always one, where two of a model of a single node are none; two stages where it can be cut
            options.inter_op_num_threads = 1
            options.intra_op_num_threads = 1
            options.add_session_config_entry("distort.stages", "2")
        for name, value in attributes.items():
            setattr(options, name, value)
        return options

    def session(self, model: object, options: Any = None, **arguments: Any) -> Any:
        session = self.ort.InferenceSession(model, options or self.session_options(), **arguments)
        self._sessions.append(weakref.ref(session))
        return session

    def run(self, model: object, feeds: dict[str, Any], names: Any = None) -> list[Any]:
        return self.session(model).run(names, feeds)

    def value(self, array: np.ndarray[Any, Any]) -> Any:
        return self.ort.OrtValue.ortvalue_from_numpy(array)

    def python(self, code: str) -> str:
        """How a fresh interpreter ends, with what it prints, after code with ``ort`` and with mul and x as here."""
        start = (
            f"import sys, numpy as np, {self.ort.__name__} as ort\n"
            f"mul, x = {self.mul!r}, np.arange(1, 7, dtype=np.float32).reshape(3, 2)\n"
        )
        home = str(Path(self.ort.__file__).parents[1])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([home, os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-c", start + code]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=60, env=environment, cwd=self.tmp
        )
        last = done.stderr.strip().splitlines()[-1:] if done.returncode > 0 else []
        return " ".join([f"exit {done.returncode}", *done.stdout.split(), *last])

    def close(self) -> None:
        """Ends the sessions that are left."""
        for session in (reference() for reference in self._sessions):
            if hasattr(session, "close"):
                session.close()


def text_of(value: object, env: Env) -> str:
    """A text without what differs from one machine or package to another."""
    name = re.escape(env.ort.__name__)
    text = str(value).replace(str(env.tmp), "<tmp>")
    text = re.sub(rf"\b{name}\.capi\.onnxruntime_pybind11_state\.", "C.", text)
    text = re.sub(rf"\b{name}\.capi\.onnxruntime_inference_collection\.", "ort.", text)
    return re.sub(r" object at 0x[0-9a-f]+", " object", text)


def plain(value: object, env: Env) -> object:
    """A result as lists, tuples, dicts and strings that compare by value."""
    if isinstance(value, np.ndarray):
        return ("ndarray", value.dtype.name, value.shape, value.tolist())
    if isinstance(value, np.generic):
        return ("scalar", value.dtype.name, value.item())
    if isinstance(value, str):
        return text_of(value, env)
    if isinstance(value, type):
        return f"<class {value.__name__}>"
    if isinstance(value, enum.Enum) or hasattr(value, "__members__"):
        return text_of(repr(value), env)
    if isinstance(value, list | tuple):
        return type(value)(plain(item, env) for item in value)
    if isinstance(value, dict):
        return {plain(key, env): plain(item, env) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | bytes):
        return value
    return f"<{type(value).__name__}>"


def agrees(got: object, want: object) -> bool:
    """Whether plain values are the same: ``…`` in a text is anything, and floats may differ in the last digits."""
    if isinstance(got, str) and isinstance(want, str):
        pattern = ".*".join(re.escape(part) for part in want.strip().split("…"))
        return re.fullmatch(pattern, got.strip(), re.DOTALL) is not None
    if type(got) is not type(want):
        return False
    if isinstance(got, float) and isinstance(want, float):
        return got == want or (got != got and want != want) or abs(got - want) <= 1e-5 * abs(want)
    if isinstance(got, list | tuple) and isinstance(want, list | tuple):
        return len(got) == len(want) and all(agrees(*pair) for pair in zip(got, want, strict=True))
    if isinstance(got, dict) and isinstance(want, dict):
        return list(got) == list(want) and all(agrees(got[key], want[key]) for key in got)
    return got == want


def outcome(row: Row, env: Env) -> object:
    """What a row's probe comes to: a plain value or a Fails."""
    try:
        return plain(row.probe(env.ort, env), env)
    except Exception as error:  # noqa: BLE001  # the error is the result
        kind = type(error).__name__
        text = text_of(error, env)
        if kind in STATUS and type(error) is getattr(env.c, kind, None):
            prefix = f"[ONNXRuntimeError] : {STATUS[kind]} : "
            text = text.removeprefix(prefix) if text.startswith(prefix) else f"without its prefix: {text}"
        cause = type(error.__cause__).__name__ if error.__cause__ is not None else ""
        return Fails(kind, text, cause)


def assert_outcome(got: object, want: object, env: Env) -> None:
    if isinstance(want, Fails) and isinstance(got, Fails):
        assert got.kind == want.kind and agrees(got.text, want.text), f"\n got {got}\nwant {want}"
        assert not want.cause or got.cause == want.cause, f"\n got {got}\nwant {want}"
        return
    wanted = want if isinstance(want, Fails) else plain(want, env)
    assert agrees(got, wanted), f"\n got {got!r}\nwant {wanted!r}"


def f32(values: object) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


def i64(values: object) -> np.ndarray[Any, Any]:
    return np.array(values, np.int64)


def strings(*values: str) -> np.ndarray[Any, Any]:
    return np.array(values, object)


#: mul's answer to x
SQUARES = f32([[1, 4], [9, 16], [25, 36]])
