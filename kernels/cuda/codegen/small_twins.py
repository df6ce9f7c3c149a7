"""Twins of the CPU's kernels whose threads each have an element or a row: see ``natives``."""

from __future__ import annotations

from distort.kernels.compiler.codegen.folding import WORDS as OF_FOLDING
from distort.kernels.cuda.codegen.natives import Twin, by_items

#: LLVM's types of whole elements and of numbers
_C = {"i8": "unsigned char", "i16": "unsigned short", "i32": "int", "i64": "long long"}
_REALS = {"float": "float", "double": "double", "float32": "float", "float64": "double"}


def labels(real: str) -> Twin:
    """A row's largest score; NaN counts as the largest, the first of them."""
    kind = _REALS[real]
    parameters = ["long long n_rows", "long long n_classes", f"const {kind}* scores", "const long long* labels"]
    lines = [
        f"const {kind}* const own = scores + item * n_classes;",
        "long long best = 0;",
        "for (long long k = 1; k < n_classes; ++k) {",
        "    const bool larger = own[k] > own[best] || own[k] != own[k];",
        "    if (larger && own[best] == own[best]) best = k;",
        "}",
        "result[item] = labels[best];",
    ]
    return by_items("labels", [*parameters, "long long* result"], lines, 0)


def scores_softmax() -> Twin:
    parameters = ["long long n_rows", "long long n_classes", "const float* scores", "float* result"]
    lines = [
        "const float* const own = scores + item * n_classes;",
        "float* const made = result + item * n_classes;",
        "float largest = own[0], total = 0;",
        "for (long long k = 1; k < n_classes; ++k) largest = larger<float>(largest, own[k]);",
        "for (long long k = 0; k < n_classes; ++k) total += made[k] = expf(own[k] - largest);",
        "for (long long k = 0; k < n_classes; ++k) made[k] /= total;",
    ]
    return by_items("scores_softmax", parameters, lines, 0)


def find() -> Twin:
    parameters = ["long long n", "const long long* x", "long long n_keys", "const long long* keys"]
    parameters += ["long long n_halvings", "long long* result"]
    lines = [
        "long long first = 0;",
        "for (long long count = n_keys; count > 1;) {",
        "    const long long half = count / 2;",
        "    if (keys[first + half] <= x[item]) first += half;",
        "    count -= half;",
        "}",
        "result[item] = keys[first] == x[item] ? first : n_keys;",
    ]
    return by_items("find", parameters, lines, 0)


def lookup() -> Twin:
    parameters = ["long long n_bytes", "const unsigned char* x", "const unsigned char* table", "unsigned char* result"]
    return by_items("lookup", parameters, ["result[item] = table[x[item]];"], 0)


def expect_ones() -> Twin:
    return by_items(
        "expect_ones", ["long long n", "const float* x", "long long* error"], ["if (x[item] != 1.0f) *error = 1;"], 0
    )


def turned_round(element: str, index_type: str) -> Twin:
    """Rows of a sequence up to its length, the last first; an item is an element."""
    kind = _C[element]
    parameters = ["long long n_batches", "long long n_times", "long long count", f"const {kind}* __restrict__ x"]
    parameters += [f"{kind}* __restrict__ result", "long long batch_step", "long long time_step"]
    parameters += [f"const {_C[index_type]}* __restrict__ lengths", "long long* error"]
    lines = [
        "const long long row = item / count, along = item - row * count;",
        "const long long batch = row / n_times, time = row - batch * n_times, length = lengths[batch];",
        "const bool fits = length >= 0 && length <= n_times;",
        "if (!fits) *error = 1;",
        "const long long source = fits && time < length ? length - 1 - time : time;",
        "const long long base = batch * batch_step + along;",
        "result[base + time * time_step] = x[base + source * time_step];",
    ]
    return by_items("turned_round", parameters, lines, 0, 1, 2)


def fold(dtype: str, dense: bool) -> Twin:
    """A pixel is the sum, tap by tap, of what windows have there."""
    del dense
    kind = _REALS[dtype]
    parameters = [f"const {kind}* __restrict__ columns", f"{kind}* __restrict__ image"]
    parameters += [f"long long {name}" for name in OF_FOLDING[2:]]
    lines = [
        "const long long row = item / width, x = item - row * width, plane = row / height, y = row - plane * height;",
        f"{kind} total = 0;",
        "for (long long i = 0; i < taps_down; ++i) {",
        "    const long long at_y = y + pad_down - i * dilation_down, down = at_y / stride_down;",
        "    if (at_y < 0 || at_y - down * stride_down || down >= windows_down) continue;",
        "    for (long long j = 0; j < taps_across; ++j) {",
        "        const long long at_x = x + pad_across - j * dilation_across, across = at_x / stride_across;",
        "        if (at_x < 0 || at_x - across * stride_across || across >= windows_across) continue;",
        "        const long long window = (plane * taps_down + i) * taps_across + j;",
        "        total += columns[(window * windows_down + down) * windows_across + across];",
        "    }",
        "}",
        "image[item] = total;",
    ]
    return by_items("fold", parameters, lines, *(OF_FOLDING.index(name) for name in ("planes", "height", "width")))


__all__ = ["expect_ones", "find", "fold", "labels", "lookup", "scores_softmax", "turned_round"]
