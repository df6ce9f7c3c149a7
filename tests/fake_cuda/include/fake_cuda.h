// CUDA C for g++: blocks run one after another, the threads of a block as fibers that change at barriers.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __constant__ static
#define __managed__ static
#define __shared__ static thread_local
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define __CUDACC_RTC__ 1
#define __CUDACC__ 1
#define __CUDA_ARCH__ FAKE_CUDA_ARCH
#define __restrict__ __restrict

struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
static thread_local uint3 threadIdx, blockIdx;
static thread_local dim3 blockDim, gridDim;
static const int warpSize = 32;

namespace fake_cuda {

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  uint3 thread;
  bool done = false;
  int waits = 0;               // 0: runs, 1: for its block, 2: for its warp
  unsigned mask = 0;           // lanes that a warp's operation waits for
  unsigned long long slot = 0; // what it shows its warp
};

static thread_local std::vector<Fiber> *fibers = nullptr;
static thread_local Fiber *current = nullptr;
static thread_local ucontext_t scheduler;
static thread_local char *dynamic_shared = nullptr;
static thread_local void (*body)(void **) = nullptr;
static thread_local void **body_arguments = nullptr;
static thread_local const char *trouble = nullptr;

static void fail(const char *text) {
  if (!trouble) trouble = text;
  if (current) {
    current->done = true;
    swapcontext(&current->context, &scheduler);
  }
}

static void enter() {
  body(body_arguments);
  current->done = true;
}

static unsigned lane_of(const Fiber &f) {
  return (f.thread.x + blockDim.x * (f.thread.y + blockDim.y * f.thread.z)) % 32;
}
static size_t index_of(const Fiber &f) {
  return f.thread.x + (size_t)blockDim.x * (f.thread.y + (size_t)blockDim.y * f.thread.z);
}

static void wait_for(int what, unsigned mask) {
  current->waits = what;
  current->mask = mask;
  swapcontext(&current->context, &scheduler);
  threadIdx = current->thread;
}

// Who waits for others that have all come goes on. False: nobody could.
static bool release() {
  bool any = false;
  bool all_at_block = true;
  for (auto &f : *fibers)
    if (!f.done && f.waits != 1) all_at_block = false;
  if (all_at_block)
    for (auto &f : *fibers)
      if (!f.done) f.waits = 0, any = true;
  for (size_t first = 0; first < fibers->size(); first += 32) {
    size_t last = first + 32 < fibers->size() ? first + 32 : fibers->size();
    for (size_t i = first; i < last; i++) {
      Fiber &f = (*fibers)[i];
      if (f.done || f.waits != 2) continue;
      bool come = true;
      for (size_t j = first; j < last; j++) {
        Fiber &g = (*fibers)[j];
        if ((f.mask >> (j - first) & 1) && !g.done && g.waits != 2) come = false;
      }
      if (!come) continue;
      for (size_t j = first; j < last; j++)
        if (f.mask >> (j - first) & 1) (*fibers)[j].waits = 0;
      any = true;
    }
  }
  return any;
}

static void run_block() {
  size_t n = (size_t)blockDim.x * blockDim.y * blockDim.z;
  std::vector<Fiber> all(n);
  fibers = &all;
  for (size_t i = 0; i < n; i++) {
    Fiber &f = all[i];
    f.thread = {(unsigned)(i % blockDim.x), (unsigned)(i / blockDim.x % blockDim.y),
                (unsigned)(i / blockDim.x / blockDim.y)};
    f.stack.resize(256 << 10);
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = &scheduler;
    makecontext(&f.context, enter, 0);
  }
  for (;;) {
    bool ran = false, left = false;
    for (auto &f : all) {
      if (f.done || f.waits) continue;
      current = &f;
      threadIdx = f.thread;
      swapcontext(&scheduler, &f.context);
      ran = true;
    }
    current = nullptr;
    for (auto &f : all) left |= !f.done;
    if (!left || trouble) break;
    if (!release() && !ran) { trouble = "threads wait for each other: a barrier that not all of them reach"; break; }
  }
  fibers = nullptr;
}

// Runs a kernel; returns what went wrong, or null.
static const char *launch(void (*function)(void **), void **arguments, const unsigned *grid, const unsigned *block,
                          size_t shared) {
  body = function;
  body_arguments = arguments;
  gridDim = dim3(grid[0], grid[1], grid[2]);
  blockDim = dim3(block[0], block[1], block[2]);
  trouble = nullptr;
  std::vector<char> memory(shared + 256);
  size_t n = (size_t)block[0] * block[1] * block[2];
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0]; x++) {
        std::memset(memory.data(), 0xff, memory.size());
        dynamic_shared = (char *)(((uintptr_t)memory.data() + 127) / 128 * 128);
        blockIdx = {x, y, z};
        threadIdx = {0, 0, 0};
        if (n == 1)
          body(arguments);
        else
          run_block();
        for (size_t i = shared; i < shared + 64; i++)
          if ((unsigned char)dynamic_shared[i] != 0xff) return "wrote behind the block's dynamic shared memory";
        if (trouble) return trouble;
      }
  return nullptr;
}

template <class F> struct Kernel;
template <class... A> struct Kernel<void (*)(A...)> {
  // kind and size of each parameter: 'p' pointer, 'f' floating, 'i' integer, 'b' bool, 's' other; ends with 0
  static const int *kinds() {
    static const int known[] = {(kind<A>() << 16 | (int)sizeof(A))..., 0};
    return known;
  }
  template <class T> static constexpr int kind() {
    return std::is_pointer<T>::value              ? 'p'
           : std::is_floating_point<T>::value     ? 'f'
           : std::is_same<T, bool>::value         ? 'b'
           : std::is_integral<T>::value           ? 'i'
                                                  : 's';
  }
  template <size_t... I> static void call(void (*f)(A...), void **a, std::index_sequence<I...>) {
    f(*(typename std::remove_cv<A>::type *)a[I]...);
  }
  static void apply(void (*f)(A...), void **a) { call(f, a, std::index_sequence_for<A...>{}); }
};

template <class T> inline unsigned long long to_slot(T value) {
  unsigned long long slot = 0;
  static_assert(sizeof(T) <= 8, "shuffles are of 8 bytes at most");
  std::memcpy(&slot, &value, sizeof(T));
  return slot;
}
template <class T> inline T from_slot(unsigned long long slot) {
  T value;
  std::memcpy(&value, &slot, sizeof(T));
  return value;
}
// All lanes of a mask show a value, then each reads one.
template <class T, class Source> inline T exchange(unsigned mask, T value, int width, Source source) {
  if (!fibers || !current) return value;
  size_t me = index_of(*current), first = me / 32 * 32;
  int lane = (int)(me - first), segment = lane / width * width;
  if (!(mask >> lane & 1)) { fail("a lane is not in its own mask"); return value; }
  current->slot = to_slot(value);
  wait_for(2, mask);
  int from = source(lane - segment, width);
  T got = value;
  if (from >= 0 && from < width && first + segment + from < fibers->size())
    got = from_slot<T>((*fibers)[first + segment + from].slot);
  wait_for(2, mask);
  return got;
}
template <class Fold> inline unsigned vote(unsigned mask, unsigned value, Fold fold) {
  if (!fibers || !current) return value ? 1u : 0u;
  size_t me = index_of(*current), first = me / 32 * 32;
  current->slot = value;
  wait_for(2, mask);
  unsigned ballot = 0;
  for (size_t i = 0; i < 32 && first + i < fibers->size(); i++)
    if ((mask >> i & 1) && (*fibers)[first + i].slot) ballot |= 1u << i;
  wait_for(2, mask);
  return fold(ballot);
}
} // namespace fake_cuda

inline void __syncthreads() {
  if (fake_cuda::current) fake_cuda::wait_for(1, 0);
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  if (fake_cuda::current) fake_cuda::wait_for(2, mask);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __trap() { fake_cuda::fail("__trap()"); }
inline unsigned __activemask() { return 0xffffffffu; }
inline long long clock64() { return 0; }

template <class T> T __shfl_sync(unsigned m, T v, int lane, int width = 32) {
  return fake_cuda::exchange(m, v, width, [=](int, int w) { return lane % w; });
}
template <class T> T __shfl_up_sync(unsigned m, T v, unsigned d, int width = 32) {
  return fake_cuda::exchange(m, v, width, [=](int l, int) { return l - (int)d < 0 ? l : l - (int)d; });
}
template <class T> T __shfl_down_sync(unsigned m, T v, unsigned d, int width = 32) {
  return fake_cuda::exchange(m, v, width, [=](int l, int w) { return l + (int)d >= w ? l : l + (int)d; });
}
template <class T> T __shfl_xor_sync(unsigned m, T v, int x, int width = 32) {
  return fake_cuda::exchange(m, v, width, [=](int l, int) { return l ^ x; });
}
inline unsigned __ballot_sync(unsigned m, int p) { return fake_cuda::vote(m, p, [](unsigned b) { return b; }); }
inline int __any_sync(unsigned m, int p) { return fake_cuda::vote(m, p, [](unsigned b) { return b ? 1u : 0u; }); }
inline int __all_sync(unsigned m, int p) {
  return !fake_cuda::vote(m, !p, [](unsigned b) { return b ? 1u : 0u; });
}
inline int __syncthreads_count(int p) {
  if (!fake_cuda::current) return p != 0;
  fake_cuda::current->slot = p != 0;
  __syncthreads();
  int n = 0;
  for (auto &f : *fake_cuda::fibers) n += f.done ? 0 : (int)f.slot;
  __syncthreads();
  return n;
}
inline int __syncthreads_or(int p) { return __syncthreads_count(p) > 0; }
inline int __syncthreads_and(int p) { return !__syncthreads_or(!p); }

#include "fake_math.h"
#include "fake_half.h"
