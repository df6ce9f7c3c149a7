// Cooperative groups (CUDA C++ Programming Guide) of a block, of tiles of a warp and of active lanes. A grid's sync is
// there for a grid of one block.
#pragma once

#include "cuda_on_cpu/threads.h"

namespace cooperative_groups {

struct thread_block {
    static void sync() { __syncthreads(); }
    static unsigned thread_rank() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
    static unsigned size() { return blockDim.x * blockDim.y * blockDim.z; }
    static unsigned num_threads() { return size(); }
    static dim3 group_index() { return blockIdx; }
    static dim3 thread_index() { return threadIdx; }
    static dim3 group_dim() { return blockDim; }
    static dim3 dim_threads() { return blockDim; }
};

struct grid_group {
    bool is_valid() const { return true; }
    void sync() const {
        if (num_blocks() != 1) cuda_on_cpu_stop(cuda_on_cpu::DEADLOCKED);
        __syncthreads();
    }
    unsigned long long thread_rank() const { return block_rank() * thread_block::size() + thread_block::thread_rank(); }
    unsigned long long block_rank() const {
        return blockIdx.x + (unsigned long long)gridDim.x * (blockIdx.y + (unsigned long long)gridDim.y * blockIdx.z);
    }
    unsigned long long num_blocks() const { return (unsigned long long)gridDim.x * gridDim.y * gridDim.z; }
    unsigned long long size() const { return num_blocks() * thread_block::size(); }
    unsigned long long num_threads() const { return size(); }
    dim3 group_dim() const { return gridDim; }
    dim3 block_index() const { return blockIdx; }
    dim3 dim_blocks() const { return gridDim; }
};

namespace detail {

// Lanes of a warp, by their mask. A rank counts those of the mask.
struct lanes {
    unsigned mask;

    unsigned size() const { return __popc(mask); }
    unsigned num_threads() const { return size(); }
    unsigned thread_rank() const { return __popc(mask & cuda_on_cpu::lower_lanes()); }
    void sync() const { __syncwarp(mask); }

    template <class T>
    T shfl(T value, int rank) const {
        return __shfl_sync(mask, value, lane_of((unsigned)rank % size()));
    }
    template <class T>
    T shfl_up(T value, unsigned by) const {
        const unsigned rank = thread_rank();
        return __shfl_sync(mask, value, lane_of(rank >= by ? rank - by : rank));
    }
    template <class T>
    T shfl_down(T value, unsigned by) const {
        const unsigned rank = thread_rank();
        return __shfl_sync(mask, value, lane_of(rank + by < size() ? rank + by : rank));
    }
    template <class T>
    T shfl_xor(T value, unsigned bits) const {
        const unsigned rank = thread_rank(), other = rank ^ bits;
        return __shfl_sync(mask, value, lane_of(other < size() ? other : rank));
    }
    int any(int predicate) const { return __any_sync(mask, predicate); }
    int all(int predicate) const { return __all_sync(mask, predicate); }
    unsigned ballot(int predicate) const {
        const unsigned by_lane = __ballot_sync(mask, predicate);
        unsigned by_rank = 0, rank = 0;
        for (unsigned lane = 0; lane < warpSize; ++lane) {
            if (mask >> lane & 1) by_rank |= (by_lane >> lane & 1) << rank++;
        }
        return by_rank;
    }

private:
    int lane_of(unsigned rank) const {
        unsigned rest = mask;
        for (; rank && rest; --rank) {
            rest &= rest - 1;
        }
        return rest ? __ffs((int)rest) - 1 : 0;
    }
};

}  // namespace detail

struct coalesced_group : detail::lanes {};

template <unsigned N, class Parent = void>
struct thread_block_tile : detail::lanes {
    unsigned meta_group_rank() const { return thread_block::thread_rank() / N; }
    unsigned meta_group_size() const { return (thread_block::size() + N - 1) / N; }
};

static inline thread_block this_thread_block() {
    return {};
}
static inline grid_group this_grid() {
    return {};
}

static inline coalesced_group coalesced_threads() {
    coalesced_group group;
    group.mask = __activemask();
    return group;
}

template <unsigned N, class Parent>
static inline thread_block_tile<N, Parent> tiled_partition(const Parent&) {
    thread_block_tile<N, Parent> tile;
    tile.mask = N >= warpSize ? ~0u : ((1u << N % warpSize) - 1) << cuda_on_cpu_lane() / N * N;
    return tile;
}

template <class Group>
static inline void sync(const Group& group) {
    group.sync();
}

template <class Group, class T>
static inline void memcpy_async(const Group& group, T* to, const T* from, size_t nbytes) {
    if (group.thread_rank() == 0) memcpy((void*)to, (const void*)from, nbytes);
}
template <class Group>
static inline void wait(const Group& group) {
    group.sync();
}
template <unsigned N, class Group>
static inline void wait_prior(const Group& group) {
    group.sync();
}

template <class T>
struct plus {
    T operator()(T a, T b) const { return a + b; }
};
template <class T>
struct greater {
    T operator()(T a, T b) const { return a > b ? a : b; }
};
template <class T>
struct less {
    T operator()(T a, T b) const { return a < b ? a : b; }
};

template <class Group, class T, class Operation>
static inline T reduce(const Group& group, T value, Operation operation) {
    T made = group.shfl(value, 0);
    for (unsigned i = 1; i < group.size(); ++i) {
        made = operation(made, group.shfl(value, (int)i));
    }
    return made;
}

}  // namespace cooperative_groups
