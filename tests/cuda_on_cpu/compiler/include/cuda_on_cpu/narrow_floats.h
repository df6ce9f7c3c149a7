// Functions of float16 and bfloat16, and of two of one, that cuda_fp16.h and cuda_bf16.h have for devices only: CUDA
// Math API, "Half Precision Intrinsics", "Bfloat16 Precision Intrinsics". Each is computed in float, or in double where
// float would round a second time.
#pragma once

#include <math.h>

#include "arithmetic.h"
#include "mathematics.h"

namespace cuda_on_cpu {

// Of each format: widen(Number) and narrow(float), pair(low, high), low(Pair), high(Pair).
template <class Number>
struct NarrowFloat;

template <class Number>
static inline Number with_float(Number x, float (*function)(float)) {
    using Format = NarrowFloat<Number>;
    return Format::narrow(function(Format::widen(x)));
}

template <class Number>
static inline float fused(Number a, Number b, Number c) {
    using Format = NarrowFloat<Number>;
    return (float)fma((double)Format::widen(a), (double)Format::widen(b), (double)Format::widen(c));
}

template <class Number>
static inline Number sum(Number a, Number b) {
    using Format = NarrowFloat<Number>;
    return Format::narrow(Format::widen(a) + Format::widen(b));
}

static inline float reciprocal(float x) {
    return 1.0f / x;
}

}  // namespace cuda_on_cpu

// hNAME of a number and h2NAME of two
#define CUDA_ON_CPU_NARROW_UNARY(Number, Pair, name, function)                  \
    static inline Number h##name(Number x) {                                    \
        return cuda_on_cpu::with_float<Number>(x, function);                    \
    }                                                                           \
    static inline Pair h2##name(Pair x) {                                       \
        using Format = cuda_on_cpu::NarrowFloat<Number>;                        \
        return Format::pair(h##name(Format::low(x)), h##name(Format::high(x))); \
    }

#define CUDA_ON_CPU_NARROW_FLOAT(Number, Pair)                                                     \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, exp, ::expf)                                            \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, exp2, ::exp2f)                                          \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, exp10, ::exp10f)                                        \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, log, ::logf)                                            \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, log2, ::log2f)                                          \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, log10, ::log10f)                                        \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, sin, ::sinf)                                            \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, cos, ::cosf)                                            \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, sqrt, ::sqrtf)                                          \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, rsqrt, ::rsqrtf)                                        \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, floor, ::floorf)                                        \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, ceil, ::ceilf)                                          \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, rint, ::rintf)                                          \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, trunc, ::truncf)                                        \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, tanh, ::tanhf)                                          \
    CUDA_ON_CPU_NARROW_UNARY(Number, Pair, rcp, cuda_on_cpu::reciprocal)                           \
    static inline Number htanh_approx(Number x) {                                                  \
        return htanh(x);                                                                           \
    }                                                                                              \
    static inline Number __hfma(Number a, Number b, Number c) {                                    \
        return cuda_on_cpu::NarrowFloat<Number>::narrow(cuda_on_cpu::fused(a, b, c));              \
    }                                                                                              \
    static inline Number __hfma_sat(Number a, Number b, Number c) {                                \
        return cuda_on_cpu::NarrowFloat<Number>::narrow(__saturatef(cuda_on_cpu::fused(a, b, c))); \
    }                                                                                              \
    static inline Number __hfma_relu(Number a, Number b, Number c) {                               \
        return cuda_on_cpu::NarrowFloat<Number>::narrow(fmaxf(0.0f, cuda_on_cpu::fused(a, b, c))); \
    }                                                                                              \
    static inline Pair __hfma2(Pair a, Pair b, Pair c) {                                           \
        using Format = cuda_on_cpu::NarrowFloat<Number>;                                           \
        return Format::pair(__hfma(Format::low(a), Format::low(b), Format::low(c)),                \
                            __hfma(Format::high(a), Format::high(b), Format::high(c)));            \
    }                                                                                              \
    static inline Number atomicAdd(Number* p, Number value) {                                      \
        const Number old = *p;                                                                     \
        *p = cuda_on_cpu::sum(old, value);                                                         \
        return old;                                                                                \
    }                                                                                              \
    static inline Pair atomicAdd(Pair* p, Pair value) {                                            \
        using Format = cuda_on_cpu::NarrowFloat<Number>;                                           \
        const Pair old = *p;                                                                       \
        *p = Format::pair(cuda_on_cpu::sum(Format::low(old), Format::low(value)),                  \
                          cuda_on_cpu::sum(Format::high(old), Format::high(value)));               \
        return old;                                                                                \
    }
