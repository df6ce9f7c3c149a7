// Mathematical functions that CUDA has beside those of C, and C's as CUDA overloads them: CUDA Math API, "Single
// Precision Mathematical Functions", "Double Precision Mathematical Functions", "Integer Mathematical Functions".
#pragma once

#include <math.h>

#include "special_functions.h"

// name(double), name(float) and namef(float)
#define CUDA_ON_CPU_UNARY(name)                     \
    static inline double name(double x) {           \
        return cuda_on_cpu::name(x);                \
    }                                               \
    static inline float name(float x) {             \
        return (float)cuda_on_cpu::name((double)x); \
    }                                               \
    static inline float name##f(float x) {          \
        return (float)cuda_on_cpu::name((double)x); \
    }

CUDA_ON_CPU_UNARY(rsqrt)
CUDA_ON_CPU_UNARY(rcbrt)
CUDA_ON_CPU_UNARY(sinpi)
CUDA_ON_CPU_UNARY(cospi)
CUDA_ON_CPU_UNARY(erfcx)
CUDA_ON_CPU_UNARY(erfinv)
CUDA_ON_CPU_UNARY(erfcinv)
CUDA_ON_CPU_UNARY(normcdf)
CUDA_ON_CPU_UNARY(normcdfinv)
CUDA_ON_CPU_UNARY(cyl_bessel_i0)
CUDA_ON_CPU_UNARY(cyl_bessel_i1)

#undef CUDA_ON_CPU_UNARY

static inline double rhypot(double x, double y) {
    return cuda_on_cpu::rhypot(x, y);
}
static inline float rhypot(float x, float y) {
    return (float)cuda_on_cpu::rhypot(x, y);
}
static inline float rhypotf(float x, float y) {
    return (float)cuda_on_cpu::rhypot(x, y);
}
static inline double norm3d(double x, double y, double z) {
    return cuda_on_cpu::norm3d(x, y, z);
}
static inline float norm3df(float x, float y, float z) {
    return (float)cuda_on_cpu::norm3d(x, y, z);
}
static inline double rnorm3d(double x, double y, double z) {
    return cuda_on_cpu::rnorm3d(x, y, z);
}
static inline float rnorm3df(float x, float y, float z) {
    return (float)cuda_on_cpu::rnorm3d(x, y, z);
}
static inline double norm4d(double x, double y, double z, double w) {
    return cuda_on_cpu::norm4d(x, y, z, w);
}
static inline float norm4df(float x, float y, float z, float w) {
    return (float)cuda_on_cpu::norm4d(x, y, z, w);
}
static inline double rnorm4d(double x, double y, double z, double w) {
    return cuda_on_cpu::rnorm4d(x, y, z, w);
}
static inline float rnorm4df(float x, float y, float z, float w) {
    return (float)cuda_on_cpu::rnorm4d(x, y, z, w);
}

static inline float exp10(float x) {
    return exp10f(x);
}
static inline float j0(float x) {
    return j0f(x);
}
static inline float j1(float x) {
    return j1f(x);
}
static inline float y0(float x) {
    return y0f(x);
}
static inline float y1(float x) {
    return y1f(x);
}
static inline float jn(int n, float x) {
    return jnf(n, x);
}
static inline float yn(int n, float x) {
    return ynf(n, x);
}

static inline void sincos(float x, float* sine, float* cosine) {
    *sine = sinf(x);
    *cosine = cosf(x);
}
static inline void sincospi(double x, double* sine, double* cosine) {
    *sine = sinpi(x);
    *cosine = cospi(x);
}
static inline void sincospi(float x, float* sine, float* cosine) {
    *sine = sinpi(x);
    *cosine = cospi(x);
}
static inline void sincospif(float x, float* sine, float* cosine) {
    sincospi(x, sine, cosine);
}

#define CUDA_ON_CPU_MIN_MAX(Result, A, B)                     \
    static inline Result min(A a, B b) {                      \
        return (Result)a < (Result)b ? (Result)a : (Result)b; \
    }                                                         \
    static inline Result max(A a, B b) {                      \
        return (Result)a > (Result)b ? (Result)a : (Result)b; \
    }
#define CUDA_ON_CPU_MIN_MAX_OF(Signed, Unsigned)      \
    CUDA_ON_CPU_MIN_MAX(Signed, Signed, Signed)       \
    CUDA_ON_CPU_MIN_MAX(Unsigned, Unsigned, Unsigned) \
    CUDA_ON_CPU_MIN_MAX(Unsigned, Signed, Unsigned)   \
    CUDA_ON_CPU_MIN_MAX(Unsigned, Unsigned, Signed)

CUDA_ON_CPU_MIN_MAX_OF(int, unsigned)
CUDA_ON_CPU_MIN_MAX_OF(long, unsigned long)
CUDA_ON_CPU_MIN_MAX_OF(long long, unsigned long long)

#undef CUDA_ON_CPU_MIN_MAX
#undef CUDA_ON_CPU_MIN_MAX_OF

// of a number and NaN, the number
static inline float min(float a, float b) {
    return fminf(a, b);
}
static inline float max(float a, float b) {
    return fmaxf(a, b);
}
static inline double min(double a, double b) {
    return fmin(a, b);
}
static inline double max(double a, double b) {
    return fmax(a, b);
}
static inline double min(float a, double b) {
    return fmin(a, b);
}
static inline double max(float a, double b) {
    return fmax(a, b);
}
static inline double min(double a, float b) {
    return fmin(a, b);
}
static inline double max(double a, float b) {
    return fmax(a, b);
}
static inline unsigned umin(unsigned a, unsigned b) {
    return min(a, b);
}
static inline unsigned umax(unsigned a, unsigned b) {
    return max(a, b);
}
static inline long long llmin(long long a, long long b) {
    return min(a, b);
}
static inline long long llmax(long long a, long long b) {
    return max(a, b);
}
static inline unsigned long long ullmin(unsigned long long a, unsigned long long b) {
    return min(a, b);
}
static inline unsigned long long ullmax(unsigned long long a, unsigned long long b) {
    return max(a, b);
}
