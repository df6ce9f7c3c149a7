// CUDA C++ for g++: in front of each source that NVRTC would be given. What NVRTC has built in is here and in the
// headers below, but for those of narrow floats, CUB and cooperative groups, which a source includes itself.
#pragma once

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

#define __CUDACC_VER_MAJOR__ 12
#define __CUDACC_VER_MINOR__ 9
#define __CUDACC_VER_BUILD__ 86

#include <vector_functions.h>
#include <vector_types.h>

// crt/host_defines.h has these as for a host
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __managed__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __restrict__
#undef __align__
#undef __grid_constant__
#undef __cluster_dims__
#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__
#define __managed__
#define __forceinline__ __inline__ __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __cluster_dims__(...)
#define __restrict__ __restrict
#define __align__(...) __attribute__((aligned(__VA_ARGS__)))
#define __grid_constant__
#define __nv_pure__
#define __builtin_assume(...) ((void)0)

#include "module.h"

#define threadIdx (*(const uint3*)&cuda_on_cpu::module_thread)
#define blockIdx (*(const uint3*)&cuda_on_cpu::module_block)
#define blockDim (*(const dim3*)&cuda_on_cpu::module_block_dim)
#define gridDim (*(const dim3*)&cuda_on_cpu::module_grid_dim)
#define warpSize 32

#include "arithmetic.h"
#include "atomics.h"
#include "bits.h"
#include "conversions.h"
#include "mathematics.h"
#include "memory.h"
#include "threads.h"
