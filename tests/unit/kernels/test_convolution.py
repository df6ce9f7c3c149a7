"""Conv and its family against a direct sum over windows."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import distort.kernels.ops  # noqa: F401  # fills the registry
from distort.kernels.convolve import _blocks
from distort.kernels.errors import InvalidInput
from distort.kernels.registry import find


def call(op_type, *inputs, opset=22, **attributes):
    return find("", op_type, opset).function(np, *inputs, **attributes)


def direct(x, w, strides, dilations, begins, ends, group):
    """The definition, one output element at a time, in float64."""
    rank = x.ndim - 2
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
    kernel = w.shape[2:]
    out = [(x.shape[2 + i] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(rank)]
    y = np.zeros((x.shape[0], w.shape[0], *out))
    per_in, per_out = w.shape[1], w.shape[0] // group
    for m in range(w.shape[0]):
        first = m // per_out * per_in
        for place in product(*map(range, out)):
            where = tuple(
                slice(p * s, p * s + (k - 1) * d + 1, d)
                for p, s, k, d in zip(place, strides, kernel, dilations, strict=True)
            )
            window = x[(slice(None), slice(first, first + per_in), *where)]
            y[(slice(None), m, *place)] = (window * w[m]).reshape(x.shape[0], -1).sum(axis=1)
    return y


CASES = [
    # channels, filters, group, size, kernel, strides, dilations, pads
    (3, 4, 1, (9,), (3,), (2,), (2,), (1, 2)),
    (4, 6, 1, (7, 8), (3, 2), (1, 1), (1, 1), (0, 0, 0, 0)),
    (4, 6, 2, (7, 8), (3, 3), (2, 1), (1, 2), (2, 0, 1, 3)),
    (6, 6, 6, (9, 7), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1)),
    (6, 12, 6, (9, 7), (3, 5), (2, 3), (2, 1), (0, 2, 3, 1)),
    (3, 3, 3, (5, 6, 7), (2, 3, 1), (2, 1, 3), (1, 2, 1), (0, 1, 0, 1, 1, 0)),
    (9, 9, 9, (6, 7), (3, 2), (2, 1), (1, 2), (1, 0, 0, 1)),
    (3, 15, 3, (6, 6), (2, 2), (1, 1), (1, 1), (0, 0, 0, 0)),
    (4, 4, 2, (4, 5, 6), (2, 2, 3), (1, 2, 2), (1, 1, 1), (1, 0, 1, 0, 0, 1)),
    (4, 5, 1, (7, 6), (1, 1), (1, 1), (1, 1), (0, 0, 0, 0)),
    (4, 6, 2, (7, 6), (1, 1), (2, 3), (1, 1), (0, 0, 0, 0)),
    (2, 3, 1, (5, 5), (1, 1), (2, 2), (1, 1), (1, 0, 0, 2)),
    (2, 3, 1, (4, 4), (4, 4), (1, 1), (1, 1), (0, 0, 0, 0)),
]


@pytest.mark.parametrize("channels, filters, group, size, kernel, strides, dilations, pads", CASES)
def test_conv_is_the_sum_over_windows(channels, filters, group, size, kernel, strides, dilations, pads):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, channels, *size)).astype(np.float32)
    w = rng.normal(size=(filters, channels // group, *kernel)).astype(np.float32)
    b = rng.normal(size=filters).astype(np.float32)
    rank = len(size)
    want = direct(x, w, strides, dilations, pads[:rank], pads[rank:], group)
    want += b.reshape(-1, *(1,) * rank)
    got = call("Conv", x, w, b, group=group, strides=strides, dilations=dilations, pads=pads)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels, filters, group, size, kernel, strides, dilations, pads", CASES)
def test_conv_integer_is_exact(channels, filters, group, size, kernel, strides, dilations, pads):
    rng = np.random.default_rng(2)
    x = rng.integers(0, 256, (1, channels, *size)).astype(np.uint8)
    w = rng.integers(-128, 128, (filters, channels // group, *kernel)).astype(np.int8)
    w_zero = rng.integers(-128, 128, filters).astype(np.int8)
    rank = len(size)
    centred_x = x.astype(np.int64) - 117
    centred_w = w.astype(np.int64) - w_zero.reshape(-1, *(1,) * (rank + 1))
    want = direct(centred_x, centred_w, strides, dilations, pads[:rank], pads[rank:], group)
    attributes = {"group": group, "strides": strides, "dilations": dilations, "pads": pads}
    got = call("ConvInteger", x, w, np.array(117, np.uint8), w_zero, **attributes)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, want.astype(np.int64))


def test_conv_integer_is_exact_where_float32_sums_are_not():
    x = np.full((1, 600, 3, 3), 255, np.uint8)
    x[0, 0, 0, 0] = 254
    w = np.full((1, 600, 3, 3), 255, np.uint8)
    assert call("ConvInteger", x, w, opset=10).item() == 600 * 9 * 255 * 255 - 255


@pytest.mark.parametrize("auto_pad, begins", [("SAME_UPPER", (0, 1)), ("SAME_LOWER", (1, 1)), ("VALID", (0, 0))])
def test_auto_pad(auto_pad, begins):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1, 2, 6, 5)).astype(np.float32)
    w = rng.normal(size=(3, 2, 3, 3)).astype(np.float32)
    # 6 by stride 2 needs one element of padding, 5 needs two
    ends = {"SAME_UPPER": (1, 1), "SAME_LOWER": (0, 1), "VALID": (0, 0)}[auto_pad]
    want = direct(x, w, (2, 2), (1, 1), begins, ends, 1)
    got = call("Conv", x, w, auto_pad=auto_pad, strides=[2, 2])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_half_precision_sums_in_float32():
    x = np.ones((1, 4096, 1, 1), np.float16)
    w = np.ones((1, 4096, 1, 1), np.float16)
    got = call("Conv", x, w)
    assert got.dtype == np.float16
    assert got.item() == 4096  # float16 sums would stop at 2048


def test_an_infinite_pixel_stays_within_its_windows():
    x = np.zeros((1, 2, 6, 6), np.float32)
    x[0, :, 0, 0] = np.inf
    for group in (1, 2):
        y = call("Conv", x, np.ones((2, 2 // group, 3, 3), np.float32), group=group, pads=[1, 1, 1, 1])
        assert np.isinf(y[:, :, :2, :2]).all()
        assert (y[:, :, 2:] == 0).all() and (y[:, :, :, 2:] == 0).all()


@pytest.mark.parametrize("batch, out, bytes_a_window", [(3, (5, 7), 10), (2, (40, 50), 50), (1, (3, 4, 300), 400)])
def test_blocks_cover_every_output_once(batch, out, bytes_a_window):
    seen = np.zeros((batch, *out), int)
    count = 0
    for images, place, run in _blocks(batch, out, bytes_a_window, 20_000):
        seen[(images, *place)] += 1
        seen.reshape(batch, -1)[images, run] += 1
        count += 1
    assert (seen == 2).all()
    assert count > 1 or batch * np.prod(out) * bytes_a_window <= 20_000


def test_large_columns_are_split_without_a_seam():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(1, 32, 90, 70)).astype(np.float32)  # 7 MB of columns
    w = rng.normal(size=(4, 32, 3, 3)).astype(np.float32)
    whole = call("Conv", x, w)
    rows = [call("Conv", np.ascontiguousarray(x[:, :, r : r + 3]), w) for r in range(88)]
    np.testing.assert_allclose(whole, np.concatenate(rows, axis=2), rtol=1e-3, atol=1e-4)


def test_an_empty_batch():
    y = call("Conv", np.zeros((0, 3, 5, 5), np.float32), np.zeros((2, 3, 3, 3), np.float32))
    assert y.shape == (0, 2, 3, 3)
    y = call("ConvTranspose", np.zeros((0, 3, 5, 5), np.float32), np.zeros((3, 2, 3, 3), np.float32))
    assert y.shape == (0, 2, 7, 7)


@pytest.mark.parametrize(
    "x, w, attributes, text",
    [
        ((1, 3, 5, 5), (2, 4, 3, 3), {}, "Input channels"),
        ((1, 4, 5, 5), (3, 2, 3, 3), {"group": 2}, "divisible by group"),
        ((1, 3, 5, 5), (2, 3, 3, 3), {"kernel_shape": [2, 2]}, "kernel_shape"),
        ((1, 3, 2, 5), (2, 3, 3, 3), {}, "smaller than the kernel"),
        ((1, 3, 5, 5), (2, 3, 3, 3), {"strides": [1]}, "strides"),
        ((1, 3, 5, 5), (2, 3, 3, 3), {"pads": [1, 1, -1, 1]}, "negative"),
        ((1, 3, 5, 5), (2, 3, 3, 3), {"auto_pad": "SAME"}, "auto_pad"),
        ((3, 5), (2, 3), {}, "rank"),
    ],
)
def test_contradictions(x, w, attributes, text):
    with pytest.raises(InvalidInput, match=text):
        call("Conv", np.zeros(x, np.float32), np.zeros(w, np.float32), **attributes)


def transposed(x, w, strides, dilations, group):
    """Each input element adds its filter to the output; nothing is cut off."""
    batch, channels, *size = x.shape
    per_out, kernel = w.shape[1], w.shape[2:]
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(size, strides, kernel, dilations, strict=True)]
    y = np.zeros((batch, per_out * group, *full))
    for c, place in product(range(channels), product(*map(range, size))):
        first = c // (channels // group) * per_out
        where = tuple(
            slice(p * s, p * s + (k - 1) * d + 1, d)
            for p, s, k, d in zip(place, strides, kernel, dilations, strict=True)
        )
        y[(slice(None), slice(first, first + per_out), *where)] += np.multiply.outer(
            x[(slice(None), c, *place)].astype(np.float64), w[c]
        )
    return y


@pytest.mark.parametrize(
    "channels, filters, group, size, kernel, strides, dilations",
    [
        (2, 3, 1, (5,), (3,), (2,), (1,)),
        (4, 2, 2, (3, 4), (3, 2), (2, 3), (1, 2)),
        (3, 1, 3, (3, 4), (2, 2), (2, 2), (1, 1)),
        (2, 2, 1, (2, 3, 2), (2, 1, 3), (1, 2, 1), (2, 1, 1)),
    ],
)
def test_conv_transpose_scatters_filters(channels, filters, group, size, kernel, strides, dilations):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, channels, *size)).astype(np.float32)
    w = rng.normal(size=(channels, filters, *kernel)).astype(np.float32)
    b = rng.normal(size=filters * group).astype(np.float32)
    rank = len(size)
    want = transposed(x, w, strides, dilations, group) + b.reshape(-1, *(1,) * rank)
    common = {"group": group, "strides": strides, "dilations": dilations}
    np.testing.assert_allclose(call("ConvTranspose", x, w, b, **common), want, rtol=1e-4, atol=1e-4)
    # pads cut; output_padding appends what only the bias reaches
    got = call("ConvTranspose", x, w, b, **common, pads=[1] + [0] * (2 * rank - 1))
    np.testing.assert_allclose(got, want[:, :, 1:], rtol=1e-4, atol=1e-4)
    got = call("ConvTranspose", x, w, b, **common, output_padding=[1] + [0] * (rank - 1))
    np.testing.assert_allclose(got[:, :, :-1], want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got[:, :, -1], np.broadcast_to(b.reshape(-1, *(1,) * (rank - 1)), got[:, :, -1].shape))


@pytest.mark.parametrize("auto_pad, first", [("SAME_UPPER", 0), ("SAME_LOWER", 1), ("NOTSET", 1)])
def test_conv_transpose_shares_an_odd_padding(auto_pad, first):
    x = np.arange(1, 4, dtype=np.float32).reshape(1, 1, 3)
    w = np.array([[[1, 10, 100]]], np.float32)
    want = transposed(x, w, (2,), (1,), 1)[:, :, first : first + 6]  # 7 elements, of which 6 are asked for
    given = {} if auto_pad.startswith("SAME") else {"output_shape": [6]}
    got = call("ConvTranspose", x, w, strides=[2], auto_pad=auto_pad, **given)
    np.testing.assert_array_equal(got, want)


def test_qlinear_conv_rounds_half_to_even_and_saturates():
    x = np.array([[[0, 1, 2, 3, 4, 255]]], np.uint8)
    one = np.array(1, np.float32)
    zero = np.array(0, np.uint8)
    w = np.array([[[1]], [[-1]]], np.int8)
    scales = np.array([0.5, 1.0], np.float32)
    b = np.array([1, 0], np.int32)
    y = call(
        *("QLinearConv", x, one, zero, w, scales, np.zeros(2, np.int8), one, np.array(3, np.uint8), b),
        opset=10,
    )
    assert y.dtype == np.uint8
    # (x + 1) / 2 + 3 and 3 - x
    np.testing.assert_array_equal(y, [[[3, 4, 5, 5, 5, 131], [3, 2, 1, 0, 0, 0]]])
