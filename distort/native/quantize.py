"""Quantization of weights by blocks, as onnxruntime's tools call it: results go into arrays that the caller made.

K: rows of the weight (what a product sums over), N: its columns. A block is ``block_size`` values of one column.
Codes of 4 bits lie two in a byte, the first one low; codes of 2 bits four in a byte. With zero points, a block's range
is widened to hold 0 and spread over all codes; symmetric, its largest magnitude becomes the lowest code.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from distort import errors
from distort.kernels.ops.contrib_quantized_matmul import BNB4_CODES

Array = np.ndarray[Any, Any]

_INT = "typing.SupportsInt | typing.SupportsIndex"
_ARRAY = "typing.Annotated[numpy.typing.ArrayLike, numpy.{}]"
_FP4 = 0
_BLOCK_SIZES = (16, 32, 64, 128, 256)


def _round(values: Array) -> Array:
    """Half away from zero."""
    return np.copysign(np.floor(np.abs(values) + np.float32(0.5)), values)


def _codes(
    source: Array, block_size: int, bits: int, symmetric: bool, scale_dtype: Any, *, round_first: bool = False
) -> tuple[Array, Array, Array]:
    """[K, N] -> codes [K, N] as uint8, scales [blocks, N], zero points [blocks, N].

    ``round_first``: before the zero point is added, and not after.
    """
    k, n = source.shape
    # a last block that is not full is as if zeros followed
    blocks = np.pad(source.astype(np.float32), ((0, -k % block_size), (0, 0))).reshape(-1, block_size, n)
    top, middle = np.float32((1 << bits) - 1), np.float32(1 << (bits - 1))
    low, high = blocks.min(axis=1), blocks.max(axis=1)
    if symmetric:
        scale = np.where(np.abs(high) > np.abs(low), high, low) / -middle
        zero = np.full(scale.shape, middle, np.float32)
    else:
        low, high = np.minimum(low, 0), np.maximum(high, 0)
        scale = (high - low) / top
        with np.errstate(divide="ignore", invalid="ignore"):
            zero = np.where(scale != 0, np.float32(0) - low / scale, low)
        zero = _round(np.clip(zero, 0, top))
    scale = scale.astype(scale_dtype)
    kept = scale.astype(np.float32)
    with np.errstate(divide="ignore"):
        inverse = np.where(kept != 0, np.float32(1) / kept, np.float32(0)).astype(np.float32)
    scaled = blocks * inverse[:, None]
    codes = _round(scaled) + zero[:, None] if round_first else _round(scaled + zero[:, None])
    codes = np.clip(codes, 0, top)
    return codes.reshape(-1, n)[:k].astype(np.uint8), scale, zero.astype(np.uint8)


def _packed(codes: Array, bits: int, length: int, filler: int = 0) -> Array:
    """uint8 codes along the last axis, brought to ``length`` by fillers, 8 / bits in a byte, the first one low."""
    per_byte = 8 // bits
    length += -length % per_byte
    padding = [(0, 0)] * (codes.ndim - 1) + [(0, length - codes.shape[-1])]
    grouped = np.pad(codes, padding, constant_values=filler).reshape(*codes.shape[:-1], -1, per_byte)
    shifts = (np.arange(per_byte) * bits).astype(np.uint8)
    packed: Array = np.bitwise_or.reduce(grouped << shifts, axis=-1).astype(np.uint8)
    return packed


def _check(function: str, returns: str, arguments: tuple[Any, ...], n_zero_points: int) -> tuple[int, ...]:
    """The numbers among the arguments. Raises TypeError for arguments of other kinds, RuntimeError for other sizes.

    onnxruntime copies an array of another dtype, and the results with the copy are lost; here it is refused.
    """
    arrays, numbers = arguments[: 3 + n_zero_points], arguments[3 + n_zero_points :]
    float_name = str(getattr(arrays[1], "dtype", "float32"))
    names = ("uint8", float_name, float_name, "uint8")[: 3 + n_zero_points]
    fits = float_name in ("float32", "float16") and all(
        isinstance(array, np.ndarray) and array.dtype == name for array, name in zip(arrays, names, strict=True)
    )
    try:
        sizes = tuple(operator.index(number) for number in numbers)
    except TypeError:
        fits = False
    if not fits:
        kinds = [*(_ARRAY.format(name) for name in ("uint8", "float32", "float32", "uint8")[: len(arrays)])]
        kinds += [_INT] * len(numbers)
        signature = ", ".join(f"arg{i}: {kind}" for i, kind in enumerate(kinds))
        raise errors.incompatible(function, f"({signature}) -> {returns}", *arguments)
    for array in (arrays[0], *arrays[2:]):
        if not (array.flags.c_contiguous and array.flags.writeable):
            raise RuntimeError(f"{function}: results need arrays that are contiguous and writeable.")
    return sizes


def _require(function: str, what: str, array: Array, wanted: int) -> None:
    if array.size != wanted:
        raise RuntimeError(f"{function}: {what} has {array.size} elements, and {wanted} are needed.")


def _weight(function: str, source: Array, n: int, k: int, block_size: int) -> Array:
    if block_size not in _BLOCK_SIZES:
        raise RuntimeError(f"{function}: only block sizes 16, 32, 64, 128 and 256 are supported, not {block_size}.")
    if source.ndim != 2 or source.shape[0] < k or source.shape[1] != n:
        raise RuntimeError(f"{function}: the weight has shape {list(source.shape)}, and K {k}, N {n} need [{k}, {n}].")
    return source[:k]


def _by_columns(bits: int) -> Callable[..., None]:
    function = f"quantize_matmul_{bits}bits"

    def quantize(
        arg0: Array, arg1: Array, arg2: Array, arg3: Array, arg4: int, arg5: int, arg6: int, arg7: bool
    ) -> None:
        block_size, n, k, symmetric = _check(function, "None", (arg0, arg1, arg2, arg3, arg4, arg5, arg6, arg7), 1)
        source = _weight(function, arg1, n, k, block_size)
        n_blocks, per_byte = -(-k // block_size), 8 // bits
        _require(function, "the array of codes", arg0, n * n_blocks * block_size // per_byte)
        _require(function, "the array of scales", arg2, n * n_blocks)
        codes, scales, zeros = _codes(source, block_size, bits, bool(symmetric), arg2.dtype)
        if not symmetric:
            _require(function, "the array of zero points", arg3, n * -(-n_blocks // per_byte))
            filler = (1 << (bits - 1)) & 0x0F  # what onnxruntime leaves where there is no block
            arg3[...] = _packed(zeros.T, bits, n_blocks, filler).reshape(arg3.shape)
        arg0[...] = _packed(codes.T, bits, n_blocks * block_size).reshape(arg0.shape)
        arg2[...] = scales.T.reshape(arg2.shape)

    quantize.__name__ = quantize.__qualname__ = function
    quantize.__doc__ = f"""A weight for com.microsoft.MatMulNBits of {bits} bits.

    Codes [N, blocks, block_size * {bits} / 8] and weight [at least K, N], scales [N, blocks], zero points
    [N, blocks * {bits} / 8] (not touched where symmetric), block size, N, K, symmetric.
    """
    return quantize


def _by_rows(bits: int) -> Callable[..., bool]:
    function = f"quantize_qdq_matmul_{bits}bits"

    def quantize(
        arg0: Array, arg1: Array, arg2: Array, arg3: Array, arg4: int, arg5: int, arg6: int, arg7: bool
    ) -> bool:
        block_size, n, k, symmetric = _check(function, "bool", (arg0, arg1, arg2, arg3, arg4, arg5, arg6, arg7), 1)
        if block_size < 1:
            raise RuntimeError(f"{function}: a block has at least one value, not {block_size}.")
        if arg1.ndim != 2 or arg1.shape != (k, n):
            raise RuntimeError(f"{function}: the weight has shape {list(arg1.shape)}, and not [{k}, {n}].")
        n_blocks, per_byte = -(-k // block_size), 8 // bits
        _require(function, "the array of codes", arg0, -(-k * n // per_byte))
        _require(function, "the array of scales", arg2, n_blocks * n)
        codes, scales, zeros = _codes(arg1, block_size, bits, bool(symmetric), arg2.dtype, round_first=True)
        if symmetric:  # signed numbers, without zero points
            codes = (codes - (1 << (bits - 1))) & ((1 << bits) - 1)
        else:
            _require(function, "the array of zero points", arg3, -(-n_blocks * n // per_byte))
            arg3[...] = _packed(zeros.reshape(-1), bits, n_blocks * n).reshape(arg3.shape)
        arg0[...] = _packed(codes.astype(np.uint8).reshape(-1), bits, k * n).reshape(arg0.shape)
        arg2[...] = scales.reshape(arg2.shape)
        return bool(symmetric)

    quantize.__name__ = quantize.__qualname__ = function
    quantize.__doc__ = f"""A weight for DequantizeLinear of {bits} bits with blocks along the first axis.

    Codes [K * N * {bits} / 8], weight [K, N], scales [blocks, N], zero points [blocks * N * {bits} / 8] (not touched
    where symmetric), block size, N, K, symmetric. True where the codes are signed: where symmetric.
    """
    return quantize


quantize_matmul_2bits = _by_columns(2)
quantize_matmul_4bits = _by_columns(4)
quantize_matmul_8bits = _by_columns(8)
quantize_qdq_matmul_2bits = _by_rows(2)
quantize_qdq_matmul_4bits = _by_rows(4)


def quantize_matmul_bnb4(arg0: Array, arg1: Array, arg2: Array, arg3: int, arg4: int, arg5: int, arg6: int) -> None:
    """A weight for com.microsoft.MatMulBnb4.

    Codes [N * K / 2], the first one of a byte high; transposed weight [N, K]; largest magnitudes [blocks]; block size,
    type (0: FP4, 1: NF4), N, K. Blocks run through the flattened weight.
    """
    function = "quantize_matmul_bnb4"
    block_size, kind, n, k = _check(function, "None", (arg0, arg1, arg2, arg3, arg4, arg5, arg6), 0)
    if block_size not in _BLOCK_SIZES:
        raise RuntimeError("only block size 16, 32, 64, 128, 256 are supported.")
    if kind not in BNB4_CODES:
        raise RuntimeError(f"{function}: the types are 0 (FP4) and 1 (NF4), not {kind}.")
    count = n * k
    n_blocks = -(-count // block_size)
    _require(function, "the weight", arg1, count)
    _require(function, "the array of codes", arg0, -(-count // 2))
    _require(function, "the array of magnitudes", arg2, n_blocks)
    flat = arg1.astype(np.float32).reshape(-1)
    values = np.pad(flat, (0, n_blocks * block_size - count)).reshape(n_blocks, block_size)
    magnitudes = np.abs(values).max(axis=1)
    with np.errstate(divide="ignore"):
        inverse = np.where(magnitudes != 0, np.float32(1) / magnitudes, np.float32(0)).astype(np.float32)
    scaled = np.pad((values * inverse[:, None]).reshape(-1)[:count], (0, count % 2))
    codes = _nearest_fp4(scaled) if kind == _FP4 else _nearest(np.array(BNB4_CODES[kind], np.float32), scaled)
    arg0[...] = (codes[0::2] << 4 | codes[1::2]).astype(np.uint8).reshape(arg0.shape)
    arg2[...] = magnitudes.astype(arg2.dtype).reshape(arg2.shape)


def _nearest(table: Array, values: Array) -> Array:
    """Places of the nearest numbers of an ascending table, as uint8."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values, side="left").astype(np.uint8)


#: between the magnitudes of FP4, as bitsandbytes has them, and the codes of the magnitudes
_FP4_LIMITS = np.array([0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333], np.float32)
_FP4_ORDER = np.argsort(BNB4_CODES[_FP4][:8]).astype(np.uint8)


def _nearest_fp4(values: Array) -> Array:
    """Codes of FP4: a sign above the code of the magnitude."""
    sign = (values < 0).astype(np.uint8) << 3
    codes: Array = _FP4_ORDER[np.searchsorted(_FP4_LIMITS, np.abs(values), side="left")] | sign
    return codes


def pack_fp4_weights_for_cuda_moe_gemm(q_weights: Array, N: int, K: int) -> Array:  # its names
    """FP4 weights [N, K / 2] transposed to [K * N / 2]: two columns in a byte, the first one low."""
    packed = np.asarray(q_weights, np.uint8)
    if packed.size != N * K // 2 or N % 2 or K % 2:
        text = f"{packed.size} bytes are not N {N} times K {K} / 2, both even."
        raise RuntimeError(f"pack_fp4_weights_for_cuda_moe_gemm: {text}")
    rows = packed.reshape(N, K // 2)
    codes = np.stack((rows & 15, rows >> 4), axis=-1).reshape(N, K).T
    return np.ascontiguousarray(codes[:, 0::2] | codes[:, 1::2] << 4).reshape(-1)
