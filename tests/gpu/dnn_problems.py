"""Convolutions and attentions that frontends of cuDNN are given."""

from __future__ import annotations

from typing import Any

from distort.kernels.cuda.dnn_graphs import AttentionProblem, ConvProblem


def strides_of(shape: tuple[int, ...], last: bool = False) -> tuple[int, ...]:
    """Contiguous; ``last``: with channels as the last dimension."""
    order = [0, *range(2, len(shape)), 1] if last else list(range(len(shape)))
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


def conv(
    dtype: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    *,
    steps: tuple[int, ...] = (),
    dilations: tuple[int, ...] = (),
    begins: tuple[int, ...] = (),
    ends: tuple[int, ...] = (),
    transposed: bool = False,
    extra: tuple[int, ...] = (),
    last: bool = False,
    z: bool = False,
    **more: Any,
) -> ConvProblem:
    """A problem with the sizes that follow."""
    n = len(x) - 2
    steps, dilations = steps or (1,) * n, dilations or (1,) * n
    begins, ends, extra = begins or (0,) * n, ends or (0,) * n, extra or (0,) * n
    reach = [(k - 1) * d + 1 for k, d in zip(w[2:], dilations, strict=True)]
    if transposed:
        groups = more.pop("groups", 1)
        size = [
            (m - 1) * s + r - b - e + f
            for m, s, r, b, e, f in zip(x[2:], steps, reach, begins, ends, extra, strict=True)
        ]
        y = (x[0], w[1] * groups, *size)
    else:
        size = [(m + b + e - r) // s + 1 for m, s, r, b, e in zip(x[2:], steps, reach, begins, ends, strict=True)]
        y = (x[0], w[0], *size)
    strides = [strides_of(shape, last) for shape in (x, w, y)]
    return ConvProblem(
        dtype,
        x,
        w,
        y,
        *strides,
        steps,
        dilations,
        begins,
        ends,
        transposed,
        z_strides=strides[2] if z else None,
        **more,
    )


#: what both the frontend that is here and the real one are given
CONVOLUTIONS = {
    "plain": conv("float32", (2, 3, 7, 6), (4, 3, 3, 3)),
    "one axis": conv("float32", (2, 3, 9), (4, 3, 3), begins=(1,), ends=(2,), steps=(2,)),
    "one axis, channels last": conv("float16", (2, 3, 9), (4, 3, 3), begins=(1,), ends=(2,), last=True),
    "three axes": conv("float32", (1, 2, 4, 5, 6), (3, 2, 2, 3, 1), begins=(0, 1, 0), ends=(1, 1, 0), steps=(1, 2, 2)),
    "uneven pads": conv("float32", (1, 2, 5, 5), (2, 2, 3, 3), begins=(0, 2), ends=(1, 0)),
    "dilated": conv("float64", (1, 2, 9, 8), (2, 2, 3, 2), dilations=(2, 3)),
    "groups": conv("float32", (2, 6, 5, 5), (4, 3, 3, 3), begins=(1, 1), ends=(1, 1)),
    "depthwise": conv("float32", (1, 4, 6, 6), (4, 1, 3, 3), steps=(2, 2), tf32=True),
    "channels last": conv("float16", (2, 8, 5, 6), (16, 8, 3, 3), begins=(1, 1), ends=(1, 1), last=True),
    "bias and relu": conv("float16", (1, 8, 5, 5), (8, 8, 1, 1), bias=True, activation="relu", last=True),
    "all": conv("bfloat16", (1, 8, 5, 5), (8, 8, 3, 3), bias=True, z=True, activation="relu"),
    "one axis, all": conv("float32", (1, 4, 9), (4, 4, 3), bias=True, z=True, activation="relu"),
    "leaky": conv("float32", (1, 2, 5, 5), (3, 2, 3, 3), activation="leaky_relu", parameters=(0.1,)),
    "clipped": conv("float32", (1, 2, 5, 5), (3, 2, 3, 3), activation="clip", parameters=(0.0, 6.0)),
    "sigmoid": conv("float32", (1, 2, 5, 5), (3, 2, 3, 3), activation="sigmoid"),
    "swish": conv("float16", (1, 8, 5, 5), (8, 8, 3, 3), bias=True, activation="swish", last=True),
    "tanh": conv("float32", (1, 2, 5, 5), (3, 2, 3, 3), bias=True, activation="tanh"),
    "transposed": conv("float32", (2, 4, 4, 5), (4, 3, 3, 2), steps=(2, 2), begins=(1, 0), transposed=True),
    "transposed, groups": conv("float32", (1, 4, 4, 4), (4, 2, 3, 3), groups=2, steps=(2, 1), transposed=True),
    "transposed, longer": conv(
        "float32", (1, 4, 4), (4, 2, 3), steps=(2,), begins=(1,), ends=(1,), extra=(1,), transposed=True
    ),
    "transposed, three axes": conv("float32", (1, 2, 3, 3, 3), (2, 3, 2, 2, 2), steps=(2, 2, 2), transposed=True),
    "transposed, dilated": conv(
        "float32", (1, 2, 4, 4), (2, 3, 2, 3), dilations=(2, 1), bias=True, activation="relu", transposed=True
    ),
}


def attention(dtype: str = "float16", *, bias: tuple[int, int] | None = None, flat: bool = False, **more: Any) -> Any:
    sizes = {"batch": 2, "heads": 4, "groups": 2, "queries": 3, "keys": 5, "depth": 8, "columns": 16, "scale": 0.3}
    sizes |= more
    b, h, g, s, t, d, c = (int(sizes[n]) for n in ("batch", "heads", "groups", "queries", "keys", "depth", "columns"))

    def strides(heads: int, steps: int, size: int) -> tuple[int, ...]:
        return (heads * steps * size, size, heads * size, 1) if flat else strides_of((b, heads, steps, size))

    if bias is not None:
        shape = (*bias, s, t)
        sizes["bias"] = (shape, strides_of(shape))
    return AttentionProblem(
        dtype, q=strides(h, s, d), k=strides(g, t, d), v=strides(g, t, c), o=strides(h, s, c), **sizes
    )
