"""Images between their pixels: a thread finds the pixels around one point, and reads them in each channel."""

from __future__ import annotations

import functools
import math
from itertools import product

from distort.kernels.compiler.codegen.sampling import CORNERS, EDGES, PIXELS
from distort.kernels.compiler.ir import ErrorWord
from distort.kernels.cuda.codegen.dtypes import STORED, computed, stored
from distort.kernels.cuda.codegen.grids import BLOCK, grid_kernel
from distort.kernels.cuda.codegen.indexing import index_type, is_wide
from distort.kernels.cuda.launch import Argument, Kernel, Launch
from distort.kernels.cuda.operations import CudaSample

#: pixels that are read along an axis
_N_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
#: weights of four: by how far a pixel is from the place, "{}" being how far that is behind the second
_CUBIC = (("outer", "{} + 1.0f"), ("inner", "{}"), ("inner", "1.0f - {}"), ("outer", "2.0f - {}"))


def sample_launches(operation: CudaSample) -> list[Launch]:
    x, grid, *images = operation.inputs
    (y,) = operation.outputs
    if not y.size:
        return []
    n_images, channels, *sizes = x.shape
    n = y.shape[0]
    n_points = math.prod(y.shape[2:])
    wide = is_wide((max(x.size, y.size, grid.size),), ((1,),), n * n_points)
    kernel = _kernel(
        *(len(sizes), x.element, grid.element, operation.mode, operation.padding, operation.points, wide),
        chooses=bool(images),
    )
    arguments: list[Argument] = [x.address(), grid.address(), y.address()]
    if images:
        arguments += [images[0].address(), ErrorWord(), n_images]
    arguments += [channels, n_points, *sizes]
    return [Launch(kernel, [*arguments, n * n_points], n * n_points, BLOCK)]


@functools.lru_cache(128)
def _kernel(
    rank: int, dtype: str, of_grid: str, mode: str, padding: str, points: str, wide: bool, chooses: bool
) -> Kernel:
    kind, element = index_type(wide), STORED[dtype]
    parameters = [f"const {element}* __restrict__ x", f"const {STORED[of_grid]}* __restrict__ grid"]
    parameters.append(f"{element}* __restrict__ y")
    if chooses:
        parameters += ["const int* images", "long long* error", "long long n_images"]
    parameters += ["long long channels", "long long n_points"]
    parameters += [f"long long size_{axis}" for axis in range(rank)]
    n_taps = _N_TAPS[mode]
    lines = [f"const {kind} image = item / ({kind})n_points, point = item - image * ({kind})n_points;"]
    lines.append(f"{kind} source = image;")
    if chooses:
        lines.append(f"source = ({kind})images[image];")
        lines.append("if (source < 0 || source >= n_images) { *error = 1; source = 0; }")
    for axis in range(rank):
        lines += _axis(axis, rank, kind, of_grid, mode, padding, points)
    taps = list(product(range(n_taps), repeat=rank))
    for number, tap in enumerate(taps):
        place, weight = "0", ""
        for axis, t in enumerate(tap):
            place = f"pixel_{axis}_{t}" if axis == 0 else f"({place}) * ({kind})size_{axis} + pixel_{axis}_{t}"
            weight += f"{' * ' if weight else ''}weight_{axis}_{t}"
        lines.append(f"const {kind} place_{number} = {place};")
        lines.append(f"const float weight_{number} = {weight};")
    lines.append(f"const {kind} plane_size = {' * '.join(f'({kind})size_{axis}' for axis in range(rank))};")
    lines.append(f"for ({kind} channel = 0; channel < ({kind})channels; ++channel) {{")
    lines.append(f"    const {element}* const pixels = x + (source * ({kind})channels + channel) * plane_size;")
    lines.append("    float total = 0;")
    for number in range(len(taps)):
        # what lies outside is zero, even where the pixel read instead is not finite
        outside = f"if (weight_{number} != 0) " if padding == "zeros" else ""
        lines.append(f"    {outside}total += weight_{number} * {computed(f'pixels[place_{number}]', dtype)};")
    lines.append(f"    y[(image * ({kind})channels + channel) * ({kind})n_points + point] = {stored('total', dtype)};")
    lines.append("}")
    return grid_kernel("sample", parameters, lines, wide)


def _axis(axis: int, rank: int, kind: str, of_grid: str, mode: str, padding: str, points: str) -> list[str]:
    """Statements: pixels and their weights along an axis."""
    at, size = f"at_{axis}", f"(float)size_{axis}"
    low, high = ("-0.5f", f"{size} - 0.5f") if points == EDGES else ("0.0f", f"{size} - 1.0f")
    where, place = f"item * {rank} + {rank - 1 - axis}", f"((g_{axis} + 1.0f) * {size} - 1.0f) / 2.0f"
    if points == CORNERS:
        place = f"(g_{axis} + 1.0f) / 2.0f * ({size} - 1.0f)"
    elif points == PIXELS:
        where, place = f"(image * {rank} + {axis}) * ({kind})n_points + point", f"g_{axis}"
    lines = [f"const float g_{axis} = {computed(f'grid[{where}]', of_grid)};", f"float {at} = {place};"]
    if mode == "nearest":
        lines.append(f"{at} = rintf({at});")
    if padding == "border" and mode != "cubic":
        lines.append(f"{at} = at_most<float>(at_least<float>({at}, 0.0f), {size} - 1.0f);")
    elif padding == "reflection":
        lines.append(f"{at} = reflected({at}, {low}, {high});")
    taps = [(at, "1.0f")]
    if mode != "nearest":
        lines.append(f"const float base_{axis} = floorf({at}), part_{axis} = {at} - base_{axis};")
    if mode == "cubic":
        taps = [(f"base_{axis} + {float(t - 1)}f", f"cubic_{axis}_{t}") for t in range(4)]
        lines += [
            f"const float cubic_{axis}_{t} = cubic_{how}({distance.format(f'part_{axis}')});"
            for t, (how, distance) in enumerate(_CUBIC)
        ]
    elif mode == "linear":
        taps = [(f"base_{axis}", f"1.0f - part_{axis}"), (f"base_{axis} + 1.0f", f"part_{axis}")]
    for t, (pixel, weight) in enumerate(taps):
        if padding == "zeros":
            weight = f"{pixel} < 0.0f || {pixel} > {size} - 1.0f ? 0.0f : {weight}"
            if mode == "nearest":  # NaN is outside
                weight = f"{pixel} >= 0.0f && {pixel} <= {size} - 1.0f ? 1.0f : 0.0f"
        elif padding == "reflection":
            pixel = f"reflected({pixel}, {low}, {high})"
        lines.append(f"const {kind} pixel_{axis}_{t} = pixel_of({pixel}, (int)size_{axis});")
        lines.append(f"const float weight_{axis}_{t} = {weight};")
    return lines


__all__ = ["sample_launches"]
