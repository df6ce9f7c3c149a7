// What cuda_fp16.h has for devices only: included at its end.
#pragma once

#include "narrow_floats.h"

namespace cuda_on_cpu {

template <>
struct NarrowFloat<__half> {
    static float widen(__half x) { return __half2float(x); }
    static __half narrow(float x) { return __float2half_rn(x); }
    static __half2 pair(__half low, __half high) { return __halves2half2(low, high); }
    static __half low(__half2 x) { return __low2half(x); }
    static __half high(__half2 x) { return __high2half(x); }
};

}  // namespace cuda_on_cpu

CUDA_ON_CPU_NARROW_FLOAT(__half, __half2)
