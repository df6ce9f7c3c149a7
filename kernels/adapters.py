"""Old forms of operators, rewritten once at lowering into the newest form, so that kernels know one.

Most changes between operator versions turned an attribute into an input. ``_MOVED`` lists them; the attribute's
value becomes a constant input of the step, and the node is treated as the version at which the change was made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from distort.graph.ir import Node

#: operator -> (version that has the inputs, {attribute: (input position, dtype; None: that of input 0)})
#: only for the default domain
_REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"),
    *("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"),
)
_Moves = dict[str, tuple[int, Any]]
_MOVED: dict[str, tuple[int, _Moves]] = {
    "Squeeze": (13, {"axes": (1, np.int64)}),
    "Unsqueeze": (13, {"axes": (1, np.int64)}),
    "ReduceSum": (13, {"axes": (1, np.int64)}),
    "Split": (13, {"split": (1, np.int64)}),
    "Slice": (10, {"starts": (1, np.int64), "ends": (2, np.int64), "axes": (3, np.int64)}),
    "TopK": (10, {"k": (1, np.int64)}),
    "Reshape": (5, {"shape": (1, np.int64)}),
    "Clip": (11, {"min": (1, None), "max": (2, None)}),
    "Dropout": (12, {"ratio": (1, np.float32)}),
    "Upsample": (9, {"scales": (1, np.float32)}),
    **{op_type: (18, {"axes": (1, np.int64)}) for op_type in _REDUCTIONS},
}


def modern(node: Node) -> tuple[Node, dict[str, Any]]:
    """The node with attributes moved to inputs, and the constants that those inputs now name.

    ``opset`` stays the model's: a kernel whose meaning changed otherwise still sees which version it serves.
    """
    if node.domain not in ("", "ai.onnx"):
        return node, {}
    entry = _MOVED.get(node.op_type)
    if entry is None or node.opset >= entry[0] or not any(name in node.attributes for name in entry[1]):
        return node, {}
    attributes = dict(node.attributes)
    inputs = list(node.inputs)
    constants: dict[str, Any] = {}
    for name, (position, dtype) in entry[1].items():
        if name not in attributes:
            continue
        # a name that no ONNX value can have: it holds a space
        constant = f"{name} of {next((o for o in node.outputs if o), node.name)}"
        constants[constant] = np.asarray(attributes.pop(name), dtype=dtype or np.float32)
        while len(inputs) <= position:
            inputs.append("")
        inputs[position] = constant
    return replace(node, inputs=inputs, attributes=attributes), constants
