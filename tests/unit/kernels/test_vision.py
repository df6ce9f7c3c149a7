"""Space and depth, cropping, columns and boxes."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find


def call(op_type, *inputs, opset=22, **attributes):
    with np.errstate(all="ignore"):  # as programs run kernels
        return find("", op_type, opset).function(np, *inputs, **attributes)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_and_space_are_inverse(mode):
    x = np.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    deep = call("SpaceToDepth", x, blocksize=2, mode=mode, opset=28)
    assert deep.shape == (2, 12, 2, 3)
    np.testing.assert_array_equal(call("DepthToSpace", deep, blocksize=2, mode=mode), x)
    for c, row, column in np.ndindex(3, 2, 2):
        channel = (row * 2 + column) * 3 + c if mode == "DCR" else c * 4 + row * 2 + column
        np.testing.assert_array_equal(deep[:, channel], x[:, c, row::2, column::2])


@pytest.mark.parametrize("op_type, shape", [("SpaceToDepth", (1, 1, 3, 4)), ("DepthToSpace", (1, 6, 2, 2))])
def test_blocks_that_do_not_divide(op_type, shape):
    with pytest.raises(InvalidInput, match="multiple"):
        call(op_type, np.zeros(shape), blocksize=2)


def test_center_crop_and_pad():
    x = np.arange(1, 6)
    for goal, want in [(5, [1, 2, 3, 4, 5]), (2, [2, 3]), (8, [0, 1, 2, 3, 4, 5, 0, 0]), (0, [])]:
        np.testing.assert_array_equal(call("CenterCropPad", x, np.array([goal])), want)
    both = call("CenterCropPad", np.ones((2, 4, 5), np.int8), np.array([6, 3]), axes=[-1, 1])
    assert both.shape == (2, 3, 6)
    np.testing.assert_array_equal(both[0, 0], [1, 1, 1, 1, 1, 0])
    with pytest.raises(InvalidInput, match="one entry"):
        call("CenterCropPad", x, np.array([1, 2]))


@pytest.mark.parametrize(
    "size, block, strides, dilations, pads",
    [
        ((6, 5), (2, 3), (1, 1), (1, 1), (0, 0, 0, 0)),
        ((6, 5), (2, 2), (2, 1), (1, 2), (1, 0, 0, 2)),
        ((7,), (3,), (2,), (1,), (1, 1)),
        ((4, 3, 5), (2, 1, 2), (1, 2, 2), (2, 1, 1), (0, 0, 1, 1, 0, 0)),
    ],
)
def test_col2im_adds_blocks(size, block, strides, dilations, pads):
    """Each column's element goes where a convolution's tap would have read it."""
    rank = len(size)
    padded = [n + b + e for n, b, e in zip(size, pads[:rank], pads[rank:], strict=True)]
    counts = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(padded, block, strides, dilations, strict=True)]
    rng = np.random.default_rng(1)
    columns = rng.normal(size=(2, 3, *block, *counts)).astype(np.float32)
    whole = np.zeros((2, 3, *padded))
    for element in np.ndindex(*block):
        for place in np.ndindex(*counts):
            at = tuple(p * s + e * d for p, s, e, d in zip(place, strides, element, dilations, strict=True))
            whole[(slice(None), slice(None), *at)] += columns[(slice(None), slice(None), *element, *place)]
    inner = tuple(slice(b, b + n) for b, n in zip(pads, size, strict=False))
    flat = columns.reshape(2, -1, int(np.prod(counts)))
    got = call("Col2Im", flat, np.array(size), np.array(block), strides=strides, dilations=dilations, pads=pads)
    np.testing.assert_allclose(got, whole[(..., *inner)], rtol=1e-5, atol=1e-6)
    with pytest.raises(InvalidInput, match="must be"):
        call("Col2Im", flat[:, :, 1:], np.array(size), np.array(block), strides=strides, dilations=dilations, pads=pads)


def boxes_and_scores():
    boxes = np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 10, 1, 11], [1, 11, 0, 10.5]]], np.float32)
    scores = np.array([[[0.9, 0.75, 0.6, 0.95], [0.1, 0.8, 0.8, 0.3]]], np.float32)
    return boxes, scores


def suppressed(boxes, scores, most=10, iou=0.5, score=None, **attributes):
    score = None if score is None else np.array([score], np.float32)
    return call(
        "NonMaxSuppression", boxes, scores, np.array([most]), np.array([iou], np.float32), score, **attributes
    ).tolist()


def test_suppression_by_overlap_and_score():
    boxes, scores = boxes_and_scores()
    # the last box is half of the third, given by its opposite corners: their overlap is 0.5, not more
    assert suppressed(boxes, scores) == [[0, 0, 3], [0, 0, 0], [0, 0, 2], [0, 1, 1], [0, 1, 2], [0, 1, 3]]
    assert suppressed(boxes, scores, iou=0.45) == [[0, 0, 3], [0, 0, 0], [0, 1, 1], [0, 1, 2]]
    assert suppressed(boxes, scores, score=0.8) == [[0, 0, 3], [0, 0, 0]]  # a score must exceed the threshold
    assert suppressed(boxes, scores, most=1) == [[0, 0, 3], [0, 1, 1]]
    assert suppressed(boxes, scores, most=0) == []
    assert call("NonMaxSuppression", boxes, scores).shape == (0, 3)


def test_suppression_of_centred_boxes():
    corners, scores = boxes_and_scores()
    low, high = np.minimum(corners[..., :2], corners[..., 2:]), np.maximum(corners[..., :2], corners[..., 2:])
    centred = np.concatenate([(low + high) / 2, high - low], axis=-1)
    assert suppressed(centred, scores, iou=0.45, center_point_box=1) == suppressed(corners, scores, iou=0.45)


def test_boxes_without_area_suppress_nothing():
    boxes = np.zeros((1, 3, 4), np.float32)
    scores = np.ones((1, 1, 3), np.float32)
    assert suppressed(boxes, scores, iou=0.0) == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]


def test_suppression_contradictions():
    boxes, scores = boxes_and_scores()
    with pytest.raises(InvalidInput, match="differ"):
        suppressed(boxes[:, :3], scores)
    with pytest.raises(InvalidInput, match="iou_threshold"):
        suppressed(boxes, scores, iou=1.5)


@pytest.mark.parametrize("pixel_format, last", [("RGB", 3), ("BGR", 3), ("Grayscale", 1)])
def test_image_decoder(pixel_format, last):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(2).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    file = io.BytesIO()
    image.fromarray(pixels).save(file, format="PNG")
    got = call("ImageDecoder", np.frombuffer(file.getvalue(), np.uint8), pixel_format=pixel_format)
    assert got.dtype == np.uint8 and got.shape == (5, 7, last)
    if last == 3:
        np.testing.assert_array_equal(got, pixels if pixel_format == "RGB" else pixels[..., ::-1])
    with pytest.raises(InvalidInput, match="decoded"):
        call("ImageDecoder", np.frombuffer(file.getvalue()[:20], np.uint8))


def test_image_decoder_without_pillow(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InvalidInput, match=r"distort\[image\]"):
        call("ImageDecoder", np.zeros(4, np.uint8))
