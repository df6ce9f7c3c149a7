"""Images between their pixels: a thread has a point, and some of the channels, whose weights are the same."""

from __future__ import annotations

import functools
import math

from distort.kernels.compiler.codegen.sampling import CORNERS, PIXELS
from distort.kernels.compiler.ir import ErrorWord
from distort.kernels.cuda.codegen.grids import grid_kernel
from distort.kernels.cuda.launch import NAME, Argument, Kernel, Launch
from distort.kernels.cuda.operations import CudaSample

#: threads that keep a GPU busy, about: with fewer points channels are shared out
_ENOUGH = 1 << 16
_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
#: where pixels lie that are read, and their weights, by mode: at "before" and behind, "t" being how far behind
_PLACES = {
    "nearest": ["pixels[0] = at; weights[0] = 1;"],
    "linear": [
        "const float before = floorf(at), t = at - before;",
        "pixels[0] = before; pixels[1] = before + 1;",
        "weights[0] = 1 - t; weights[1] = t;",
    ],
    "cubic": [
        "const float before = floorf(at), t = at - before;",
        "for (int k = 0; k < 4; ++k) pixels[k] = before + (float)(k - 1);",
        "const float near = 1 - t, far = 2 - t, behind = 1 + t;",
        "weights[0] = ((-0.75f * behind + 3.75f) * behind - 6.0f) * behind + 3.0f;",
        "weights[1] = (1.25f * t - 2.25f) * t * t + 1;",
        "weights[2] = (1.25f * near - 2.25f) * near * near + 1;",
        "weights[3] = ((-0.75f * far + 3.75f) * far - 6.0f) * far + 3.0f;",
    ],
}


def sample_launches(operation: CudaSample) -> list[Launch]:
    x, grid, *images = operation.inputs
    (result,) = operation.outputs
    if not result.size:
        return []
    n, channels = result.shape[:2]
    n_points = math.prod(result.shape[2:])
    n_shares = min(channels, max(1, -(-_ENOUGH // (n * n_points))))
    arguments: list[Argument] = [x.address(), grid.address(), result.address()]
    if images:
        arguments += [images[0].address(), ErrorWord(), x.shape[0]]
    arguments += [channels, *x.shape[2:], n_points, n_shares]
    n_items = n * n_points * n_shares
    kernel = _kernel(operation.mode, operation.padding, operation.points, bool(images))
    return [Launch(kernel, [*arguments, n_items], n_items)]


@functools.cache
def _kernel(mode: str, padding: str, points: str, chosen: bool) -> Kernel:
    taps = _TAPS[mode]
    parameters = ["const float* x", "const float* grid", "float* result"]
    if chosen:
        parameters += ["const int* images", "long long* error", "long long n_images"]
    parameters += [f"long long {name}" for name in ("channels", "height", "width", "n_points", "n_shares")]
    lines = [
        "const long long point = item % n_points, share = item / n_points % n_shares;",
        "const long long number = item / n_points / n_shares;",
        "long long source = number;",
    ]
    if chosen:
        lines += ["source = images[number];", "if (source < 0 || source >= n_images) { *error = 1; source = 0; }"]
    if points == PIXELS:
        lines += [
            "const float* const own = grid + number * 2 * n_points + point;",
            "const float y = own[0], across = own[n_points];",
        ]
    else:
        lines += [
            "const float* const own = grid + (number * n_points + point) * 2;",
            "const float y = own[1], across = own[0];",
        ]
    lines += [
        f"int rows[{taps}], columns[{taps}];",
        f"float of_rows[{taps}], of_columns[{taps}];",
        f"{NAME}_taps(y, (float)height, rows, of_rows);",
        f"{NAME}_taps(across, (float)width, columns, of_columns);",
        "for (long long channel = share; channel < channels; channel += n_shares) {",
        "    const float* const plane = x + (source * channels + channel) * height * width;",
        "    float total = 0;",
        "#pragma unroll",
        f"    for (int i = 0; i < {taps}; ++i) {{",
        "#pragma unroll",
        f"        for (int j = 0; j < {taps}; ++j) {{",
        "            const float weight = of_rows[i] * of_columns[j];",
        # what is not read may be anything
        f"            {'if (weight != 0) ' if padding == 'zeros' else ''}"
        "total += plane[rows[i] * width + columns[j]] * weight;",
        "        }",
        "    }",
        "    result[(number * channels + channel) * n_points + point] = total;",
        "}",
    ]
    return grid_kernel("sample", parameters, lines, True, _functions(mode, padding, points, taps))


def _functions(mode: str, padding: str, points: str, taps: int) -> str:
    """``taps`` of an axis: pixels that are there, and their weights."""
    low, high = ("0", "last") if points in (PIXELS, CORNERS) else ("-0.5f", "size - 0.5f")
    at = {PIXELS: "point", CORNERS: "(point + 1) * 0.5f * last"}.get(points, "((point + 1) * size - 1) * 0.5f")
    if mode == "nearest":
        at = f"rintf({at})"
    lines = ["const float last = size - 1;", f"float at = {at};"]
    reflects = f"{NAME}_reflected({{}}, {low}, {high})"
    if padding == "border" and mode != "cubic":
        lines.append(f"at = {NAME}_within(at, last);")
    elif padding == "reflection":
        lines.append(f"at = {reflects.format('at')};")
    lines += [f"float pixels[{taps}];", *_PLACES[mode], "#pragma unroll", f"for (int k = 0; k < {taps}; ++k) {{"]
    lines.append("    float pixel = pixels[k];")
    if padding == "zeros":
        unsure = " || pixel != pixel" if mode == "nearest" else ""  # else the weight is NaN too
        lines.append(f"    if (pixel < 0 || pixel > last{unsure}) weights[k] = 0;")
    elif padding == "reflection":
        lines.append(f"    pixel = {reflects.format('pixel')};")
    lines += [f"    places[k] = pixel != pixel ? 0 : (int){NAME}_within(pixel, last);", "}"]
    body = "".join([f"    {line}\n" for line in lines])
    inline = "static __device__ __forceinline__"
    return f"""{inline} float {NAME}_within(float at, float last) {{
    at = at < 0 ? 0 : at;
    return at > last ? last : at;
}}
{inline} float {NAME}_reflected(float at, float low, float high) {{
    const float span = high - low;
    if (span <= 0) return 0;
    if (at >= low && at <= high) return at;
    float distance = fabsf(at - low);
    distance -= floorf(distance / (span + span)) * (span + span);
    const float back = span + span - distance;
    return low + (back < distance ? back : distance);
}}
{inline} void {NAME}_taps(float point, float size, int* places, float* weights) {{
{body}}}
"""


__all__ = ["sample_launches"]
