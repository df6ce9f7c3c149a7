"""Pad and CenterCropPad in native code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .movement import between_convolutions, check, one_node


def _values(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(7).normal(size=shape) * 50).astype(dtype)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize(
    ("shape", "pads"),
    [
        ((5,), [2, 3]),
        ((4, 6), [1, 0, 0, 5]),
        ((3, 4), [2, 3, 1, 2]),
        ((2, 3, 17, 33), [0, 0, 1, 2, 0, 0, 3, 4]),
        ((1, 2, 5, 7), [0, 1, 3, -2, 0, 1, -1, 3]),
        ((3, 4), [-1, -1, -1, 0]),
        ((3, 4), [0, 0, 0, 0]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_pad(mode: str, shape: tuple[int, ...], pads: list[int], dtype: Any) -> None:
    feeds = {"x": _values(shape, dtype)}
    check(one_node("Pad", feeds, {"pads": np.array(pads)}, mode=mode), feeds)


def test_pad_with_a_value_of_the_run_and_axes() -> None:
    feeds = {"x": _values((3, 4, 5)), "v": np.array(2.5, np.float32)}
    known = {"p": np.array([1, 2, 3, 0]), "a": np.array([-1, 0])}
    check(one_node("Pad", feeds, known, order=["x", "p", "v", "a"]), feeds)


def test_pad_with_a_known_value() -> None:
    feeds = {"x": _values((3, 4))}
    known = {"p": np.array([1, 2, 3, 0]), "v": np.array([-np.inf], np.float32)}
    check(one_node("Pad", feeds, known), feeds)


def test_pad_of_nothing() -> None:
    feeds = {"x": np.empty((0, 3), np.float32)}
    check(one_node("Pad", feeds, {"p": np.array([1, 1, 2, 0])}), feeds)


def test_pad_in_its_old_form() -> None:
    feeds = {"x": _values((3, 4))}
    check(one_node("Pad", feeds, opset=2, pads=[1, 0, 2, 3], value=1.5), feeds)


def test_reflecting_more_than_there_is_is_left_to_numpy() -> None:
    feeds = {"x": _values((3,))}
    check(one_node("Pad", feeds, {"p": np.array([4, 5])}, mode="reflect"), feeds, native=False)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_the_same_with_two_threads(mode: str) -> None:
    feeds = {"x": _values((8, 16, 60, 70))}
    pads = np.array([0, 0, 5, 6, 0, 0, 7, 8])
    check(one_node("Pad", feeds, {"pads": pads}, mode=mode), feeds, n_threads=2)


@pytest.mark.parametrize(("goal", "axes"), [([3, 9], None), ([8, 2], [1, -1]), ([5, 6], [2, 0])])
def test_center_crop_pad(goal: list[int], axes: list[int] | None) -> None:
    shape = (5, 6) if axes is None else (4, 5, 6)
    feeds = {"x": _values(shape)}
    attributes = {} if axes is None else {"axes": axes}
    check(one_node("CenterCropPad", feeds, {"goal": np.array(goal)}, **attributes), feeds)


@pytest.mark.parametrize("channels", [24, 32])
@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
@pytest.mark.parametrize("value", [0.0, 2.5, -np.inf])
def test_pad_between_convolutions(channels: int, mode: str, value: float) -> None:
    feeds = {"x": _values((2, channels, 7, 9)) / 50}
    for pads in ([0, 0, 1, 2, 0, 0, 3, 1], [0, 0, -1, 2, 0, 0, 3, -2], [0, 1, 0, 0, 0, -1, 0, 0]):
        if (value and mode != "constant") or (value < 0 and pads[1] == 0):
            continue
        known = {"p": np.array(pads), "v": np.array(value, np.float32)}
        graph = between_convolutions(one_node("Pad", feeds, known, mode=mode), channels)
        check(graph, feeds, exact=False)
