"""Functions in CUDA C that kernels call. A source gets those that it names, guarded, so that sources can be joined.

Where they are not compiled for a GPU (``__CUDACC_VER_MAJOR__`` is not defined) they are plain C++17. Nothing is
included: NVRTC needs no path.
"""

from __future__ import annotations

import functools
import re

_BITS = """
#if defined(__CUDACC_VER_MAJOR__)
__device__ __forceinline__ unsigned bits_of(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float real_of(unsigned x) { return __uint_as_float(x); }
__device__ __forceinline__ double wide_real_of(unsigned long long x) { return __longlong_as_double((long long)x); }
#else
static inline unsigned bits_of(float x) { unsigned y; __builtin_memcpy(&y, &x, 4); return y; }
static inline float real_of(unsigned x) { float y; __builtin_memcpy(&y, &x, 4); return y; }
static inline double wide_real_of(unsigned long long x) { double y; __builtin_memcpy(&y, &x, 8); return y; }
#endif
"""

_FROM_HALF = """
__device__ __forceinline__ float from_half(unsigned short x) {
#if defined(__CUDACC_VER_MAJOR__)
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
#else
    const unsigned rest = (x & 0x7fffu) << 13;
    const unsigned size = rest >= (0x7c00u << 13) ? rest | 0x7f800000u : bits_of(real_of(rest) * 0x1p112f);
    return real_of(size | (x & 0x8000u) << 16);
#endif
}
"""

_TO_HALF = """
__device__ __forceinline__ unsigned short to_half(float x) {
#if defined(__CUDACC_VER_MAJOR__)
    unsigned short y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
#else
    const unsigned bits = bits_of(x), size = bits & 0x7fffffffu, sign = bits >> 16 & 0x8000u;
    unsigned y;
    if (size >= 143u << 23) y = size > 0x7f800000u ? 0x7e00u : 0x7c00u;
    else if (size < 113u << 23) y = bits_of(real_of(size) + real_of(126u << 23)) - (126u << 23);
    else y = (size + (size >> 13 & 1u) + ((15u - 127u) << 23) + 0xfffu) >> 13;
    return (unsigned short)(y | sign);
#endif
}
"""

_TO_BFLOAT = """
__device__ __forceinline__ unsigned short to_bfloat(float x) {
    const unsigned bits = bits_of(x), upper = bits >> 16;
    return (unsigned short)(x != x ? upper | 0x40u : (bits + 0x7fffu + (upper & 1u)) >> 16);
}
"""

#: by what they define; names of helpers that others need are found in their text
HELPERS: dict[str, str] = {
    "bits_of": _BITS,
    "from_half": _FROM_HALF,
    "to_half": _TO_HALF,
    "from_bfloat": """
__device__ __forceinline__ float from_bfloat(unsigned short x) { return real_of((unsigned)x << 16); }
""",
    "to_bfloat": _TO_BFLOAT,
    "Pack": """
template <typename T, int N> struct alignas(sizeof(T) * N) Pack { T at[N]; };
""",
    "load_pack": """
// of elements next to each other, whose address may be any that suits one of them
template <typename T, int N> __device__ __forceinline__ Pack<T, N> load_pack(const T* from) {
    if ((unsigned long long)from % sizeof(Pack<T, N>) == 0) return *reinterpret_cast<const Pack<T, N>*>(from);
    Pack<T, N> made;
#pragma unroll
    for (int i = 0; i < N; ++i) made.at[i] = from[i];
    return made;
}
""",
    "store_pack": """
template <typename T, int N> __device__ __forceinline__ void store_pack(T* to, const Pack<T, N>& made) {
    if ((unsigned long long)to % sizeof(Pack<T, N>) == 0) { *reinterpret_cast<Pack<T, N>*>(to) = made; return; }
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = made.at[i];
}
""",
    "quotient_of": """
// n / d for n and d below 2^31, by a product; "divisor" is made of d by indexing.py
__device__ __forceinline__ int quotient_of(int n, long long divisor) {
    const unsigned magic = (unsigned)((unsigned long long)divisor >> 32);
    const unsigned shift = (unsigned)divisor & 63u;
    const unsigned high = (unsigned)(((unsigned long long)(unsigned)n * magic) >> 32);
    return (int)((high + (unsigned)n) >> shift);
}
""",
    "whole_div": """
// by 0: 0
template <typename T> __device__ __forceinline__ T whole_div(T a, T b) {
    if (b == 0) return 0;
    if ((T)-1 < 0 && b == (T)-1) return (T)(0ull - (unsigned long long)a);
    return (T)(a / b);
}
""",
    "whole_rem": """
// the dividend's sign
template <typename T> __device__ __forceinline__ T whole_rem(T a, T b) {
    if (b == 0 || ((T)-1 < 0 && b == (T)-1)) return 0;
    return (T)(a % b);
}
""",
    "whole_mod": """
// the divisor's sign
template <typename T> __device__ __forceinline__ T whole_mod(T a, T b) {
    const T rest = whole_rem<T>(a, b);
    return rest != 0 && (rest < 0) != (b < 0) ? (T)(rest + b) : rest;
}
""",
    "whole_pow": """
// b below 0: 0 but for bases 1 and -1; of 0, the smallest integer
template <typename T> __device__ __forceinline__ T whole_pow(T a, T b) {
    if (b < 0) {
        if (a == 0) return (T)(1ull << (sizeof(T) * 8 - 1));
        if (a == 1) return 1;
        return a == (T)-1 ? (b & 1 ? a : (T)1) : (T)0;
    }
    unsigned long long result = 1, square = (unsigned long long)a, rest = (unsigned long long)b;
    for (; rest; rest >>= 1, square *= square) if (rest & 1) result *= square;
    return (T)result;
}
""",
    "shifted_left": """
template <typename T> __device__ __forceinline__ T shifted_left(T a, T b) {
    return b < 0 || (unsigned long long)b >= sizeof(T) * 8 ? (T)0 : (T)((unsigned long long)a << (int)b);
}
""",
    "shifted_right": """
template <typename T> __device__ __forceinline__ T shifted_right(T a, T b) {
    const bool inside = !(b < 0) && (unsigned long long)b < sizeof(T) * 8;
    if ((T)-1 < 0) return (T)(a >> (inside ? (int)b : (int)sizeof(T) * 8 - 1));
    return inside ? (T)(a >> (int)b) : (T)0;
}
""",
    # the second operand where they do not compare, unless that is a number
    "larger": """
template <typename T> __device__ __forceinline__ T larger(T a, T b) { return b > a || b != b ? b : a; }
""",
    "smaller": """
template <typename T> __device__ __forceinline__ T smaller(T a, T b) { return b < a || b != b ? b : a; }
""",
    # min and max with a bound that is a number; NaN stays
    "at_least": """
template <typename T> __device__ __forceinline__ T at_least(T x, T bound) { return bound > x ? bound : x; }
""",
    "at_most": """
template <typename T> __device__ __forceinline__ T at_most(T x, T bound) { return bound < x ? bound : x; }
""",
    "sign_of": """
template <typename T> __device__ __forceinline__ T sign_of(T x) {
    return x > 0 ? (T)1 : x < 0 ? (T)-1 : x == 0 ? (T)0 : x;
}
""",
    "real_mod": """
__device__ __forceinline__ float real_mod(float a, float b) {
    const float rest = fmodf(a, b);
    if (rest == 0) return copysignf(0.0f, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
}
""",
    "wide_mod": """
__device__ __forceinline__ double wide_mod(double a, double b) {
    const double rest = fmod(a, b);
    if (rest == 0) return copysign(0.0, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
}
""",
    # cut towards zero; what is out of range, and NaN, is what x86 makes of it: the smallest integer
    "to_int32": """
template <typename R> __device__ __forceinline__ int to_int32(R x) {
    return x > (R)-2147483649.0 && x < (R)2147483648.0 ? (int)x : (-2147483647 - 1);
}
""",
    "to_int64": """
template <typename R> __device__ __forceinline__ long long to_int64(R x) {
    const R limit = (R)9223372036854775808.0;
    return x >= -limit && x < limit ? (long long)x : (-9223372036854775807ll - 1);
}
""",
    "to_uint64": """
template <typename R> __device__ __forceinline__ unsigned long long to_uint64(R x) {
    const R limit = (R)9223372036854775808.0;
    if (x >= limit && x < limit * 2) return (unsigned long long)x;
    return (unsigned long long)to_int64<R>(x);
}
""",
    # the low bits of longer ones
    "to_short_int": """
template <typename T, typename R> __device__ __forceinline__ T to_short_int(R x) {
    return x > (R)-2147483648.0 && x < (R)2147483648.0 ? (T)(int)x : (T)to_int64<R>(x);
}
""",
    "saturated": """
// rounded, half to even, plus the zero point; NaN is the least
template <typename T> __device__ __forceinline__ T saturated(float x, float zero, float low, float high) {
    float value = rintf(x) + zero;
    value = value > low ? value : low;
    return (T)(int)(value < high ? value : high);
}
""",
    "from_small": """
// a floating point number of 8 bits or fewer, see narrow.py
template <int E, int M, int BIAS, int LARGEST, int OVERFLOW, int NAN_CODE, bool ONE_ZERO>
__device__ __forceinline__ float from_small(unsigned char code) {
    const unsigned size = code & ((1u << (E + M)) - 1u), sign = (unsigned)(code >> (E + M) & 1) << 31;
    if (ONE_ZERO && code == NAN_CODE) return real_of(0x7fc00000u);
    if (!ONE_ZERO && size > LARGEST) return real_of(sign | (size == OVERFLOW && OVERFLOW != NAN_CODE ? 0x7f800000u
                                                                                                    : 0x7fc00000u));
    const unsigned exponent = size >> M, mantissa = size & ((1u << M) - 1u);
    if (exponent == 0) {
        const float least = real_of((unsigned)(128 - BIAS - M) << 23);
        return real_of(bits_of((float)mantissa * least) | sign);
    }
    return real_of(sign | (exponent + (unsigned)(127 - BIAS)) << 23 | mantissa << (23 - M));
}
""",
    "to_small": """
template <int E, int M, int BIAS, int LARGEST, int OVERFLOW, int NAN_CODE, bool ONE_ZERO, bool SATURATES>
__device__ __forceinline__ unsigned char to_small(float x) {
    const unsigned bits = bits_of(x), sign = (bits >> 31) << (E + M);
    if (x != x) return (unsigned char)(ONE_ZERO ? (unsigned)NAN_CODE : NAN_CODE | sign);
    // the exponent of the last digit that stays: of small numbers, that of the subnormal ones
    int exponent = (int)(bits >> 23 & 255u) - 127;
    exponent = exponent < 1 - BIAS ? 1 - BIAS : exponent;
    unsigned size = LARGEST + 1;
    if (exponent <= (1 << E)) {
        const float scale = real_of((unsigned)(127 + M - exponent) << 23);
        size = (unsigned)rintf(real_of(bits & 0x7fffffffu) * scale) + ((unsigned)(exponent + BIAS - 1) << M);
    }
    if (size > LARGEST) {
        if (!SATURATES) return (unsigned char)(ONE_ZERO ? (unsigned)OVERFLOW : OVERFLOW | sign);
        size = LARGEST;
    }
    return (unsigned char)(ONE_ZERO && size == 0 ? 0u : size | sign);
}
""",
    # what comes before what: NaN before numbers, and the first of them before others
    "is_above": """
template <typename T> __device__ __forceinline__ bool is_above(T a, T b) { return (a > b || a != a) && b == b; }
""",
    "is_below": """
template <typename T> __device__ __forceinline__ bool is_below(T a, T b) { return (a < b || a != a) && b == b; }
""",
    "is_above_or_level": """
template <typename T> __device__ __forceinline__ bool is_above_or_level(T a, T b) { return a >= b || a != a; }
""",
    "is_below_or_level": """
template <typename T> __device__ __forceinline__ bool is_below_or_level(T a, T b) { return a <= b || a != a; }
""",
    # mirrored at both ends until it lies between them
    "reflected": """
__device__ __forceinline__ float reflected(float at, float low, float high) {
    if (high <= low) return 0.0f;
    if (at >= low && at <= high) return at;
    const float span = high - low, distance = fmodf(fabsf(at - low), 2.0f * span), back = 2.0f * span - distance;
    return low + (back < distance ? back : distance);
}
""",
    # the nearest that there is; of NaN, the first
    "pixel_of": """
__device__ __forceinline__ int pixel_of(float at, int size) {
    return at > 0.0f ? at < (float)(size - 1) ? (int)at : size - 1 : 0;
}
""",
    "other_lane": """
// a value of the lane of the warp whose number differs in "bits"
template <typename T> __device__ __forceinline__ T other_lane(T x, int bits) {
    return __shfl_xor_sync(0xffffffffu, x, bits);
}
""",
    # an element of any size as "changed" makes it of what is there, at once
    "change_at": """
template <typename W, typename T, typename F> __device__ __forceinline__ void change_word_at(T* to, F changed) {
    union Word { W bits; T value; } seen, wanted;
    seen.value = *to;
    for (;;) {
        wanted.value = changed(seen.value);
        const W found = atomicCAS(reinterpret_cast<W*>(to), seen.bits, wanted.bits);
        if (found == seen.bits) return;
        seen.bits = found;
    }
}
template <typename T, typename F> __device__ __forceinline__ void change_at(T* to, F changed) {
    if constexpr (sizeof(T) == 8) change_word_at<unsigned long long>(to, changed);
    else if constexpr (sizeof(T) == 4) change_word_at<unsigned>(to, changed);
    else {
        const unsigned long long place = (unsigned long long)to;
        unsigned* const word = reinterpret_cast<unsigned*>(place & ~3ull);
        const unsigned shift = (unsigned)(place & 3ull) * 8u, mask = (sizeof(T) == 1 ? 0xffu : 0xffffu) << shift;
        unsigned seen = *word;
        for (;;) {
            const T value = changed((T)(seen >> shift));
            const unsigned found = atomicCAS(word, seen, (seen & ~mask) | ((unsigned)value << shift & mask));
            if (found == seen) return;
            seen = found;
        }
    }
}
""",
    "cubic_inner": """
// the weight of a pixel less than one from a place
__device__ __forceinline__ float cubic_inner(float x) { return (1.25f * x - 2.25f) * x * x + 1.0f; }
""",
    "cubic_outer": """
// of one between one and two from it
__device__ __forceinline__ float cubic_outer(float x) { return ((-0.75f * x + 3.75f) * x - 6.0f) * x + 3.0f; }
""",
    "dynamic_shared": """
#if defined(__CUDACC_VER_MAJOR__)
#define dynamic_shared(name) extern __shared__ __align__(16) unsigned char name[]
#elif !defined(dynamic_shared)
#define dynamic_shared(name) alignas(16) static thread_local unsigned char name[49152]
#endif
""",
}
#: what also defines a helper
_OTHERS = {"real_of": "bits_of", "wide_real_of": "bits_of"}
_WORD = re.compile(r"[A-Za-z_]\w*")


@functools.lru_cache(4096)
def with_helpers(text: str) -> str:
    """The text behind the helpers that it names, and those that they name."""
    order: dict[str, None] = {}

    def need(source: str) -> None:
        for word in dict.fromkeys(_WORD.findall(source)):
            name = _OTHERS.get(word, word)
            if name in HELPERS and name not in order and HELPERS[name] is not source:
                need(HELPERS[name])
                order[name] = None

    need(text)
    return "".join([f"#ifndef HAS_{n}\n#define HAS_{n}{HELPERS[n]}#endif\n" for n in order]) + text


__all__ = ["HELPERS", "with_helpers"]
