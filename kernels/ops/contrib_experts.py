"""onnxruntime's mixtures of experts: MoE, QMoE, MoEGroupRouter.

N: tokens, E: experts, H: hidden size, I: size inside of an expert.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput, MissingKernel
from distort.kernels.ops.activations import gelu
from distort.kernels.ops.contrib_matmul import unpacked
from distort.kernels.ops.matmul import is_narrow, product
from distort.kernels.registry import kernel

Array = Any
_MS = "com.microsoft"
#: weights of expert e in float32, [rows, columns]
Weights = Callable[[int], Array]


def _sigmoid(xp: ModuleType, x: Array) -> Array:
    half = x.dtype.type(0.5)
    return xp.tanh(x * half) * half + half


class Activation:
    """What lies between the two layers of an expert."""

    def __init__(self, name: str, fusion: int, alpha: float, beta: float, limit: float | None):
        if name not in ("relu", "relu2", "gelu", "silu", "swiglu", "geglu", "identity"):
            raise InvalidInput(f"activation_type must be relu, gelu, silu, swiglu or identity, got {name!r}")
        if fusion not in (0, 1, 2) or (name == "geglu" and not fusion):
            raise InvalidInput(f"swiglu_fusion {fusion} for {name}")
        self.gated = name in ("swiglu", "geglu")
        self.fused = self.gated and fusion > 0
        self._name, self._fusion, self._alpha, self._beta, self._limit = name, fusion, alpha, beta, limit

    def __call__(self, xp: ModuleType, h: Array, up: Array | None) -> Array:
        """h [n, I] or, of a gate and what it lets through, [n, 2 I]; ``up`` where that has a layer of its own."""
        if self._name == "relu":
            return xp.maximum(h, 0)
        if self._name == "relu2":
            return xp.square(xp.maximum(h, 0))
        if self._name == "gelu":
            return gelu(xp, h, approximate="tanh")
        if self._name == "silu":
            return h * _sigmoid(xp, h)
        if self._name == "identity":
            return h
        if self._fusion == 1:
            h, up = h[:, ::2], h[:, 1::2]
        elif self._fusion == 2:
            half = h.shape[1] // 2
            h, up = h[:, :half], h[:, half:]
        if up is None:
            raise InvalidInput("swiglu that is not fused needs fc3_experts_weights")
        if self._name == "geglu":
            return gelu(xp, h, approximate="tanh") * up
        if self._limit is not None:
            h, up = xp.minimum(h, self._limit), xp.clip(up, -self._limit, self._limit)
        return h * _sigmoid(xp, h * h.dtype.type(self._alpha)) * (up + h.dtype.type(self._beta))


def _routed(xp: ModuleType, router: Array, k: int, normalize: int, weights: Array | None) -> tuple[Array, Array]:
    """([N, k] experts, [N, k] shares) of tokens: a softmax over all experts, or over those chosen where normalized."""
    order = xp.argsort(-router, axis=1, kind="stable")[:, :k]
    if weights is not None:
        shares = xp.take_along_axis(weights.astype(xp.float32), order, axis=1)
        if normalize:
            total = shares.sum(axis=1, keepdims=True)
            shares = shares / xp.where(total == 0, 1, total)
        return order, shares
    scores = xp.exp(router - router.max(axis=1, keepdims=True))
    chosen = xp.take_along_axis(scores, order, axis=1)
    return order, chosen / (chosen if normalize else scores).sum(axis=1, keepdims=True)


def _mixture(
    xp: ModuleType,
    x: Array,
    router: Array,
    layers: tuple[Weights, Weights, Weights | None],
    biases: tuple[Array | None, Array | None, Array | None],
    activation: Activation,
    k: int,
    normalize: int,
    router_weights: Array | None = None,
) -> Array:
    """Each expert works on the tokens that chose it, all at once."""
    if x.ndim not in (2, 3) or router.ndim != 2:
        raise InvalidInput(f"input {list(x.shape)} must have 2 or 3 dimensions, router_probs {list(router.shape)} 2")
    rows = x.reshape(-1, x.shape[-1])
    if router.shape[0] != rows.shape[0] or not 1 <= k <= router.shape[1]:
        raise InvalidInput(f"router_probs {list(router.shape)} for {rows.shape[0]} tokens and the {k} best experts")
    wide = rows.astype(xp.float32) if is_narrow(rows.dtype) else rows
    chosen, shares = _routed(xp, router.astype(xp.float32), k, normalize, router_weights)
    fc1, fc2, fc3 = layers
    y = xp.zeros_like(wide)
    for expert in xp.unique(chosen).tolist():
        tokens, place = xp.nonzero(chosen == expert)
        part = wide[tokens]
        h = _layer(xp, part, fc1(expert), biases[0], expert)
        up = None if fc3 is None or activation.fused else _layer(xp, part, fc3(expert), biases[2], expert)
        h = activation(xp, h, up)
        if up is not None and not activation.gated:
            h = h * up
        out = _layer(xp, h, fc2(expert), biases[1], expert)
        y[tokens] += out * shares[tokens, place][:, None].astype(out.dtype)  # a token chooses an expert once
    return y.astype(x.dtype, copy=False).reshape(x.shape)


def _layer(xp: ModuleType, x: Array, w: Array, bias: Array | None, expert: int) -> Array:
    if x.shape[1] != w.shape[1]:
        raise InvalidInput(f"weights {list(w.shape)} of expert {expert} for inputs of size {x.shape[1]}")
    y = product(xp, x, w.T)
    return y if bias is None else y + bias[expert].astype(y.dtype)


def _plain(xp: ModuleType, weights: Array | None, experts: int, name: str) -> Weights | None:
    if weights is None:
        return None
    if weights.ndim != 3 or weights.shape[0] != experts:
        raise InvalidInput(f"{name} of shape {list(weights.shape)} for {experts} experts")
    return lambda e: weights[e].astype(xp.float32) if is_narrow(weights.dtype) else weights[e]


@kernel("MoE", domain=_MS)
def mixture_of_experts(
    xp: ModuleType,
    x: Array,
    router_probs: Array,
    fc1_experts_weights: Array,
    fc1_experts_bias: Array | None,
    fc2_experts_weights: Array,
    fc2_experts_bias: Array | None = None,
    fc3_experts_weights: Array | None = None,
    fc3_experts_bias: Array | None = None,
    *,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    activation_type: str = "relu",
    k: int = 1,
    normalize_routing_weights: int = 0,
    swiglu_fusion: int = 0,
    swiglu_limit: float | None = None,
    swiglu_limit_after_activation: int = 0,
    use_sparse_mixer: int = 0,
) -> Array:
    """x [N, H] or [B, S, H], router_probs [N, E], weights [E, I, H] and [E, H, I]."""
    if use_sparse_mixer or swiglu_limit_after_activation:
        raise MissingKernel("use_sparse_mixer and swiglu_limit_after_activation have no kernel on the CPU")
    experts = router_probs.shape[-1]
    fc1 = _plain(xp, fc1_experts_weights, experts, "fc1_experts_weights")
    fc2 = _plain(xp, fc2_experts_weights, experts, "fc2_experts_weights")
    fc3 = _plain(xp, fc3_experts_weights, experts, "fc3_experts_weights")
    if fc1 is None or fc2 is None:
        raise InvalidInput("fc1_experts_weights and fc2_experts_weights are needed")
    activation = Activation(activation_type, swiglu_fusion, activation_alpha, activation_beta, swiglu_limit)
    biases = fc1_experts_bias, fc2_experts_bias, fc3_experts_bias
    return _mixture(xp, x, router_probs, (fc1, fc2, fc3), biases, activation, k, normalize_routing_weights)


def _dequantized(
    xp: ModuleType,
    weights: Array | None,
    scales: Array | None,
    zeros: Array | None,
    bits: int,
    block_size: int,
    name: str,
) -> Weights | None:
    """(w - zero point) * scale, a scale a row or a block of columns; bits packed from the lowest on."""
    if weights is None:
        return None
    if bits not in (2, 4, 8):
        raise InvalidInput(f"{name} in {bits} bits; 2, 4 and 8 are known")
    if scales is None or weights.ndim != 3 or scales.shape[:2] != weights.shape[:2]:
        shape = None if scales is None else list(scales.shape)
        raise InvalidInput(f"{name} of shape {list(weights.shape)} with scales {shape}")

    def of(expert: int) -> Array:
        w = unpacked(xp, weights[expert], bits).astype(xp.float32)
        rows, columns = w.shape
        scale = scales[expert].astype(xp.float32).reshape(rows, -1)
        if zeros is None:
            zero = xp.float32(1 << (bits - 1))
        elif block_size:
            zero = unpacked(xp, zeros[expert], bits)[:, : scale.shape[1]].astype(xp.float32)
        else:
            zero = unpacked(xp, zeros[expert].reshape(1, -1), bits).reshape(-1)[:rows, None].astype(xp.float32)
        if block_size:
            if columns % block_size or scale.shape[1] != columns // block_size:
                raise InvalidInput(
                    f"{name}: {columns} columns in blocks of {block_size} with scales {list(scales.shape)}"
                )
            blocks = w.reshape(rows, -1, block_size)
            blocks -= zero if zeros is None else zero[..., None]
            blocks *= scale[..., None]
            return blocks.reshape(rows, columns)
        return (w - zero) * scale

    return of


@kernel("QMoE", domain=_MS)
def quantized_mixture_of_experts(
    xp: ModuleType,
    x: Array,
    router_probs: Array,
    fc1_experts_weights: Array,
    fc1_scales: Array | None,
    fc1_experts_bias: Array | None,
    fc2_experts_weights: Array,
    fc2_scales: Array | None = None,
    fc2_experts_bias: Array | None = None,
    fc3_experts_weights: Array | None = None,
    fc3_scales: Array | None = None,
    fc3_experts_bias: Array | None = None,
    fc1_zero_points: Array | None = None,
    fc2_zero_points: Array | None = None,
    fc3_zero_points: Array | None = None,
    router_weights: Array | None = None,
    fc1_global_scale: Array | None = None,
    fc2_global_scale: Array | None = None,
    fc1_act_scale: Array | None = None,
    fc2_act_scale: Array | None = None,
    fc1_act_block_scale: Array | None = None,
    fc2_act_block_scale: Array | None = None,
    *,
    accuracy_level: int = 0,
    activation_alpha: float = 1.0,
    activation_beta: float = 0.0,
    activation_type: str = "relu",
    block_size: int = 0,
    expert_weight_bits: int = 4,
    fc1_expert_weight_bits: int | None = None,
    fc2_expert_weight_bits: int | None = None,
    fc3_expert_weight_bits: int | None = None,
    k: int = 1,
    normalize_routing_weights: int = 0,
    quant_type: str = "int",
    swiglu_fusion: int = 0,
    swiglu_limit: float | None = None,
    swiglu_limit_after_activation: int = 0,
    use_sparse_mixer: int = 0,
    weights_prepacked: int = -1,
) -> Array:
    """As MoE, with weights [E, rows, columns * bits / 8] in integers; an expert's are widened when it is used."""
    if quant_type != "int":
        raise MissingKernel(f"quant_type {quant_type!r} has no kernel on the CPU")
    if use_sparse_mixer or swiglu_limit_after_activation:
        raise MissingKernel("use_sparse_mixer and swiglu_limit_after_activation have no kernel on the CPU")
    layers = [
        _dequantized(xp, w, s, z, bits or expert_weight_bits, block_size, f"fc{number}_experts_weights")
        for number, w, s, z, bits in (
            (1, fc1_experts_weights, fc1_scales, fc1_zero_points, fc1_expert_weight_bits),
            (2, fc2_experts_weights, fc2_scales, fc2_zero_points, fc2_expert_weight_bits),
            (3, fc3_experts_weights, fc3_scales, fc3_zero_points, fc3_expert_weight_bits),
        )
    ]
    activation = Activation(activation_type, swiglu_fusion, activation_alpha, activation_beta, swiglu_limit)
    if layers[0] is None or layers[1] is None:
        raise InvalidInput("fc1_experts_weights and fc2_experts_weights are needed")
    return _mixture(
        xp,
        x,
        router_probs,
        (layers[0], layers[1], layers[2]),
        (fc1_experts_bias, fc2_experts_bias, fc3_experts_bias),
        activation,
        k,
        # onnxruntime's CPU kernel takes the softmax over the chosen ones, whatever the attribute says
        normalize_routing_weights if router_weights is not None else 1,
        router_weights,
    )


@kernel("MoEGroupRouter", domain=_MS)
def group_router(
    xp: ModuleType,
    logits: Array,
    expert_bias: Array,
    projection_weight: Array | None = None,
    *,
    group_topk: int = 2,
    n_group: int = 1,
    router_sentinel: float = -10000.0,
    top_k: int,
    topk_group: int = 1,
    wanted: tuple[bool, ...] = (True,),
) -> tuple[Array | None, ...]:
    """Outputs: log of the sigmoids of the chosen experts [N, E]; or all sigmoids with and without the bias."""
    dtype = logits.dtype
    rows = logits.reshape(-1, logits.shape[-1]).astype(xp.float32)
    if projection_weight is not None:
        rows = product(xp, rows, projection_weight.astype(xp.float32).T)
    experts = rows.shape[1]
    if expert_bias.shape != (experts,) or n_group < 1 or experts % n_group or not 1 <= topk_group <= n_group:
        raise InvalidInput(
            f"{experts} experts in {n_group} groups, {topk_group} active, bias {list(expert_bias.shape)}"
        )
    if not 1 <= top_k <= topk_group * (experts // n_group) or group_topk < 1:
        raise InvalidInput(f"top_k {top_k} of {topk_group} groups of {experts // n_group}")
    with np.errstate(over="ignore"):
        scores = 1 / (1 + xp.exp(-rows))
    biased = scores + expert_bias
    if len(wanted) > 1 and any(wanted[1:]):
        if wanted[0] or n_group != 1 or topk_group != 1:
            raise InvalidInput("full scores need one group and come without router_probs")
        return None, biased, scores
    groups = biased.reshape(len(rows), n_group, -1)
    best = -xp.sort(-groups, axis=2)[:, :, :group_topk].sum(axis=2)
    active = xp.argsort(-best, axis=1, kind="stable")[:, :topk_group]
    allowed = xp.zeros((len(rows), n_group), bool)
    xp.put_along_axis(allowed, active, True, axis=1)
    candidates = xp.where(xp.repeat(allowed, experts // n_group, axis=1), biased, -xp.inf)
    chosen = xp.argsort(-candidates, axis=1, kind="stable")[:, :top_k]
    result = xp.full(rows.shape, router_sentinel, xp.float32)
    picked = xp.take_along_axis(scores, chosen, axis=1)
    xp.put_along_axis(result, chosen, xp.log(xp.maximum(picked, xp.float32(1e-20))), axis=1)
    return result.astype(dtype), None, None
