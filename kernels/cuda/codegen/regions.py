"""RoiAlign and MaxRoiPool: a thread makes one element, of one channel. Twins of the CPU's, whose words they take.

The memory is the CPU's with blocks of one channel.
"""

from __future__ import annotations

from distort.kernels.compiler.codegen.regions import MAX_WORDS, WORDS
from distort.kernels.cuda.codegen.natives import Twin, by_items

#: as on the CPU
_MOST_SAMPLES, _FARTHEST = 1 << 16, float(1 << 30)
_ITEM = [
    "const long long across = item % bins_across, line = item / bins_across, down = line % bins_down;",
    "const long long channel = line / bins_down % blocks, region = line / bins_down / blocks;",
]
_RESULT = "result[region * result_region + channel * result_block + down * bins_across + across]"


def _axis(name: str, which: int, bins: str, number: str, size: str, aligned: bool) -> list[str]:
    """Statements: the begin, the bins' size and the samples of an axis of a region."""
    half = " - 0.5f" if aligned else ""
    extent = f"last_{name} - first_{name}"
    lines = [
        f"const float first_{name} = corners[{which}] * by{half}, last_{name} = corners[{which + 2}] * by{half};",
        f"const float extent_{name} = {extent if aligned else f'at_least<float>({extent}, 1.0f)'};",
        f"const float bin_{name} = extent_{name} / (float){bins}, wanted_{name} = ceilf(bin_{name});",
        f"const bool many_{name} = !(wanted_{name} <= {_MOST_SAMPLES}.0f);",
        f"long long samples_{name} = samples;",
        f"if (samples <= 0) samples_{name} = !many_{name} && wanted_{name} > 0 ? (long long)wanted_{name} : 0;",
        f"if (samples <= 0 && many_{name}) *error = 1;",
        f"const float begin_{name} = first_{name} + (float){number} * bin_{name};",
    ]
    return [line.replace("SIZE", size) for line in lines]


def _tap(name: str, size: str) -> list[str]:
    """Statements: pixels on both sides of a sample along an axis, and their weights."""
    return [
        f"float at_{name} = begin_{name} + ((float)s_{name} + 0.5f) * bin_{name} / (float)samples_{name};",
        f"const bool inside_{name} = at_{name} >= -1.0f && at_{name} <= (float){size};",
        f"at_{name} = at_{name} > 0.0f ? at_{name} : 0.0f;",
        f"at_{name} = at_{name} > (float)({size} - 1) ? (float)({size} - 1) : at_{name};",
        f"const float low_{name} = floorf(at_{name}), share_{name} = at_{name} - low_{name};",
        f"const long long pixel_{name}_0 = (long long)low_{name};",
        f"const long long pixel_{name}_1 = pixel_{name}_0 + 1 < {size} ? pixel_{name}_0 + 1 : {size} - 1;",
        f"const float weight_{name}_0 = inside_{name} ? 1.0f - share_{name} : 0.0f;",
        f"const float weight_{name}_1 = inside_{name} ? share_{name} : 0.0f;",
    ]


def roi_align(largest: bool, aligned: bool) -> Twin:
    pointers = ["const float* __restrict__ x", "const float* __restrict__ regions", "const long long* images_of"]
    pointers += ["float* __restrict__ result", "long long* error"]
    parameters = [*pointers, *(f"long long {name}" for name in WORDS[len(pointers) :])]
    lines = [
        *_ITEM,
        "const float by = real_of((unsigned)scale);",
        "const float* const corners = regions + region * 4;",
        "long long image = images_of[region];",
        "if (image < 0 || image >= images) { *error = 1; image = 0; }",
        *_axis("y", 1, "bins_down", "down", "height", aligned),
        *_axis("x", 0, "bins_across", "across", "width", aligned),
        "const float* const plane = x + image * x_image + channel * x_block;",
        f"float total = {'real_of(0xff800000u)' if largest else '0.0f'};",
        "for (long long s_y = 0; s_y < samples_y; ++s_y) {",
        *(f"    {line}" for line in _tap("y", "height")),
        "    for (long long s_x = 0; s_x < samples_x; ++s_x) {",
        *(f"        {line}" for line in _tap("x", "width")),
    ]
    for i in (0, 1):
        for j in (0, 1):
            value = f"plane[pixel_y_{i} * width + pixel_x_{j}]"
            weight = f"(weight_y_{i} * weight_x_{j})"
            how = f"larger<float>(total, {value} * {weight})" if largest else f"total + {value} * {weight}"
            lines.append(f"        total = {how};")
    lines += ["    }", "}", "const long long count = samples_y * samples_x;"]
    if largest:
        lines.append(f"{_RESULT} = count == 0 ? 0.0f : total;")
    else:
        lines.append(f"{_RESULT} = total / (float)(count > 1 ? count : 1);")
    sizes = ("regions_count", "blocks", "bins_down", "bins_across")
    return by_items("roi_align", parameters, lines, *(WORDS.index(name) for name in sizes))


def _pixels(name: str, first: int, bins: str, number: str, size: str) -> list[str]:
    """Statements: the first pixel of a bin along an axis, and one after the last."""
    return [
        f"const long long extent_{name} = ends[{first + 2}] - ends[{first}] + 1;",
        f"const float width_{name} = (float)(extent_{name} > 1 ? extent_{name} : 1) / (float){bins};",
        f"long long from_{name} = (long long)floorf((float){number} * width_{name}) + ends[{first}];",
        f"long long to_{name} = (long long)ceilf((float)({number} + 1) * width_{name}) + ends[{first}];",
        f"from_{name} = from_{name} < 0 ? 0 : from_{name} < {size} ? from_{name} : {size};",
        f"to_{name} = to_{name} < 0 ? 0 : to_{name} < {size} ? to_{name} : {size};",
    ]


def max_roi_pool() -> Twin:
    pointers = ["const float* __restrict__ x", "const float* __restrict__ regions", "float* __restrict__ result"]
    pointers.append("long long* error")
    parameters = [*pointers, *(f"long long {name}" for name in MAX_WORDS[len(pointers) :])]
    lines = [
        *_ITEM,
        "const double by = wide_real_of((unsigned long long)scale);",
        "const float* const own = regions + region * 5;",
        "const bool named = own[0] > -1.0f && own[0] < (float)images;",
        "const long long image = named ? (long long)own[0] : 0;",
        "bool wrong = !named;",
        "long long ends[4];",
        "for (int k = 0; k < 4; ++k) {",
        "    const double at = (double)own[1 + k] * by, size = fabs(at);",
        f"    const bool far = !(size <= {_FARTHEST});",
        "    wrong = wrong || far;",
        "    ends[k] = (long long)copysign(floor((far ? 0.0 : size) + 0.5), at);",
        "}",
        "if (wrong) *error = 1;",
        *_pixels("y", 1, "bins_down", "down", "height"),
        *_pixels("x", 0, "bins_across", "across", "width"),
        "const float* const plane = x + image * x_image + channel * x_block;",
        "float best = real_of(0xff800000u);",
        "for (long long i = from_y; i < to_y; ++i)",
        "    for (long long j = from_x; j < to_x; ++j) best = larger<float>(best, plane[i * width + j]);",
        f"{_RESULT} = from_y >= to_y || from_x >= to_x ? 0.0f : best;",
    ]
    sizes = ("regions_count", "blocks", "bins_down", "bins_across")
    return by_items("max_roi_pool", parameters, lines, *(MAX_WORDS.index(name) for name in sizes))


__all__ = ["max_roi_pool", "roi_align"]
