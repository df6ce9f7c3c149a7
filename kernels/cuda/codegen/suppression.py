"""NonMaxSuppression: a block has a class of an image. It finds the best box that is left, and strikes out what that one
overlaps too much, until there are enough or none is left."""

from __future__ import annotations

import functools

from distort.kernels.compiler.ir import ErrorWord
from distort.kernels.cuda.codegen.device_functions import with_helpers
from distort.kernels.cuda.codegen.grids import BLOCK
from distort.kernels.cuda.launch import NAME, Argument, Kernel, Launch, kernel_of
from distort.kernels.cuda.operations import CudaSelected, CudaSuppress


def suppress_launches(operation: CudaSuppress) -> list[Launch]:
    kept, counts, dead = operation.outputs
    kernel = _suppress(len(operation.inputs) == 5, operation.centred)
    n_pairs = counts.size
    arguments: list[Argument] = [t.address() for t in (*operation.inputs, *operation.outputs)]
    arguments += [ErrorWord(), n_pairs, operation.inputs[1].shape[1], dead.shape[1], kept.shape[1]]
    return [Launch(kernel, arguments, n_pairs * BLOCK, BLOCK, blocks=n_pairs)]


def selected_launches(operation: CudaSelected) -> list[Launch]:
    kept = operation.inputs[0]
    n_pairs, capacity = kept.shape
    arguments: list[Argument] = [t.address() for t in (*operation.inputs, *operation.outputs)]
    return [
        Launch(
            _selected(), [*arguments, n_pairs, operation.n_classes, capacity], n_pairs * BLOCK, BLOCK, blocks=n_pairs
        )
    ]


@functools.cache
def _suppress(limited: bool, centred: bool) -> Kernel:
    parameters = ["const float* boxes", "const float* scores", "const long long* most", "const float* overlap"]
    parameters += [*(["const float* least"] if limited else []), "int* kept", "int* counts", "unsigned char* dead"]
    parameters += ["long long* error", *(f"long long {n}" for n in ("n_pairs", "n_classes", "n_boxes", "capacity"))]
    sides = "a - c / 2, a + c / 2, b - d / 2, b + d / 2"
    if not centred:
        sides = "a < c ? a : c, a < c ? c : a, b < d ? b : d, b < d ? d : b"
    text = f"""struct {NAME}_box {{ float low, high, left, right; }};
static __device__ __forceinline__ {NAME}_box {NAME}_at(const float* p) {{
    const float a = p[0], b = p[1], c = p[2], d = p[3];
    return {{{sides}}};
}}
static __device__ __forceinline__ float {NAME}_area(const {NAME}_box& x) {{
    return (x.high - x.low) * (x.right - x.left);
}}
static __device__ __forceinline__ bool {NAME}_overlap(const {NAME}_box& x, const {NAME}_box& y, float most) {{
    const float down = (x.high < y.high ? x.high : y.high) - (x.low > y.low ? x.low : y.low);
    const float across = (x.right < y.right ? x.right : y.right) - (x.left > y.left ? x.left : y.left);
    const float shared = (down > 0 ? down : 0) * (across > 0 ? across : 0);
    return shared > 0 && shared / ({NAME}_area(x) + {NAME}_area(y) - shared) > most;
}}
// whether a box comes before the best so far: by its score, NaN last, then by its place; -1 is none
static __device__ __forceinline__ bool {NAME}_before(float score, int place, float best, int best_place) {{
    if (place < 0 || best_place < 0) return place >= 0;
    if (score > best || (best != best && score == score)) return true;
    return place < best_place && (score == best || (score != score && best != best));
}}
extern "C" __global__ void __launch_bounds__({BLOCK})
{NAME}({", ".join(parameters)}) {{
    __shared__ float scores_of[32];
    __shared__ int places_of[32];
    const int lanes = blockDim.x < 32 ? (int)blockDim.x : 32;
    const int n_warps = (int)blockDim.x / lanes;
    const long long limit = *most < capacity ? *most : capacity;
    const float largest = *overlap;
    if (!(largest >= 0 && largest <= 1)) *error = 1;
    for (long long pair = blockIdx.x; pair < n_pairs; pair += gridDim.x) {{
        const float* const own = scores + pair * n_boxes;
        const float* const around = boxes + pair / n_classes * n_boxes * 4;
        unsigned char* const out = dead + pair * n_boxes;
        // a thread has the same boxes throughout: nobody else reads what it strikes out
        for (int k = threadIdx.x; k < n_boxes; k += blockDim.x) out[k] = {"!(own[k] > *least)" if limited else "0"};
        int count = 0;
        while (count < limit) {{
            float best = 0;
            int place = -1;
            for (int k = threadIdx.x; k < n_boxes; k += blockDim.x)
                if (!out[k] && {NAME}_before(own[k], k, best, place)) {{ best = own[k]; place = k; }}
            for (int bits = lanes / 2; bits; bits /= 2) {{
                const float score = other_lane<float>(best, bits);
                const int other = other_lane<int>(place, bits);
                if ({NAME}_before(score, other, best, place)) {{ best = score; place = other; }}
            }}
            __syncthreads();
            if (threadIdx.x % lanes == 0) {{
                scores_of[threadIdx.x / lanes] = best;
                places_of[threadIdx.x / lanes] = place;
            }}
            __syncthreads();
            for (int w = 0; w < n_warps; ++w)
                if ({NAME}_before(scores_of[w], places_of[w], best, place)) {{
                    best = scores_of[w];
                    place = places_of[w];
                }}
            if (place < 0) break;
            if (threadIdx.x == 0) kept[pair * capacity + count] = place;
            ++count;
            const {NAME}_box chosen = {NAME}_at(around + place * 4ll);
            for (int k = threadIdx.x; k < n_boxes; k += blockDim.x)
                if (!out[k] && (k == place || {NAME}_overlap({NAME}_at(around + k * 4ll), chosen, largest))) out[k] = 1;
        }}
        if (threadIdx.x == 0) counts[pair] = count;
        __syncthreads();
    }}
}}
"""
    return kernel_of("suppress", with_helpers(text))


@functools.cache
def _selected() -> Kernel:
    parameters = ["const int* kept", "const int* counts", "long long* selected", "long long* number"]
    parameters += ["long long n_pairs", "long long n_classes", "long long capacity"]
    text = f"""extern "C" __global__ void __launch_bounds__({BLOCK})
{NAME}({", ".join(parameters)}) {{
    __shared__ int before;
    for (long long pair = blockIdx.x; pair < n_pairs; pair += gridDim.x) {{
        __syncthreads();
        if (threadIdx.x == 0) before = 0;
        __syncthreads();
        int own = 0;
        for (long long k = threadIdx.x; k < pair; k += blockDim.x) own += counts[k];
        if (own) atomicAdd(&before, own);
        __syncthreads();
        const long long first = before, count = counts[pair];
        for (long long k = threadIdx.x; k < count; k += blockDim.x) {{
            selected[(first + k) * 3] = pair / n_classes;
            selected[(first + k) * 3 + 1] = pair % n_classes;
            selected[(first + k) * 3 + 2] = kept[pair * capacity + k];
        }}
        if (pair == n_pairs - 1 && threadIdx.x == 0) *number = first + count;
    }}
}}
"""
    return kernel_of("selected", with_helpers(text))


__all__ = ["selected_launches", "suppress_launches"]
