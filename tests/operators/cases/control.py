"""If, Loop, Scan and optionals, at every version."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, parser

from ..case import Case, case, since

Array = np.ndarray[Any, Any]

_X = np.arange(6, dtype=np.float32).reshape(2, 3)
_TRUE, _FALSE = np.array(True), np.array(False)


def _graph(text: str) -> onnx.GraphProto:
    return parser.parse_graph(text)


def _add_one(version: int) -> str:
    """Of a number called ``one``, as the first versions of Add want it."""
    return "Add <broadcast = 1> " if version < 7 else "Add "


def _branches() -> list[Case]:
    found = []
    for version in since("If", 1):
        then = _graph("t () => (float a) { a = Constant <value = float {1.5}> () }")
        other = _graph("e () => (float[2] b) { b = Constant <value = float[2] {2, 3}> () }")
        if version < 11:  # both branches have the same shape
            other = _graph("e () => (float b) { b = Constant <value = float {2.5}> () }")
        second = np.array(2.5, np.float32) if version < 11 else np.array([2, 3], np.float32)
        for condition, want in ((_TRUE, np.array(1.5, np.float32)), (_FALSE, second)):
            attributes = {"then_branch": then, "else_branch": other}
            label = str(bool(condition))
            found.append(case("If", version, inputs=[condition], expected=[want], attributes=attributes, label=label))
    return found


def _loops() -> list[Case]:
    """A count of trips, a condition, both, neither being absent; a state and what each trip leaves."""
    found = []
    for version in since("Loop", 1):
        body = _graph(
            "b (int64 i, bool c, float s) => (bool go, float next, float out) {"
            "one = Constant <value = float {1.0}> ()"
            f"next = {_add_one(version)} (s, one)"
            "limit = Constant <value = float {3.0}> ()"
            f"go = {'Less <broadcast = 1>' if version < 7 else 'Less'} (next, limit)"
            "out = Identity (s) }"
        )
        for label, trips, condition, n in (
            ("trips", np.array(2), None, 2),
            ("condition", None, _TRUE, 3),
            ("both", np.array(9), _TRUE, 3),
            ("none", np.array(0), _TRUE, 0),
            ("false", np.array(5), _FALSE, 0),
        ):
            found.append(
                case(
                    "Loop",
                    version,
                    inputs=[trips, condition, np.array(0, np.float32)],
                    expected=[np.array(n, np.float32), np.arange(n, dtype=np.float32)],
                    attributes={"body": body},
                    label=label,
                )
            )
    return found


def _scans() -> list[Case]:
    found = []
    for version in since("Scan", 8):
        body = _graph(
            "b (float[3] s, float[3] x) => (float[3] next, float[3] out) { next = Add (s, x) out = Identity (next) }"
        )
        state, sums = np.zeros(3, np.float32), np.cumsum(_X, 0)
        back = np.cumsum(_X[::-1], 0)
        if version == 8:  # a batch before all, the lengths first
            found += [
                case(
                    "Scan",
                    8,
                    inputs=[None, state[None], _X[None]],
                    expected=[sums[None, -1], sums[None]],
                    attributes={"body": body, "num_scan_inputs": 1},
                ),
                case(
                    "Scan",
                    8,
                    inputs=[None, state[None], _X[None]],
                    expected=[back[None, -1], back[None]],
                    attributes={"body": body, "num_scan_inputs": 1, "directions": [1]},
                    label="backwards",
                ),
            ]
            continue
        base = {"body": body, "num_scan_inputs": 1}
        forms: list[tuple[str, Array, list[Array], dict[str, Any]]] = [
            ("plain", _X, [sums[-1], sums], {}),
            ("backwards", _X, [back[-1], back], {"scan_input_directions": [1]}),
            ("written-backwards", _X, [sums[-1], sums[::-1]], {"scan_output_directions": [1]}),
            ("axes", _X.T.copy(), [sums[-1], sums.T.copy()], {"scan_input_axes": [1], "scan_output_axes": [1]}),
        ]
        if version >= 11:
            axes = {"scan_input_axes": [-1], "scan_output_axes": [-1]}
            forms.append(("negative", _X.T.copy(), [sums[-1], sums.T.copy()], axes))
        for label, x, want, more in forms:
            inputs = [state, x]
            found.append(case("Scan", version, inputs=inputs, expected=want, attributes={**base, **more}, label=label))
    return found


def _optionals() -> list[Case]:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    return [
        case("Optional", inputs=[_X], expected=[_X]),
        case("Optional", inputs=[[_X, _X]], expected=[[_X, _X]], label="sequence"),
        case("Optional", expected=[_nothing], attributes={"type": tensor}, label="empty"),
        case("OptionalHasElement", *since("OptionalHasElement", 18), inputs=[_X], expected=[_TRUE]),
        case("OptionalHasElement", *since("OptionalHasElement", 18), inputs=[None], expected=[_FALSE], label="none"),
        case("OptionalGetElement", *since("OptionalGetElement", 18), inputs=[_X], expected=[_X]),
        case("OptionalGetElement", *since("OptionalGetElement", 18), inputs=[[_X]], expected=[[_X]], label="sequence"),
    ]


def _nothing(got: Any) -> None:
    assert got is None


CASES = [*_branches(), *_loops(), *_scans(), *_optionals()]
