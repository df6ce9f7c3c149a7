"""What is asked of cuDNN, and the graphs of its frontend that say so.

Tensors of a graph have the numbers of ``UIDS``, by which a run finds their addresses. Dimensions and strides of results
are set as they lie here: cuDNN would choose its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: number of a tensor in its graph, by its name
UIDS = {name: 1 + i for i, name in enumerate(("x", "w", "bias", "z", "y", "q", "k", "v", "o", "n_queries", "n_keys"))}
#: name of cuDNN's type, by numpy's
DTYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "HALF", "bfloat16": "BFLOAT16", "int32": "INT32"}
CONVOLUTION_DTYPES = ("float32", "float64", "float16", "bfloat16")
ATTENTION_DTYPES = ("float16", "bfloat16")
#: what is done to a convolution's sums: how many numbers it takes
ACTIVATIONS = {"": 0, "relu": 0, "leaky_relu": 1, "clip": 2, "sigmoid": 0, "tanh": 0, "swish": 0}

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """y = activation(convolution(x, w) + bias + z), by sizes and strides in elements.

    x [N, C, …], w [K, C / groups, …], y and z [N, K, …], bias [K]; one to three spatial axes. ``transposed``:
    w [C, K / groups, …], y is what a convolution would have made x of. Pads are zeros before and after each axis.
    """

    dtype: str
    x: Sizes
    w: Sizes
    y: Sizes
    x_strides: Sizes
    w_strides: Sizes
    y_strides: Sizes
    steps: Sizes
    dilations: Sizes
    begins: Sizes
    ends: Sizes
    transposed: bool = False
    bias: bool = False
    z_strides: Sizes | None = None
    activation: str = ""
    parameters: tuple[float, ...] = ()
    tf32: bool = False  # float32 operands may be rounded to 10 bits of mantissa

    def __post_init__(self) -> None:
        rank = len(self.x)
        if self.dtype not in CONVOLUTION_DTYPES:
            raise ValueError(f"no convolution of {self.dtype}: there are {', '.join(CONVOLUTION_DTYPES)}")
        if not 3 <= rank <= 5:
            raise ValueError(f"convolutions have one to three spatial axes: {self}")
        shapes = [self.w, self.y, self.x_strides, self.w_strides, self.y_strides, self.z_strides or self.y]
        windows = (self.steps, self.dilations, self.begins, self.ends)
        if any(len(one) != rank for one in shapes) or any(len(one) != rank - 2 for one in windows):
            raise ValueError(f"sizes of a convolution disagree about its axes: {self}")
        if len(self.parameters) != ACTIVATIONS.get(self.activation, -1):
            raise ValueError(f"unknown activation {self.activation!r} with {self.parameters}")
        image, made = (self.y, self.x) if self.transposed else (self.x, self.y)
        if min(*self.x, *self.w, *self.y) < 1 or min(*self.begins, *self.ends, 0) < 0:
            raise ValueError(f"cuDNN has no empty convolutions, and no negative pads: {self}")
        if (
            self.x[0] != self.y[0]
            or self.w[0] != made[1]
            or image[1] % self.w[1]
            or self.w[0] % (image[1] // self.w[1])
        ):
            raise ValueError(f"batches, channels or groups of a convolution disagree: {self}")
        for i, (size, out, kernel) in enumerate(zip(image[2:], made[2:], self.w[2:], strict=True)):
            reach = (kernel - 1) * self.dilations[i] + 1
            if (size + self.begins[i] + self.ends[i] - reach) // self.steps[i] + 1 != out:
                raise ValueError(f"axis {i} of a convolution doesn't come out as {out}: {self}")

    def __str__(self) -> str:
        kind = "transposed convolution" if self.transposed else "convolution"
        extra = " + ".join(filter(None, ["bias" if self.bias else "", "z" if self.z_strides else "", self.activation]))
        return (
            f"{kind} of {self.dtype} {list(self.x)} (strides {list(self.x_strides)}) with {list(self.w)} as"
            f" {list(self.y)} (strides {list(self.y_strides)}), steps {list(self.steps)},"
            f" dilations {list(self.dilations)}, pads {list(self.begins)} and {list(self.ends)}"
            f"{f', then {extra}' if extra else ''}"
        )


@dataclass(frozen=True, slots=True)
class AttentionProblem:
    """o = softmax(scale · q · kᵀ + bias) · v, by strides in elements of [B, H, S, D].

    q [B, H, S, D], k [B, G, T, D], v [B, G, T, C], o [B, H, S, C]; heads of a group lie next to each other. bias
    [B or 1, H or 1, S, T]. ``causal``: query n sees keys up to n ("first"), or up to n + T - S ("last"). ``lengths``:
    int32 [B] of queries and of keys that there are, for each entry.
    """

    dtype: str
    batch: int
    heads: int
    groups: int
    queries: int
    keys: int
    depth: int
    columns: int
    q: Sizes
    k: Sizes
    v: Sizes
    o: Sizes
    scale: float
    causal: str = ""
    bias: tuple[Sizes, Sizes] | None = None  # shape, strides
    bias_dtype: str = ""
    lengths: bool = False

    def __post_init__(self) -> None:
        sizes = (self.batch, self.heads, self.groups, self.queries, self.keys, self.depth, self.columns)
        if min(sizes) < 1 or self.heads % self.groups:
            raise ValueError(f"sizes of an attention disagree: {self}")
        if self.causal not in ("", "first", "last"):
            raise ValueError(f"unknown causal mask {self.causal!r}: there are first, last")
        if any(len(one) != 4 for one in (self.q, self.k, self.v, self.o)):
            raise ValueError(f"strides of an attention are those of four dimensions: {self}")
        if self.bias is not None:
            shape, strides = self.bias
            whole = (self.batch, self.heads, self.queries, self.keys)
            fits = len(shape) == len(strides) == 4 and all(n in (1, m) for n, m in zip(shape, whole, strict=True))
            if not fits or shape[2:] != whole[2:]:
                raise ValueError(f"a bias {shape} is none of {whole}")

    def __str__(self) -> str:
        extra = [f"causal ({self.causal})" if self.causal else "", "lengths" if self.lengths else ""]
        extra += [f"bias {list(self.bias[0])}"] if self.bias else []
        added = ", ".join(filter(None, extra))
        return (
            f"attention of {self.dtype}: batch {self.batch}, heads {self.heads} over {self.groups},"
            f" {self.queries} queries, {self.keys} keys, sizes {self.depth} and {self.columns}"
            f"{f', with {added}' if added else ''}"
        )


def refusal(problem: ConvProblem | AttentionProblem, compute_capability: int) -> str:
    """Why cuDNN won't do it, as far as its documentation says; "" where it doesn't say so."""
    if isinstance(problem, ConvProblem):
        epilogue = problem.bias or problem.activation or problem.z_strides
        return "convolutions of float64 have no epilogue" if problem.dtype == "float64" and epilogue else ""
    if problem.dtype not in ATTENTION_DTYPES:
        return f"attention of {problem.dtype} is no single operation of cuDNN's"
    if compute_capability < 80:
        return f"attention needs a device of compute capability 8.0, not {compute_capability / 10}"
    if problem.depth % 8 or problem.columns % 8:
        return f"attention needs heads of a multiple of 8 elements, not {problem.depth} and {problem.columns}"
    if problem.causal == "last" and problem.queries > problem.keys:
        return "attention has no more causal queries than keys"
    return ""


def graph_of(cudnn: Any, problem: ConvProblem | AttentionProblem, handle: Any = None) -> Any:
    """The frontend's graph, not validated yet."""
    io = getattr(cudnn.data_type, DTYPES[problem.dtype])
    compute = cudnn.data_type.DOUBLE if problem.dtype == "float64" else cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=io, intermediate_data_type=compute, compute_data_type=compute, handle=handle)
    if isinstance(problem, ConvProblem):
        _convolution(cudnn, graph, problem, io)
    else:
        _attention(cudnn, graph, problem, io)
    return graph


def _tensor(graph: Any, name: str, sizes: Sequence[int], strides: Sequence[int], data_type: Any) -> Any:
    made = graph.tensor(name=name, dim=list(sizes), stride=list(strides), data_type=data_type)
    made.set_uid(UIDS[name])
    return made


def _result(tensor: Any, name: str, sizes: Sequence[int], strides: Sequence[int], data_type: Any) -> None:
    tensor.set_output(True).set_data_type(data_type).set_dim(list(sizes)).set_stride(list(strides)).set_uid(UIDS[name])


def _convolution(cudnn: Any, graph: Any, p: ConvProblem, io: Any) -> None:
    # with one spatial axis: a plane of one row
    flat = len(p.x) == 3

    def sizes(given: Sizes) -> list[int]:
        return [*given[:2], 1, given[2]] if flat else list(given)

    def strides(given: Sizes, of: Sizes) -> list[int]:
        # of the one row: as if there were more, so that the layout is one that engines know
        return [*given[:2], of[2] * given[2], given[2]] if flat else list(given)

    def windows(given: Sizes, fill: int) -> list[int]:
        return [fill, *given] if flat else list(given)

    x = _tensor(graph, "x", sizes(p.x), strides(p.x_strides, p.x), io)
    w = _tensor(graph, "w", sizes(p.w), strides(p.w_strides, p.w), io)
    how = {
        "pre_padding": windows(p.begins, 0),
        "post_padding": windows(p.ends, 0),
        "stride": windows(p.steps, 1),
        "dilation": windows(p.dilations, 1),
    }
    y_sizes, y_strides = sizes(p.y), strides(p.y_strides, p.y)
    if p.transposed:
        y = graph.conv_dgrad(loss=x, filter=w, **how)
        # of all images that would have made x; where more is done, between operations too
        y.set_dim(y_sizes).set_stride(y_strides)
    else:
        y = graph.conv_fprop(image=x, weight=w, **how)
    if p.z_strides is not None:
        y = graph.add(a=y, b=_tensor(graph, "z", y_sizes, strides(p.z_strides, p.y), io))
    if p.bias:
        ones = [1] * (len(y_sizes) - 2)
        channels = [1, p.y[1], *ones]
        # channels next to each other, however the result lies
        y = graph.bias(input=y, bias=_tensor(graph, "bias", channels, [p.y[1], 1, *ones], io))
    if p.activation == "leaky_relu":
        y = graph.leaky_relu(input=y, negative_slope=p.parameters[0])
    elif p.activation == "clip":
        y = graph.relu(input=y, lower_clip=p.parameters[0], upper_clip=p.parameters[1])
    elif p.activation:
        y = getattr(graph, p.activation)(input=y)
    _result(y, "y", y_sizes, y_strides, io)


def _attention(cudnn: Any, graph: Any, p: AttentionProblem, io: Any) -> None:
    q = _tensor(graph, "q", (p.batch, p.heads, p.queries, p.depth), p.q, io)
    k = _tensor(graph, "k", (p.batch, p.groups, p.keys, p.depth), p.k, io)
    v = _tensor(graph, "v", (p.batch, p.groups, p.keys, p.columns), p.v, io)
    how: dict[str, Any] = {"attn_scale": p.scale, "generate_stats": False}
    if p.causal:
        alignment = cudnn.diagonal_alignment
        how["diagonal_alignment"] = alignment.TOP_LEFT if p.causal == "first" else alignment.BOTTOM_RIGHT
        how["diagonal_band_right_bound"] = 0
    if p.bias is not None:
        data_type = getattr(cudnn.data_type, DTYPES[p.bias_dtype or p.dtype])
        how["bias"] = _tensor(graph, "bias", *p.bias, data_type)
    if p.lengths:
        numbers = [(p.batch, 1, 1, 1), (1, 1, 1, 1), cudnn.data_type.INT32]
        how["use_padding_mask"] = True
        how["seq_len_q"] = _tensor(graph, "n_queries", *numbers)
        how["seq_len_kv"] = _tensor(graph, "n_keys", *numbers)
    o, _ = graph.sdpa(name="attention", q=q, k=k, v=v, **how)
    _result(o, "o", (p.batch, p.heads, p.queries, p.columns), p.o, io)


def nbytes_of(problem: ConvProblem | AttentionProblem) -> dict[str, int]:
    """What each of its tensors reaches over, in bytes, by name."""

    def span(sizes: Sizes, strides: Sizes, dtype: str) -> int:
        itemsize = {"float64": 8, "float32": 4, "int32": 4}.get(dtype, 2)
        return (sum((n - 1) * step for n, step in zip(sizes, strides, strict=True)) + 1) * itemsize

    p = problem
    if isinstance(p, ConvProblem):
        made = {"x": span(p.x, p.x_strides, p.dtype), "w": span(p.w, p.w_strides, p.dtype)}
        made["y"] = span(p.y, p.y_strides, p.dtype)
        if p.bias:
            made["bias"] = span(p.y[1:2], (1,), p.dtype)
        if p.z_strides is not None:
            made["z"] = span(p.y, p.z_strides, p.dtype)
        return made
    of_heads, of_groups = (p.batch, p.heads), (p.batch, p.groups)
    made = {
        "q": span((*of_heads, p.queries, p.depth), p.q, p.dtype),
        "k": span((*of_groups, p.keys, p.depth), p.k, p.dtype),
        "v": span((*of_groups, p.keys, p.columns), p.v, p.dtype),
        "o": span((*of_heads, p.queries, p.columns), p.o, p.dtype),
    }
    if p.bias is not None:
        made["bias"] = span(*p.bias, p.bias_dtype or p.dtype)
    if p.lengths:
        made |= dict.fromkeys(("n_queries", "n_keys"), 4 * p.batch)
    return made


__all__ = ["AttentionProblem", "ConvProblem", "graph_of", "nbytes_of", "refusal"]
