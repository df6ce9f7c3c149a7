// Conversions of a rounding: CUDA Math API, "Type Casting Intrinsics". Of what an integer can't hold, the nearest that
// it can; of NaN 0, or 1 << 63 in 8 bytes.
#pragma once

#include <math.h>

#include <limits>

#include "bits.h"

namespace cuda_on_cpu {

template <class Integer>
static inline Integer to_integer(double x) {
    if (x != x) return sizeof(Integer) == 8 ? (Integer)(1ull << 63) : 0;
    if (x <= (double)std::numeric_limits<Integer>::min()) return std::numeric_limits<Integer>::min();
    if (x >= (double)std::numeric_limits<Integer>::max()) return std::numeric_limits<Integer>::max();
    return (Integer)x;
}

// The float next to x on the side of 0.
template <class T>
static inline float to_float_toward_zero(T x) {
    const float y = (float)x;
    return fabs((double)y) > fabs((double)x) ? nextafterf(y, 0) : y;
}

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_TO_INTEGER(Float, name, Integer)               \
    static inline Integer __##Float##2##name##_rz(Float x) {       \
        return cuda_on_cpu::to_integer<Integer>(trunc((double)x)); \
    }                                                              \
    static inline Integer __##Float##2##name##_rn(Float x) {       \
        return cuda_on_cpu::to_integer<Integer>(rint((double)x));  \
    }                                                              \
    static inline Integer __##Float##2##name##_rd(Float x) {       \
        return cuda_on_cpu::to_integer<Integer>(floor((double)x)); \
    }                                                              \
    static inline Integer __##Float##2##name##_ru(Float x) {       \
        return cuda_on_cpu::to_integer<Integer>(ceil((double)x));  \
    }
#define CUDA_ON_CPU_CONVERSIONS(name, Integer)             \
    CUDA_ON_CPU_TO_INTEGER(float, name, Integer)           \
    CUDA_ON_CPU_TO_INTEGER(double, name, Integer)          \
    static inline float __##name##2float_rn(Integer x) {   \
        return (float)x;                                   \
    }                                                      \
    static inline float __##name##2float_rz(Integer x) {   \
        return cuda_on_cpu::to_float_toward_zero(x);       \
    }                                                      \
    static inline double __##name##2double_rn(Integer x) { \
        return (double)x;                                  \
    }

CUDA_ON_CPU_CONVERSIONS(int, int)
CUDA_ON_CPU_CONVERSIONS(uint, unsigned)
CUDA_ON_CPU_CONVERSIONS(ll, long long)
CUDA_ON_CPU_CONVERSIONS(ull, unsigned long long)

#undef CUDA_ON_CPU_TO_INTEGER
#undef CUDA_ON_CPU_CONVERSIONS

static inline float __double2float_rn(double x) {
    return (float)x;
}
static inline float __double2float_rz(double x) {
    return cuda_on_cpu::to_float_toward_zero(x);
}
static inline float __double2float_rd(double x) {
    const float y = (float)x;
    return (double)y > x ? nextafterf(y, -INFINITY) : y;
}
static inline float __double2float_ru(double x) {
    const float y = (float)x;
    return (double)y < x ? nextafterf(y, INFINITY) : y;
}

namespace cuda_on_cpu {

// PTX's cvt.f32.f16 and cvt.rn.f16.f32, which sources have as assembly.
static inline float half_to_float(unsigned short x) {
    const unsigned infinity = 0x7c00u << 13;
    const unsigned shifted = (x & 0x7fffu) << 13;
    // the multiplication makes up for the exponents' biases, and makes subnormal numbers normal
    const unsigned size =
        shifted >= infinity ? shifted | 0x7f800000u : __float_as_uint(__uint_as_float(shifted) * 0x1p112f);
    return __uint_as_float(size | (x & 0x8000u) << 16);
}

static inline unsigned short float_to_half(float x) {
    const unsigned bits = __float_as_uint(x), size = bits & 0x7fffffffu, sign = bits >> 16 & 0x8000u;
    const unsigned infinity = 0x7f800000u, overflow = 143u << 23, least_normal = 113u << 23, half = 126u << 23;
    if (size > infinity) return 0x7fffu;
    unsigned y;
    if (size >= overflow) {
        y = 0x7c00u;
    } else if (size < least_normal) {
        // the sum's rounding is that of the subnormal number
        y = __float_as_uint(__uint_as_float(size) + __uint_as_float(half)) - half;
    } else {
        y = (size + (size >> 13 & 1u) + ((15u - 127u) << 23) + 0xfffu) >> 13;
    }
    return (unsigned short)(y | sign);
}

}  // namespace cuda_on_cpu
