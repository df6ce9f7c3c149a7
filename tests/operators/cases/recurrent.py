"""RNN, GRU and LSTM at every version, against one step of the equations after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..case import Case, case, since

Array = np.ndarray[Any, Any]

_random = np.random.default_rng(5)
_T, _B, _I, _H = 4, 3, 2, 5  # time steps, batch, input and hidden size
_LENGTHS = np.array([4, 2, 3], np.int32)
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "Relu": lambda x: np.maximum(x, 0),
    "HardSigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "Softsign": lambda x: x / (1 + np.abs(x)),
}


def _step(
    kind: str, x: Array, h: Array, c: Array, w: Array, r: Array, b: Array, p: Array, names: list[str], **more: Any
) -> tuple[Array, Array]:
    f, g = _FUNCTIONS[names[0]], _FUNCTIONS[names[min(1, len(names) - 1)]]
    n = _GATES[kind] * _H
    wb, rb = b[:n], b[n:]
    clip = (lambda v: np.clip(v, -more["clip"], more["clip"])) if more.get("clip") else (lambda v: v)
    if kind == "RNN":
        return f(clip(x @ w.T + h @ r.T + wb + rb)), c
    xs, hs = np.split(x @ w.T + wb, _GATES[kind], 1), np.split(h @ r.T + rb, _GATES[kind], 1)
    if kind == "GRU":
        z, reset = f(clip(xs[0] + hs[0])), f(clip(xs[1] + hs[1]))
        if more.get("linear_before_reset"):
            new = g(clip(xs[2] + reset * hs[2]))
        else:
            new = g(clip(xs[2] + (reset * h) @ r[2 * _H :].T + rb[2 * _H :]))
        return (1 - z) * new + z * h, c
    pi, po, pf = np.split(p, 3)
    i = f(clip(xs[0] + hs[0] + pi * c))
    forget = 1 - i if more.get("input_forget") else f(clip(xs[2] + hs[2] + pf * c))
    c = forget * c + i * g(clip(xs[3] + hs[3]))
    return f(clip(xs[1] + hs[1] + po * c)) * _FUNCTIONS[names[2]](c), c


def _run(
    kind: str,
    x: Array,
    weights: dict[str, Array],
    directions: list[bool],
    names: list[str],
    lengths: Array,
    **more: Any,
) -> list[Array]:
    """Y, Y_h and Y_c; a direction is True where it runs backwards."""
    per = len(names) // len(directions)
    y = np.zeros((_T, len(directions), _B, _H))
    last = np.zeros((2, len(directions), _B, _H))
    for d, backwards in enumerate(directions):
        for batch in range(_B):
            h, c = weights["h"][d, batch : batch + 1], weights["c"][d, batch : batch + 1]
            steps = range(lengths[batch])
            for t in reversed(steps) if backwards else steps:
                h, c = _step(
                    kind,
                    x[t, batch : batch + 1],
                    h,
                    c,
                    weights["w"][d],
                    weights["r"][d],
                    weights["b"][d],
                    weights["p"][d],
                    names[d * per : (d + 1) * per],
                    **more,
                )
                y[t, d, batch] = h[0]
            last[0, d, batch], last[1, d, batch] = h[0], c[0]
    return [y, *last[: 2 if kind == "LSTM" else 1]]


def _weights(kind: str, directions: int) -> dict[str, Array]:
    n = _GATES[kind]
    shapes = {
        "w": (n * _H, _I),
        "r": (n * _H, _H),
        "b": (2 * n * _H,),
        "h": (_B, _H),
        "c": (_B, _H),
        "p": (3 * _H,),
    }
    return {
        name: _random.normal(size=(directions, *shape)).astype(np.float32) * np.float32(0.5)
        for name, shape in shapes.items()
    }


_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_OTHERS = {"RNN": ["Relu"], "GRU": ["HardSigmoid", "Softsign"], "LSTM": ["HardSigmoid", "Relu", "Softsign"]}


def _cases(kind: str) -> list[Case]:
    found = []
    x = _random.normal(size=(_T, _B, _I)).astype(np.float32)
    full = np.full(_B, _T, np.int32)
    for label, directions, names, lengths, more in (
        ("forward", [False], _DEFAULTS[kind], full, {}),
        ("reverse", [True], _DEFAULTS[kind], full, {}),
        ("both", [False, True], _DEFAULTS[kind] * 2, full, {}),
        ("lengths", [False, True], _DEFAULTS[kind] * 2, _LENGTHS, {}),
        ("activations", [False], _OTHERS[kind], full, {}),
        ("clip", [False], _DEFAULTS[kind], full, {"clip": 0.25}),
        *([("linear", [False], _DEFAULTS[kind], full, {"linear_before_reset": 1})] if kind == "GRU" else []),
        *([("coupled", [False], _DEFAULTS[kind], full, {"input_forget": 1})] if kind == "LSTM" else []),
    ):
        weights = _weights(kind, len(directions))
        want = [value.astype(np.float32) for value in _run(kind, x, weights, directions, names, lengths, **more)]
        inputs = [x, weights["w"], weights["r"], weights["b"], lengths, weights["h"]]
        if kind == "LSTM":
            inputs += [weights["c"], weights["p"]]
        attributes = {
            "hidden_size": _H,
            "direction": "bidirectional" if len(directions) == 2 else "reverse" if directions[0] else "forward",
            **({"activations": names} if label == "activations" else {}),
            **more,
        }
        # before version 7 Y comes where it is asked for; of GRU the flag came with version 3
        versions = since(kind, 3 if "linear_before_reset" in more else 1)
        for version in versions:
            old: dict[str, Any] = {"output_sequence": 1} if version < 7 else {}
            found.append(
                case(
                    kind,
                    version,
                    inputs=inputs,
                    expected=want,
                    attributes={**attributes, **old},
                    label=label,
                    rtol=1e-4,
                )
            )
        if label == "forward":
            zero = {name: np.zeros_like(value) if name in "bhcp" else value for name, value in weights.items()}
            plain = [value.astype(np.float32) for value in _run(kind, x, zero, directions, names, lengths)]
            attributes = {"hidden_size": _H}
            few = inputs[:3]
            found.append(
                case(kind, *since(kind, 7), inputs=few, expected=plain, attributes=attributes, label="few", rtol=1e-4)
            )
            batch_first = [few[0].transpose(1, 0, 2).copy(), *few[1:]]
            turned = [plain[0].transpose(2, 0, 1, 3), *(value.transpose(1, 0, 2) for value in plain[1:])]
            found.append(
                case(
                    kind,
                    *since(kind, 14),
                    inputs=batch_first,
                    expected=turned,
                    attributes={**attributes, "layout": 1},
                    label="layout",
                    rtol=1e-4,
                )
            )
    return found


CASES = [*_cases("RNN"), *_cases("GRU"), *_cases("LSTM")]
