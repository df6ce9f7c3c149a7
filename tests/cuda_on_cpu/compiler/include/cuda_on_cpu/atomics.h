// Atomic functions (CUDA C++ Programming Guide), of the three scopes, for the types that CUDA has them for.
#pragma once

#include <type_traits>

namespace cuda_on_cpu {

// T, where it is one of `Types`.
template <class T, class... Types>
using OneOf = std::enable_if_t<(std::is_same<T, Types>::value || ...), T>;

// A parameter that a type isn't deduced from.
template <class T>
struct AsGiven {
    using Type = T;
};
template <class T>
using Value = typename AsGiven<T>::Type;

// Puts function(old) where `p` points and returns the old value.
template <class T, class Function>
static inline T atomically(T* p, Function function) {
    T old = *p;
    for (;;) {
        T made = function(old);
        if (__atomic_compare_exchange(p, &old, &made, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) return old;
    }
}

}  // namespace cuda_on_cpu

// `made` is of `old` and `value`.
#define CUDA_ON_CPU_ATOMIC_OF_SCOPE(name, made, ...)                                           \
    template <class T>                                                                         \
    static inline cuda_on_cpu::OneOf<T, __VA_ARGS__> name(T* p, cuda_on_cpu::Value<T> value) { \
        return cuda_on_cpu::atomically(p, [value](T old) -> T { return made; });               \
    }
#define CUDA_ON_CPU_ATOMIC(name, made, ...)                      \
    CUDA_ON_CPU_ATOMIC_OF_SCOPE(name, made, __VA_ARGS__)         \
    CUDA_ON_CPU_ATOMIC_OF_SCOPE(name##_block, made, __VA_ARGS__) \
    CUDA_ON_CPU_ATOMIC_OF_SCOPE(name##_system, made, __VA_ARGS__)
#define CUDA_ON_CPU_ATOMIC_CAS(name)                                                               \
    template <class T>                                                                             \
    static inline cuda_on_cpu::OneOf<T, int, unsigned, unsigned long long, unsigned short> name(   \
        T* p, cuda_on_cpu::Value<T> compare, cuda_on_cpu::Value<T> value) {                        \
        __atomic_compare_exchange(p, &compare, &value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
        return compare;                                                                            \
    }

CUDA_ON_CPU_ATOMIC(atomicAdd, old + value, int, unsigned, unsigned long long, float, double)
CUDA_ON_CPU_ATOMIC(atomicSub, old - value, int, unsigned)
CUDA_ON_CPU_ATOMIC(atomicExch, ((void)old, value), int, unsigned, unsigned long long, float)
CUDA_ON_CPU_ATOMIC(atomicMin, value < old ? value : old, int, unsigned, long long, unsigned long long)
CUDA_ON_CPU_ATOMIC(atomicMax, value > old ? value : old, int, unsigned, long long, unsigned long long)
CUDA_ON_CPU_ATOMIC(atomicInc, old >= value ? 0 : old + 1, unsigned)
CUDA_ON_CPU_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1, unsigned)
CUDA_ON_CPU_ATOMIC(atomicAnd, (old & value), int, unsigned, unsigned long long)
CUDA_ON_CPU_ATOMIC(atomicOr, old | value, int, unsigned, unsigned long long)
CUDA_ON_CPU_ATOMIC(atomicXor, old ^ value, int, unsigned, unsigned long long)
CUDA_ON_CPU_ATOMIC_CAS(atomicCAS)
CUDA_ON_CPU_ATOMIC_CAS(atomicCAS_block)
CUDA_ON_CPU_ATOMIC_CAS(atomicCAS_system)

#undef CUDA_ON_CPU_ATOMIC_OF_SCOPE
#undef CUDA_ON_CPU_ATOMIC
#undef CUDA_ON_CPU_ATOMIC_CAS
