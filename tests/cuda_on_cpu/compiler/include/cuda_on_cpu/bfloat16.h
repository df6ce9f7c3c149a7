// What cuda_bf16.h has for devices only: included at its end.
#pragma once

#include "narrow_floats.h"

namespace cuda_on_cpu {

template <>
struct NarrowFloat<__nv_bfloat16> {
    static float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
    static __nv_bfloat16 narrow(float x) { return __float2bfloat16_rn(x); }
    static __nv_bfloat162 pair(__nv_bfloat16 low, __nv_bfloat16 high) { return __halves2bfloat162(low, high); }
    static __nv_bfloat16 low(__nv_bfloat162 x) { return __low2bfloat16(x); }
    static __nv_bfloat16 high(__nv_bfloat162 x) { return __high2bfloat16(x); }
};

}  // namespace cuda_on_cpu

CUDA_ON_CPU_NARROW_FLOAT(__nv_bfloat16, __nv_bfloat162)
