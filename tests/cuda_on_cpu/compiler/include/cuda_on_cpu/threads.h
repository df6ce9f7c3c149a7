// Where threads meet (CUDA C++ Programming Guide, "Synchronization Functions", "Warp ... Functions"), fences, and what
// stops or delays a thread.
#pragma once

#include <string.h>

#include "launch.h"

static inline void __syncthreads() {
    cuda_on_cpu_syncthreads(false, nullptr, nullptr);
}
static inline int __syncthreads_count(int predicate) {
    unsigned n_true;
    cuda_on_cpu_syncthreads(predicate, &n_true, nullptr);
    return (int)n_true;
}
static inline int __syncthreads_and(int predicate) {
    unsigned n_true, n;
    cuda_on_cpu_syncthreads(predicate, &n_true, &n);
    return n_true == n;
}
static inline int __syncthreads_or(int predicate) {
    return __syncthreads_count(predicate) != 0;
}
static inline void __barrier_sync(unsigned) {
    __syncthreads();
}

// A call's site tells which of a warp's threads have come to it together.
static __attribute__((noinline)) unsigned __activemask() {
    return cuda_on_cpu_activemask(__builtin_return_address(0));
}

namespace cuda_on_cpu {

static inline unsigned lower_lanes() {
    return (1u << cuda_on_cpu_lane()) - 1;
}

static inline unsigned together(LaneOperation operation, unsigned mask, unsigned long long value) {
    return (unsigned)cuda_on_cpu_warp(operation, mask, value, 0, 32);
}

// A value of any size, by words of 8 bytes.
template <class T>
static inline T shuffled(LaneOperation operation, unsigned mask, T value, int argument, int width) {
    constexpr size_t n = (sizeof(T) + 7) / 8;
    unsigned long long words[n] = {};
    memcpy((void*)words, (const void*)&value, sizeof(T));
    for (size_t i = 0; i < n; ++i) {
        words[i] = cuda_on_cpu_warp(operation, mask, words[i], argument, width);
    }
    T made(value);
    memcpy((void*)&made, (const void*)words, sizeof(T));
    return made;
}

template <class T>
static inline unsigned matched(LaneOperation operation, unsigned mask, T value) {
    unsigned long long word = 0;
    memcpy(&word, &value, sizeof(T));
    return together(operation, mask, word);
}

}  // namespace cuda_on_cpu

static inline void __syncwarp(unsigned mask = 0xffffffffu) {
    cuda_on_cpu::together(cuda_on_cpu::SYNC, mask, 0);
}

template <class T>
static inline T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    return cuda_on_cpu::shuffled(cuda_on_cpu::SHUFFLE_INDEX, mask, value, from, width);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    return cuda_on_cpu::shuffled(cuda_on_cpu::SHUFFLE_UP, mask, value, (int)by, width);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    return cuda_on_cpu::shuffled(cuda_on_cpu::SHUFFLE_DOWN, mask, value, (int)by, width);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    return cuda_on_cpu::shuffled(cuda_on_cpu::SHUFFLE_XOR, mask, value, bits, width);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    return cuda_on_cpu::together(cuda_on_cpu::BALLOT, mask, predicate != 0);
}
static inline int __any_sync(unsigned mask, int predicate) {
    return (int)cuda_on_cpu::together(cuda_on_cpu::ANY, mask, predicate != 0);
}
static inline int __all_sync(unsigned mask, int predicate) {
    return (int)cuda_on_cpu::together(cuda_on_cpu::ALL, mask, predicate != 0);
}

template <class T>
static inline unsigned __match_any_sync(unsigned mask, T value) {
    return cuda_on_cpu::matched(cuda_on_cpu::MATCH_ANY, mask, value);
}
template <class T>
static inline unsigned __match_all_sync(unsigned mask, T value, int* is_all) {
    const unsigned found = cuda_on_cpu::matched(cuda_on_cpu::MATCH_ALL, mask, value);
    *is_all = found != 0;
    return found;
}

static inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
    return cuda_on_cpu::together(cuda_on_cpu::SUM, mask, value);
}
static inline int __reduce_add_sync(unsigned mask, int value) {
    return (int)cuda_on_cpu::together(cuda_on_cpu::SUM, mask, (unsigned)value);
}
static inline unsigned __reduce_min_sync(unsigned mask, unsigned value) {
    return cuda_on_cpu::together(cuda_on_cpu::MIN_UNSIGNED, mask, value);
}
static inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
    return cuda_on_cpu::together(cuda_on_cpu::MAX_UNSIGNED, mask, value);
}
static inline int __reduce_min_sync(unsigned mask, int value) {
    return (int)cuda_on_cpu::together(cuda_on_cpu::MIN_SIGNED, mask, (unsigned)value);
}
static inline int __reduce_max_sync(unsigned mask, int value) {
    return (int)cuda_on_cpu::together(cuda_on_cpu::MAX_SIGNED, mask, (unsigned)value);
}
static inline unsigned __reduce_and_sync(unsigned mask, unsigned value) {
    return cuda_on_cpu::together(cuda_on_cpu::AND, mask, value);
}
static inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
    return cuda_on_cpu::together(cuda_on_cpu::OR, mask, value);
}
static inline unsigned __reduce_xor_sync(unsigned mask, unsigned value) {
    return cuda_on_cpu::together(cuda_on_cpu::XOR, mask, value);
}

// without a mask, as before CUDA 9: of those that are active
template <class T>
static inline T __shfl(T value, int from, int width = 32) {
    return __shfl_sync(__activemask(), value, from, width);
}
template <class T>
static inline T __shfl_up(T value, unsigned by, int width = 32) {
    return __shfl_up_sync(__activemask(), value, by, width);
}
template <class T>
static inline T __shfl_down(T value, unsigned by, int width = 32) {
    return __shfl_down_sync(__activemask(), value, by, width);
}
template <class T>
static inline T __shfl_xor(T value, int bits, int width = 32) {
    return __shfl_xor_sync(__activemask(), value, bits, width);
}
static inline unsigned __ballot(int predicate) {
    return __ballot_sync(__activemask(), predicate);
}
static inline int __any(int predicate) {
    return __any_sync(__activemask(), predicate);
}
static inline int __all(int predicate) {
    return __all_sync(__activemask(), predicate);
}

static inline void __threadfence() {
    __sync_synchronize();
}
static inline void __threadfence_block() {
    __asm__ volatile("" ::: "memory");
}
static inline void __threadfence_system() {
    __sync_synchronize();
}

static inline void __nanosleep(unsigned) {
    cuda_on_cpu_yield();
}
static inline void __trap() {
    cuda_on_cpu_stop(cuda_on_cpu::TRAPPED);
}
static inline void __brkpt() {}
static inline void __prof_trigger(int) {}
static inline long long clock64() {
    return (long long)__builtin_ia32_rdtsc();
}
// glibc's has the name
#define clock() ((int)clock64())
