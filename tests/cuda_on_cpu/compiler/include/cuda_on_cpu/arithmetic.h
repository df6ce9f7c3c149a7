// Arithmetic whose name says how it rounds, or that it is fast (CUDA Math API, "Single Precision Intrinsics", "Double
// Precision Intrinsics"). All rounds to nearest, and what is fast on a GPU is exact here.
#pragma once

#include <math.h>

#define CUDA_ON_CPU_ARITHMETIC(rounding)                                  \
    static inline float __fadd_##rounding(float a, float b) {             \
        return a + b;                                                     \
    }                                                                     \
    static inline float __fsub_##rounding(float a, float b) {             \
        return a - b;                                                     \
    }                                                                     \
    static inline float __fmul_##rounding(float a, float b) {             \
        return a * b;                                                     \
    }                                                                     \
    static inline float __fdiv_##rounding(float a, float b) {             \
        return a / b;                                                     \
    }                                                                     \
    static inline float __frcp_##rounding(float a) {                      \
        return 1.0f / a;                                                  \
    }                                                                     \
    static inline float __fsqrt_##rounding(float a) {                     \
        return sqrtf(a);                                                  \
    }                                                                     \
    static inline float __fmaf_##rounding(float a, float b, float c) {    \
        return fmaf(a, b, c);                                             \
    }                                                                     \
    static inline double __dadd_##rounding(double a, double b) {          \
        return a + b;                                                     \
    }                                                                     \
    static inline double __dsub_##rounding(double a, double b) {          \
        return a - b;                                                     \
    }                                                                     \
    static inline double __dmul_##rounding(double a, double b) {          \
        return a * b;                                                     \
    }                                                                     \
    static inline double __ddiv_##rounding(double a, double b) {          \
        return a / b;                                                     \
    }                                                                     \
    static inline double __drcp_##rounding(double a) {                    \
        return 1.0 / a;                                                   \
    }                                                                     \
    static inline double __dsqrt_##rounding(double a) {                   \
        return sqrt(a);                                                   \
    }                                                                     \
    static inline double __fma_##rounding(double a, double b, double c) { \
        return fma(a, b, c);                                              \
    }

CUDA_ON_CPU_ARITHMETIC(rn)
CUDA_ON_CPU_ARITHMETIC(rz)
CUDA_ON_CPU_ARITHMETIC(ru)
CUDA_ON_CPU_ARITHMETIC(rd)

#undef CUDA_ON_CPU_ARITHMETIC

static inline float __frsqrt_rn(float x) {
    return (float)(1.0 / sqrt((double)x));
}
static inline float __fdividef(float x, float y) {
    return x / y;
}
static inline float fdividef(float x, float y) {
    return x / y;
}
static inline float fdivide(float x, float y) {
    return x / y;
}
static inline double fdivide(double x, double y) {
    return x / y;
}
static inline float __saturatef(float x) {
    return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f;
}

// glibc declares these names itself, and has no such functions
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf
#define __tanhf tanhf
#define __powf powf
#define __sincosf sincos
