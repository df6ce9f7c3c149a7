"""Sequences and strings."""

from __future__ import annotations

import numpy as np

from ..case import case

_A, _B, _C = (np.arange(n, dtype=np.float32) + n for n in (2, 3, 4))
_WORDS = np.array([["a b", " c", ""]], dtype=object)

CASES = [
    case("SequenceConstruct", inputs=[_A, _B], expected=[[_A, _B]]),
    case("SequenceLength", inputs=[[_A, _B]], expected=[np.array(2)]),
    case("SequenceAt", inputs=[[_A, _B, _C], np.array(-1)], expected=[_C]),
    case("SequenceAt", inputs=[[_A, _B, _C], np.array(1, np.int32)], expected=[_B], label="int32"),
    case("SequenceInsert", inputs=[[_A, _B], _C], expected=[[_A, _B, _C]]),
    case("SequenceInsert", inputs=[[_A, _B], _C, np.array(-1)], expected=[[_A, _C, _B]], label="negative"),
    case("SequenceErase", inputs=[[_A, _B, _C]], expected=[[_A, _B]]),
    case("SequenceErase", inputs=[[_A, _B, _C], np.array(-3)], expected=[[_B, _C]], label="negative"),
    case("ConcatFromSequence", inputs=[[_A, _B]], expected=[np.concatenate([_A, _B])], attributes={"axis": -1}),
    case(
        "ConcatFromSequence",
        inputs=[[_A, _A + 1]],
        expected=[np.stack([_A, _A + 1], 1)],
        attributes={"axis": 1, "new_axis": 1},
        label="stack",
    ),
    case("SplitToSequence", inputs=[_C], expected=[[_C[i : i + 1] for i in range(4)]]),
    case("SplitToSequence", inputs=[_C], expected=[[_C[i] for i in range(4)]], attributes={"keepdims": 0}, label="0d"),
    case("SplitToSequence", inputs=[_B, np.array(2)], expected=[[_B[:2], _B[2:]]], label="rest"),
    case(
        "SplitToSequence",
        inputs=[np.outer(_A, _C), np.array([1, 3])],
        expected=[[np.outer(_A, _C)[:, :1], np.outer(_A, _C)[:, 1:]]],
        attributes={"axis": -1, "keepdims": 0},
        label="sizes",
    ),
    case("StringConcat", inputs=[_WORDS, np.array("!", object)], expected=[np.array([["a b!", " c!", "!"]], object)]),
    case(
        "RegexFullMatch", inputs=[_WORDS], expected=[np.array([[True, False, False]])], attributes={"pattern": "[ab ]+"}
    ),
]
