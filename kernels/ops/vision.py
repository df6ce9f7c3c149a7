"""Rearranging images and boxes: SpaceToDepth, DepthToSpace, CenterCropPad, Col2Im, NonMaxSuppression (ai.onnx)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import Failed, InvalidInput
from distort.kernels.registry import kernel
from distort.kernels.windows import explicit_pads, spatial_attribute

Array = Any


def _block_mode(x: Array, blocksize: int, mode: str) -> None:
    if x.ndim != 4 or blocksize < 1:
        raise InvalidInput(f"X {list(x.shape)} must have 4 axes, and blocksize {blocksize} be positive")
    if mode not in ("DCR", "CRD"):
        raise InvalidInput(f"mode '{mode}' is none of DCR, CRD")


@kernel("SpaceToDepth", since=1)
def space_to_depth(xp: ModuleType, x: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    _block_mode(x, blocksize, mode)
    n, c, h, w = x.shape
    if h % blocksize or w % blocksize:
        raise InvalidInput(f"SpaceToDepth requires H and W to be a multiple of blocksize {blocksize}: {list(x.shape)}")
    parts = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    parts = parts.transpose((0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return parts.reshape(n, c * blocksize * blocksize, h // blocksize, w // blocksize)


@kernel("DepthToSpace", since=1)
def depth_to_space(xp: ModuleType, x: Array, *, blocksize: int, mode: str = "DCR") -> Array:
    _block_mode(x, blocksize, mode)
    n, c, h, w = x.shape
    if c % (blocksize * blocksize):
        raise InvalidInput(f"DepthToSpace requires C to be a multiple of blocksize² {blocksize**2}: {list(x.shape)}")
    depth = c // (blocksize * blocksize)
    if mode == "DCR":
        parts = x.reshape(n, blocksize, blocksize, depth, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, depth, blocksize, blocksize, h, w).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(n, depth, h * blocksize, w * blocksize)


@kernel("CenterCropPad", since=18, host=(1,))
def center_crop_pad(xp: ModuleType, x: Array, shape: Array, *, axes: Sequence[int] | None = None) -> Array:
    """Where a difference is odd, the element more is cut or padded at the end."""
    chosen = range(x.ndim) if axes is None else axes
    goals = [int(n) for n in shape]
    if len(goals) != len(chosen):
        raise InvalidInput(f"shape {goals} must have one entry for each of {len(chosen)} axes")
    if goals and min(goals) < 0:
        raise InvalidInput(f"shape {goals} must not be negative")
    result_shape = list(x.shape)
    source = [slice(None)] * x.ndim
    target = [slice(None)] * x.ndim
    for axis, goal in zip(chosen, goals, strict=True):
        if not -x.ndim <= axis < x.ndim:
            raise InvalidInput(f"axis {axis} is out of range for an input of shape {list(x.shape)}")
        size = x.shape[axis]
        if goal < size:
            source[axis] = slice((size - goal) // 2, (size - goal) // 2 + goal)
        elif goal > size:
            target[axis] = slice((goal - size) // 2, (goal - size) // 2 + size)
        result_shape[axis] = goal
    cut = x[tuple(source)]
    if cut.shape == tuple(result_shape):
        return cut
    result = xp.zeros(result_shape, x.dtype)
    result[tuple(target)] = cut
    return result


@kernel("Col2Im", since=18, host=(1, 2))
def col2im(
    xp: ModuleType,
    columns: Array,
    image_shape: Array,
    block_shape: Array,
    *,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """columns [N, C * product of block_shape, blocks] -> [N, C, *image_shape]; overlapping blocks add up."""
    size = [int(n) for n in image_shape]
    block = [int(n) for n in block_shape]
    rank = len(size)
    if len(block) != rank or min(size + block, default=0) < 1:
        raise InvalidInput(f"image_shape {size} and block_shape {block} must be positive and of the same length")
    steps = spatial_attribute("strides", strides, rank)
    spread = spatial_attribute("dilations", dilations, rank)
    begins, ends = explicit_pads(pads, rank)
    counts = [
        (n + b + e - (k - 1) * d - 1) // s + 1
        for n, k, s, d, b, e in zip(size, block, steps, spread, begins, ends, strict=True)
    ]
    elements = math.prod(block)
    if min(counts) < 1 or columns.ndim != 3 or columns.shape[1] % elements or columns.shape[2] != math.prod(counts):
        raise InvalidInput(
            f"input {list(columns.shape)} must be [N, C * {elements}, {math.prod(counts)}] for image_shape {size} "
            f"and block_shape {block}"
        )
    batch, channels = columns.shape[0], columns.shape[1] // elements
    columns = columns.reshape(batch, channels, *block, *counts)
    padded = [n + b + e for n, b, e in zip(size, begins, ends, strict=True)]
    image = xp.zeros((batch, channels, *padded), xp.float32 if columns.dtype.itemsize == 2 else columns.dtype)
    for element in product(*map(range, block)):
        where = (
            slice(e * d, e * d + (n - 1) * s + 1, s) for e, d, n, s in zip(element, spread, counts, steps, strict=True)
        )
        image[(..., *where)] += columns[(slice(None), slice(None), *element)]
    inner = (slice(b, b + n) for b, n in zip(begins, size, strict=True))
    return image[(..., *inner)].astype(columns.dtype, copy=False)


@kernel("NonMaxSuppression", since=10, host=(2, 3, 4))
def non_max_suppression(
    xp: ModuleType,
    boxes: Array,
    scores: Array,
    max_output_boxes_per_class: Array | None = None,
    iou_threshold: Array | None = None,
    score_threshold: Array | None = None,
    *,
    center_point_box: int = 0,
) -> Array:
    """boxes [B, N, 4], scores [B, C, N] -> [selected, 3]: image, class, box; by falling score within a class.

    Without max_output_boxes_per_class nothing is selected. Boxes without area suppress nothing.
    """
    if boxes.ndim != 3 or boxes.shape[2] != 4 or scores.ndim != 3:
        raise InvalidInput(f"boxes {list(boxes.shape)} must be [B, N, 4] and scores {list(scores.shape)} [B, C, N]")
    if boxes.shape[:2] != (scores.shape[0], scores.shape[2]):
        raise Failed(f"boxes {list(boxes.shape)} and scores {list(scores.shape)} differ in images or boxes")
    most = int(max_output_boxes_per_class.reshape(-1)[0]) if max_output_boxes_per_class is not None else 0
    overlap = float(iou_threshold.reshape(-1)[0]) if iou_threshold is not None else 0.0
    if not 0 <= overlap <= 1:
        raise InvalidInput(f"iou_threshold {overlap} must be in range [0, 1]")
    selected: list[tuple[int, int, int]] = []
    if most > 0:
        corners = _corners(xp, boxes, center_point_box)
        for image, of_class in product(range(scores.shape[0]), range(scores.shape[1])):
            candidates = xp.argsort(-scores[image, of_class], kind="stable")
            if score_threshold is not None:
                enough = scores[image, of_class] > float(score_threshold.reshape(-1)[0])
                candidates = candidates[enough[candidates]]
            kept = _kept(xp, corners[:, image], candidates, most, overlap)
            selected += [(image, of_class, box) for box in kept]
    return xp.asarray(selected, dtype=xp.int64).reshape(-1, 3)


def _corners(xp: ModuleType, boxes: Array, center_point_box: int) -> Array:
    """[4, B, N]: low and high of the first axis, low and high of the second."""
    a, b, c, d = (boxes[..., i] for i in range(4))
    if center_point_box:
        return xp.stack([a - c / 2, a + c / 2, b - d / 2, b + d / 2])
    return xp.stack([xp.minimum(a, c), xp.maximum(a, c), xp.minimum(b, d), xp.maximum(b, d)])


def _kept(xp: ModuleType, corners: Array, candidates: Array, most: int, overlap: float) -> list[int]:
    """corners [4, N]; candidates by falling score. Those of a block are compared with one another and those kept."""
    kept: list[int] = []
    for start in range(0, len(candidates), _NMS_BLOCK):
        block = candidates[start : start + _NMS_BLOCK]
        here = corners[:, block]
        alive = xp.ones(len(block), bool)
        if kept:
            alive &= ~_overlapping(xp, here, corners[:, xp.asarray(kept)], overlap).any(axis=1)
        rivals = np.packbits(_on_host(_overlapping(xp, here, here, overlap)), axis=1, bitorder="little")
        masks = [int.from_bytes(row.tobytes(), "little") for row in rivals]
        dead = 0
        numbers = _on_host(block).tolist()
        for place in np.flatnonzero(_on_host(alive)).tolist():
            if not dead >> place & 1:
                kept.append(numbers[place])
                if len(kept) == most:
                    return kept
                dead |= masks[place]
    return kept


_NMS_BLOCK = 128


def _on_host(x: Array) -> np.ndarray[Any, Any]:
    return x if isinstance(x, np.ndarray) else x.get()


def _overlapping(xp: ModuleType, a: Array, b: Array, overlap: float) -> Array:
    """[A, B]: which of the boxes a [4, A] share more than ``overlap`` of their union with which of b [4, B]."""
    side0 = xp.minimum(a[1][:, None], b[1]) - xp.maximum(a[0][:, None], b[0])
    side1 = xp.minimum(a[3][:, None], b[3]) - xp.maximum(a[2][:, None], b[2])
    shared = xp.maximum(side0, 0) * xp.maximum(side1, 0)
    areas = [(c[1] - c[0]) * (c[3] - c[2]) for c in (a, b)]
    union = areas[0][:, None] + areas[1] - shared
    return (shared > 0) & (shared / xp.where(shared > 0, union, 1) > overlap)
