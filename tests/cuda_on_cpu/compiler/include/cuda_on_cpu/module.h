// What a module has of its own: special registers, shared memory, and the launch of its kernels.
#pragma once

#include <pthread.h>
#include <stddef.h>

#include <type_traits>
#include <utility>

#include "launch.h"

namespace cuda_on_cpu {

#pragma GCC visibility push(hidden)
inline Dimensions module_thread, module_block, module_block_dim, module_grid_dim;
// more than the 227 KiB that a block may have of any GPU
inline unsigned char module_dynamic_shared[256 << 10] __attribute__((aligned(1024)));
inline pthread_mutex_t module_mutex = PTHREAD_MUTEX_INITIALIZER;
inline Module this_module = {
    &module_thread,   &module_block,         &module_block_dim,
    &module_grid_dim, module_dynamic_shared, sizeof module_dynamic_shared,
    &module_mutex,
};
#pragma GCC visibility pop

template <class... Parameters>
struct KernelOf {
    using Pointer = void (*)(Parameters...);

    template <class Parameter>
    using Kept = std::remove_cv_t<std::remove_reference_t<Parameter>>;

    template <size_t... I>
    static inline __attribute__((always_inline)) void call(Pointer kernel, void** params, std::index_sequence<I...>) {
        kernel(*static_cast<Kept<Parameters>*>(params[I])...);
    }

    static void call(void (*kernel)(), void** params) {
        call(reinterpret_cast<Pointer>(kernel), params, std::index_sequence_for<Parameters...>());
    }
};

template <class... Parameters>
static int launch(void (*kernel)(Parameters...), void** params, const unsigned* grid, const unsigned* block,
                  unsigned shared_nbytes) {
    const KernelCall call = KernelOf<Parameters...>::call;
    return cuda_on_cpu_launch(call, reinterpret_cast<void (*)()>(kernel), params, grid, block, shared_nbytes,
                              &this_module);
}

// How many parameters a kernel has; the sizes of the first `capacity` of them go to `to`.
template <class... Parameters>
static unsigned parameters_nbytes(void (*)(Parameters...), unsigned* to, unsigned capacity) {
    const unsigned found[] = {static_cast<unsigned>(sizeof(Parameters))..., 0};
    for (unsigned i = 0; i < sizeof...(Parameters) && i < capacity; ++i) {
        to[i] = found[i];
    }
    return sizeof...(Parameters);
}

}  // namespace cuda_on_cpu
