"""NonMaxSuppression: how many boxes are left is known after the run, so there is room for all that could be."""

from __future__ import annotations

import numpy as np

from distort.graph.ir import Node
from distort.kernels.compiler.builder import Builder, lowers
from distort.kernels.compiler.codegen.suppression import WORDS, scratch_nbytes
from distort.kernels.compiler.ir import Call, ErrorWord, Native, Scratch, Tensor, Word
from distort.kernels.compiler.keys import Key

Result = list[Tensor | None] | None

#: of what could be left
_MOST_NBYTES = 1 << 25
_SCORE_NS, _COMPARED_NS = 0.1, 5.0


@lowers("NonMaxSuppression")
def _suppression(b: Builder, node: Node, inputs: list[Tensor | None]) -> Result:
    boxes, scores, *numbers = [*inputs, None, None, None][:5]
    if boxes is None or scores is None or boxes.dtype != np.float32 or scores.dtype != np.float32:
        return None
    if len(boxes.shape) != 3 or boxes.shape[2] != 4 or len(scores.shape) != 3:
        return None
    if boxes.shape[:2] != (scores.shape[0], scores.shape[2]) or not scores.size or boxes.shape[1] >= 1 << 31:
        return None
    if any(t is not None and (not t.size or t.dtype != dtype) for t, dtype in zip(numbers, _TYPES, strict=True)):
        return None
    most, overlap, least = (None if t is None else b.contiguous(b.plain(t)) for t in numbers)
    n_boxes, n_pairs = boxes.shape[1], scores.shape[0] * scores.shape[1]
    capacity = n_boxes
    if most is None or most.value is not None:
        wanted = 0 if most is None or most.value is None else int(most.value.reshape(-1)[0])
        capacity = max(min(n_boxes, wanted), 1)
    if n_pairs * capacity * 32 > _MOST_NBYTES:
        return None
    boxes, scores = b.contiguous(b.plain(boxes)), b.contiguous(b.plain(scores))
    most = most or b.constant(np.zeros(1, np.int64))
    overlap = overlap or b.constant(np.zeros(1, np.float32))
    centred = bool(node.attributes.get("center_point_box", 0))
    selected, number = b.suppressed(boxes, scores, most, overlap, least, capacity, centred)
    return [b.first(selected, number, node.outputs[0])]


def suppressed_kernel(
    b: Builder,
    boxes: Tensor,
    scores: Tensor,
    most: Tensor,
    overlap: Tensor,
    least: Tensor | None,
    capacity: int,
    centred: bool,
) -> tuple[Tensor, Tensor]:
    """As :meth:`Builder.suppressed`."""
    n_boxes, n_pairs = boxes.shape[1], scores.shape[0] * scores.shape[1]
    kept, counts = b.new(np.int64, (n_pairs, capacity)), b.new(np.int64, (n_pairs,))
    nbytes = -(-scratch_nbytes(n_boxes, capacity, b.target.lanes("float")) // 64) * 64
    words: list[Word] = [boxes.address(), scores.address(), most.address(), overlap.address()]
    words += [0 if least is None else least.address(), kept.address(), counts.address(), Scratch(), ErrorWord()]
    words += [nbytes, n_pairs, scores.shape[1], n_boxes, capacity]
    assert len(words) == len(WORDS)
    work = scores.size * _SCORE_NS + n_pairs * capacity * _COMPARED_NS
    key = Key("suppression", (least is not None, centred))
    call = Call(key, words, work, nbytes * b.n_threads, n_pairs)
    read = [t for t in (boxes, scores, most, overlap, least) if t is not None]
    b.add(Native(read, [kept, counts], [call]))
    selected, number = b.new(np.int64, (n_pairs * capacity, 3)), b.new(np.int64, (1,))
    words = [n_pairs, scores.shape[1], capacity, kept.address(), counts.address()]
    words += [selected.address(), number.address()]
    b.add(Native([kept, counts], [selected, number], [Call(Key("selected", ()), words, 1e3, most_threads=1)]))
    return selected, number


#: of the numbers that may be given
_TYPES = (np.int64, np.float32, np.float32)
