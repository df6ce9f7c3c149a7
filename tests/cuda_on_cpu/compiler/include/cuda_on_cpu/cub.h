// Functions of CUB for a block or a warp, as CuPy's kernels take them: one thread does the work.
#pragma once

#include "threads.h"

namespace cub {

enum BlockLoadAlgorithm {
    BLOCK_LOAD_DIRECT,
    BLOCK_LOAD_STRIPED,
    BLOCK_LOAD_VECTORIZE,
    BLOCK_LOAD_TRANSPOSE,
    BLOCK_LOAD_WARP_TRANSPOSE,
    BLOCK_LOAD_WARP_TRANSPOSE_TIMESLICED
};
enum BlockReduceAlgorithm { BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY, BLOCK_REDUCE_RAKING, BLOCK_REDUCE_WARP_REDUCTIONS };
enum BlockScanAlgorithm { BLOCK_SCAN_RAKING, BLOCK_SCAN_RAKING_MEMOIZE, BLOCK_SCAN_WARP_SCANS };

struct Sum {
    template <class T>
    T operator()(const T& a, const T& b) const {
        return a + b;
    }
};
struct Max {
    template <class T>
    T operator()(const T& a, const T& b) const {
        return a > b ? a : b;
    }
};
struct Min {
    template <class T>
    T operator()(const T& a, const T& b) const {
        return a < b ? a : b;
    }
};

namespace detail {

static inline int thread_rank() {
    return (int)(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}

// One value of each thread, of a type that may have constructors: shared memory calls none.
template <class T, int N>
struct Values {
    alignas(T) unsigned char bytes[sizeof(T) * N];
    T& operator[](int i) { return reinterpret_cast<T*>(bytes)[i]; }
    void set(int i, const T& value) { memcpy((void*)&(*this)[i], (const void*)&value, sizeof(T)); }
};

}  // namespace detail

template <class T, int N, int ITEMS, BlockLoadAlgorithm ALGORITHM = BLOCK_LOAD_DIRECT, int Y = 1, int Z = 1>
struct BlockLoad {
    struct TempStorage {};

    BlockLoad() {}
    BlockLoad(TempStorage&) {}

    template <class Iterator>
    void Load(Iterator from, T (&to)[ITEMS]) {
        for (int j = 0; j < ITEMS; ++j) {
            to[j] = from[index_of(j)];
        }
    }
    template <class Iterator>
    void Load(Iterator from, T (&to)[ITEMS], int n) {
        for (int j = 0; j < ITEMS; ++j) {
            if (index_of(j) < n) to[j] = from[index_of(j)];
        }
    }
    template <class Iterator, class Default>
    void Load(Iterator from, T (&to)[ITEMS], int n, Default other) {
        for (int j = 0; j < ITEMS; ++j) {
            if (index_of(j) < n) {
                to[j] = from[index_of(j)];
            } else {
                to[j] = other;
            }
        }
    }

private:
    static int index_of(int j) {
        const int rank = detail::thread_rank();
        return ALGORITHM == BLOCK_LOAD_STRIPED ? rank + j * N * Y * Z : rank * ITEMS + j;
    }
};

template <class T, int N, int ITEMS, int ALGORITHM = 0, int Y = 1, int Z = 1>
struct BlockStore {
    struct TempStorage {};

    BlockStore() {}
    BlockStore(TempStorage&) {}

    template <class Iterator>
    void Store(Iterator to, T (&from)[ITEMS]) {
        for (int j = 0; j < ITEMS; ++j) {
            to[detail::thread_rank() * ITEMS + j] = from[j];
        }
    }
    template <class Iterator>
    void Store(Iterator to, T (&from)[ITEMS], int n) {
        for (int j = 0; j < ITEMS; ++j) {
            const int i = detail::thread_rank() * ITEMS + j;
            if (i < n) to[i] = from[j];
        }
    }
};

template <class T, int N, BlockReduceAlgorithm ALGORITHM = BLOCK_REDUCE_WARP_REDUCTIONS, int Y = 1, int Z = 1>
struct BlockReduce {
    static constexpr int N_THREADS = N * Y * Z;
    struct TempStorage {
        detail::Values<T, N_THREADS> values;
    };

    BlockReduce() : storage_(own_storage()) {}
    BlockReduce(TempStorage& storage) : storage_(storage) {}

    // The result is the first thread's.
    template <class Operation>
    T Reduce(T value, Operation operation, int n) {
        const int me = detail::thread_rank();
        storage_.values.set(me, value);
        __syncthreads();
        T made(value);
        for (int i = 1; me == 0 && i < n && i < N_THREADS; ++i) {
            made = operation(made, storage_.values[i]);
        }
        __syncthreads();
        return made;
    }
    template <class Operation>
    T Reduce(T value, Operation operation) {
        return Reduce(value, operation, N_THREADS);
    }
    template <int ITEMS, class Operation>
    T Reduce(T (&values)[ITEMS], Operation operation) {
        T made(values[0]);
        for (int j = 1; j < ITEMS; ++j) {
            made = operation(made, values[j]);
        }
        return Reduce(made, operation, N_THREADS);
    }
    T Sum(T value) { return Reduce(value, cub::Sum()); }
    T Sum(T value, int n) { return Reduce(value, cub::Sum(), n); }
    template <int ITEMS>
    T Sum(T (&values)[ITEMS]) {
        return Reduce(values, cub::Sum());
    }

private:
    static TempStorage& own_storage() {
        static TempStorage storage;
        return storage;
    }

    TempStorage& storage_;
};

template <class T, int WIDTH = 32>
struct WarpReduce {
    struct TempStorage {};

    WarpReduce(TempStorage&) {}

    template <class Operation>
    T Reduce(T value, Operation operation, int n = WIDTH) {
        const int lane = (int)cuda_on_cpu_lane();
        const int rank = lane % WIDTH;
        const unsigned mask = WIDTH == 32 ? ~0u : ((1u << WIDTH % 32) - 1) << (lane - rank);
        T made(value);
        for (int i = 1; i < WIDTH; ++i) {
            const T other = __shfl_down_sync(mask, value, i, WIDTH);
            if (rank + i < n) made = operation(made, other);
        }
        return made;
    }
    T Sum(T value) { return Reduce(value, cub::Sum()); }
    T Sum(T value, int n) { return Reduce(value, cub::Sum(), n); }
};

template <class T, int N, BlockScanAlgorithm ALGORITHM = BLOCK_SCAN_RAKING, int Y = 1, int Z = 1>
struct BlockScan {
    static constexpr int N_THREADS = N * Y * Z;
    struct TempStorage {
        detail::Values<T, N_THREADS> values;
    };

    BlockScan(TempStorage& storage) : storage_(storage) {}

    template <class Operation>
    void InclusiveScan(T in, T& out, Operation operation, T& total) {
        T before(in);
        const bool has_before = scan(in, before, total, operation);
        out = has_before ? operation(before, in) : in;
    }
    template <class Operation>
    void InclusiveScan(T in, T& out, Operation operation) {
        T total(in);
        InclusiveScan(in, out, operation, total);
    }
    template <class Operation>
    void ExclusiveScan(T in, T& out, T initial, Operation operation, T& total) {
        T before(in);
        const bool has_before = scan(in, before, total, operation);
        out = has_before ? operation(initial, before) : initial;
        total = operation(initial, total);
    }
    template <class Operation>
    void ExclusiveScan(T in, T& out, T initial, Operation operation) {
        T total(in);
        ExclusiveScan(in, out, initial, operation, total);
    }
    void InclusiveSum(T in, T& out) { InclusiveScan(in, out, cub::Sum()); }
    void InclusiveSum(T in, T& out, T& total) { InclusiveScan(in, out, cub::Sum(), total); }
    void ExclusiveSum(T in, T& out) { ExclusiveScan(in, out, T(0), cub::Sum()); }
    void ExclusiveSum(T in, T& out, T& total) { ExclusiveScan(in, out, T(0), cub::Sum(), total); }

private:
    // Returns whether threads are before this one.
    template <class Operation>
    bool scan(T value, T& before, T& total, Operation operation) {
        const int me = detail::thread_rank();
        storage_.values.set(me, value);
        __syncthreads();
        T made(storage_.values[0]);
        for (int i = 1; i < N_THREADS; ++i) {
            if (i == me) before = made;
            made = operation(made, storage_.values[i]);
        }
        total = made;
        __syncthreads();
        return me > 0;
    }

    TempStorage& storage_;
};

}  // namespace cub
