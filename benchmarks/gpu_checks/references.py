"""What products, convolutions and attention come to: in double precision, and as torch computes them.

Double precision is NumPy's for products and attention, torch's for convolutions. torch runs in the problem's own type;
None where it isn't there, or has no such thing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_checks.arrays import Array, torch_on

if TYPE_CHECKING:
    from collections.abc import Iterator

Views = Mapping[str, Array]


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _tensor(array: Array, double: bool = False) -> Any:
    """A torch tensor of the same elements, on the GPU where there is one; bfloat16 goes by way of float32."""
    torch, device = torch_on()
    if double:
        return torch.from_numpy(array.astype(np.float64)).to(device)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(device).to(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _home(tensor: Any) -> Array:
    found: Array = tensor.double().cpu().numpy()
    return found


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    torch, _ = torch_on()
    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [one.allow_tf32 for one in kinds]
    for one in kinds:
        one.allow_tf32 = allowed
    try:
        yield
    finally:
        for one, value in zip(kinds, before, strict=True):
            one.allow_tf32 = value


# -- products: views a [batch, rows, depth], b [batch, depth, columns], bias [columns]


def product(p: Any, views: Views) -> Array:
    wide = np.int64 if p.dtype == "int8" else np.float64
    made = p.alpha * (views["a"].astype(wide) @ views["b"].astype(wide))
    if p.bias:
        made = made + views["bias"].astype(wide)
    if p.activation == "relu":
        made = np.maximum(made, 0)
    if p.activation == "gelu_tanh":
        made = 0.5 * made * (1 + np.tanh(np.sqrt(2 / np.pi) * (made + 0.044715 * made**3)))
    return np.asarray(made)


def torch_product(p: Any, views: Views) -> Array | None:
    if not _has_torch() or p.dtype == "int8":
        return None
    torch, _ = torch_on()
    with _tf32(p.tf32):
        made = torch.matmul(_tensor(views["a"]), _tensor(views["b"])) * p.alpha
        if p.bias:
            made = made + _tensor(views["bias"])
        if p.activation == "relu":
            made = torch.relu(made)
        if p.activation == "gelu_tanh":
            made = torch.nn.functional.gelu(made, approximate="tanh")
        return _home(made)


# -- convolutions: views x, w, y, bias, z as the problem has them


def convolution(p: Any, views: Views) -> Array:
    """Raises Skipped without torch."""
    return _home(_convolved(p, {name: _tensor(view, double=True) for name, view in views.items()}))


def torch_convolution(p: Any, views: Views) -> Array | None:
    if not _has_torch():
        return None
    with _tf32(p.tf32):
        return _home(_convolved(p, {name: _tensor(view) for name, view in views.items()}))


def _convolved(p: Any, tensors: Mapping[str, Any]) -> Any:
    torch, _ = torch_on()
    functions = torch.nn.functional
    x, w, axes = tensors["x"], tensors["w"], len(p.x) - 2
    if p.transposed:
        run = getattr(functions, f"conv_transpose{axes}d")
        y = run(x, w, stride=p.steps, dilation=p.dilations, groups=p.y[1] // p.w[1])
        # begins are cut off; at the end as much as is too long, or zeros where it is too short
        for axis, begin in enumerate(p.begins):
            y = y.narrow(2 + axis, begin, y.shape[2 + axis] - begin)
        pads = [(0, wanted - had) for wanted, had in zip(p.y[2:], y.shape[2:], strict=True)]
        y = functions.pad(y, [n for pair in reversed(pads) for n in pair])
    else:
        pads = [n for pair in reversed(list(zip(p.begins, p.ends, strict=True))) for n in pair]
        run = getattr(functions, f"conv{axes}d")
        y = run(functions.pad(x, pads), w, stride=p.steps, dilation=p.dilations, groups=p.x[1] // p.w[1])
    if p.z_strides is not None:
        y = y + tensors["z"]
    if p.bias:
        y = y + tensors["bias"].reshape(-1, *[1] * axes)
    return {
        "": lambda: y,
        "relu": lambda: torch.relu(y),
        "leaky_relu": lambda: functions.leaky_relu(y, *p.parameters),
        "clip": lambda: torch.clamp(y, *p.parameters),
        "sigmoid": lambda: torch.sigmoid(y),
        "tanh": lambda: torch.tanh(y),
    }[p.activation]()


# -- attention: views q [B, H, S, D], k [B, G, T, D], v [B, G, T, C], bias [B or 1, H or 1, S, T], n_queries, n_keys [B]


def _mask(p: Any, views: Views) -> Array:
    """What queries see: [B, 1, S, T]."""
    queries, keys = np.arange(p.queries)[:, None], np.arange(p.keys)[None]
    seen = np.ones((p.batch, 1, p.queries, p.keys), bool)
    if p.lengths:
        seen &= keys < views["n_keys"].reshape(-1, 1, 1, 1)
    if p.causal == "first":
        seen &= keys <= queries
    if p.causal == "last":
        seen &= keys <= queries + p.keys - p.queries
    return seen


def attention(p: Any, views: Views) -> Array:
    q, k, v = (views[name].astype(np.float64) for name in "qkv")
    k, v = (np.repeat(one, p.heads // p.groups, 1) for one in (k, v))
    scores = p.scale * (q @ k.swapaxes(2, 3))
    if p.bias is not None:
        scores = scores + views["bias"].astype(np.float64)
    scores = np.where(_mask(p, views), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True) @ v)


def torch_attention(p: Any, views: Views) -> Array | None:
    if not _has_torch() or p.lengths:
        return None
    torch, device = torch_on()
    q, k, v = (_tensor(np.array(views[name])) for name in "qkv")
    k, v = (one.repeat_interleave(p.heads // p.groups, 1) for one in (k, v))
    mask = None
    if p.causal or p.bias is not None:
        mask = torch.zeros((p.batch, 1, p.queries, p.keys), dtype=q.dtype, device=device)
        mask = mask.masked_fill(~torch.from_numpy(_mask(p, views)).to(device), float("-inf"))
        if p.bias is not None:
            mask = mask + _tensor(np.array(views["bias"]))
    return _home(torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=p.scale))
