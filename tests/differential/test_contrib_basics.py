"""The small operators of com.microsoft, those on images and on text, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .oracle import against_onnxruntime, answers

_random = np.random.default_rng(6)


def _f(*shape: int) -> Any:
    return _random.normal(size=shape).astype(np.float32)


def _ints(*values: int, dtype: Any = np.int64) -> Any:
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "n_outputs"),
    [
        ("Trilu", [_f(2, 4, 3), np.array(1)], {"upper": 0}, 1),
        ("Trilu", [_f(4, 3)], {}, 1),
        ("Unique", [_random.integers(0, 4, 20).astype(np.float32)], {}, 3),
        ("Range", [np.array(1.5, "f"), np.array(6, "f")], {}, 1),
        ("Range", [_ints(9), _ints(-2), _ints(-3)], {}, 1),
        ("ExpandDims", [_f(2, 3), np.array(-1, np.int32)], {}, 1),
        ("ExpandDims", [_f(2, 3), np.array(1, np.int32)], {}, 1),
        ("GatherND", [_f(2, 3, 4), _ints(0, 1, 1, 2).reshape(2, 2)], {}, 1),
        ("Pad", [_f(2, 3), _ints(0, 1, 2, 0), np.array([7], "f")], {}, 1),
        ("Pad", [_f(2, 3), _ints(0, 1, 0, 2)], {"mode": "reflect"}, 1),
        (
            "GridSample",
            [_f(1, 2, 4, 4), _random.uniform(-1, 1, (1, 3, 3, 2)).astype("f")],
            {"padding_mode": "border"},
            1,
        ),
        ("Inverse", [_f(2, 4, 4)], {}, 1),
        ("CDist", [_f(5, 3), _f(4, 3)], {"metric": "euclidean"}, 1),
        ("CDist", [_f(5, 3).astype(float), _f(4, 3).astype(float)], {"metric": "sqeuclidean"}, 1),
        ("UnfoldTensor", [_f(2, 7, 3)], {"dim": 1, "size": 3, "step": 2}, 1),
        ("UnfoldTensor", [_f(2, 7)], {"size": 7}, 1),
        ("DynamicTimeWarping", [_f(6, 9)], {}, 1),
        ("DynamicTimeWarping", [_f(1, 9, 4) ** 2], {}, 1),
        ("DynamicTimeWarping", [np.ones((5, 5), np.float32)], {}, 1),
        ("SampleOp", [_f(3)], {}, 1),
        ("NGramRepeatBlock", [_random.integers(0, 3, (3, 12)), _f(3, 5)], {"ngram_size": 3}, 1),
        ("NGramRepeatBlock", [_random.integers(0, 3, (2, 2)), _f(2, 5)], {"ngram_size": 3}, 1),
        ("NGramRepeatBlock", [_random.integers(0, 3, (2, 5)), _f(2, 5)], {"ngram_size": 1}, 1),
        ("BifurcationDetector", [_ints(1, 5, 3, 4, 2), _ints(2), _ints(0), _ints(1, 5, 3, 9, 2, 7)], {}, 2),
        ("BifurcationDetector", [_ints(1, 5, 3, 4, 2), _ints(2, 3), _ints(0)], {}, 2),
        ("BifurcationDetector", [_ints(1, 5, 3, 5, 2), _ints(2, 5), _ints(0)], {}, 2),
        ("MurmurHash3", [np.array(["", "a", "ab", "abc", "abcd", "éa"], object)], {"seed": 3}, 1),
        ("MurmurHash3", [_ints(3, -4, 2**40)], {"positive": 0}, 1),
        ("MurmurHash3", [_f(3)], {}, 1),
        ("MurmurHash3", [_ints(3, -4, dtype=np.int32)], {"seed": 42}, 1),
    ],
    ids=str,
)
def test_basics(op_type: str, inputs: list[Any], attributes: dict[str, Any], n_outputs: int) -> None:
    against_onnxruntime(op_type, inputs, attributes, n_outputs=n_outputs)


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", []),
        ("Tanh", []),
        ("Sigmoid", []),
        ("LeakyRelu", [0.2]),
        ("Clip", [-0.5, 0.5]),
        ("HardSigmoid", [0.3, 0.4]),
    ],
)
@pytest.mark.parametrize("added", [False, True])
def test_fused_conv(activation: str, parameters: list[float], added: bool) -> None:
    inputs = [_f(1, 4, 6, 6), _f(8, 2, 3, 3), _f(8), _f(1, 8, 3, 3) if added else None]
    attributes: dict[str, Any] = {"activation": activation, "group": 2, "strides": [2, 2], "pads": [1, 1, 1, 1]}
    if parameters:
        attributes["activation_params"] = parameters
    against_onnxruntime("FusedConv", inputs, attributes)


def test_conv_transpose_with_dynamic_pads() -> None:
    inputs = [_f(1, 2, 4, 4), _f(2, 3, 3, 3), _ints(1, 0, 0, 1), _f(3)]
    against_onnxruntime("ConvTransposeWithDynamicPads", inputs, {"strides": [2, 2]})


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(3, 4), (1, 1)])
def test_crop_and_resize(mode: str, size: tuple[int, int]) -> None:
    boxes = np.array([[0.1, 0.2, 0.8, 0.9], [0.5, 0.5, 1.4, 1.2], [0.9, 0.1, 0.2, 0.7]], np.float32)
    inputs = [_f(2, 3, 8, 7), boxes, _ints(0, 1, 1, dtype=np.int32), np.array(size, np.int32)]
    against_onnxruntime("CropAndResize", inputs, {"mode": mode, "extrapolation_value": -5.0})


@pytest.mark.parametrize(
    "attributes",
    [
        {"separators": [" "]},
        {"separators": [" ", ","]},
        {"separators": ["[ ,]+"], "mincharnum": 2},
        {"separators": [""]},
        {"tokenexp": "."},
        {"tokenexp": "[a-z]+"},
        {"tokenexp": "[a-zé]+", "mincharnum": 3, "mark": 1},
        {"separators": ["zz"], "mark": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("words", [["a bc,d", "né  efg", ""], [["x yy", ""], ["", "zz, z"]]], ids=["1d", "2d"])
def test_tokenizer(attributes: dict[str, Any], words: list[Any]) -> None:
    settings = {"mark": 0, "mincharnum": 1, "pad_value": "#", **attributes}
    against_onnxruntime("Tokenizer", [np.array(words, object)], settings)


def test_tokens_of_nothing() -> None:
    settings = {"mark": 0, "mincharnum": 1, "pad_value": "#", "separators": [" "]}
    for words in (np.array(["", " "], object), np.empty((0,), object), np.empty((2, 0), object)):
        against_onnxruntime("Tokenizer", [words], settings)


def test_a_metric_that_is_not_there_is_an_error() -> None:
    with pytest.raises(Exception, match="CDist has no metric 'cosine'"):
        answers("CDist", [_f(2, 3), _f(2, 3)], {"metric": "cosine"})
