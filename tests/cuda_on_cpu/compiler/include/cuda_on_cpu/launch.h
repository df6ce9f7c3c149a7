// What a kernel's module (compiled behind language.h) and libcuda_on_cpu_kernels.so, which runs its blocks, say to each
// other. C++ types of no library only: the module is read behind whatever macros its source defines.
#pragma once

namespace cuda_on_cpu {

// As uint3 and dim3 lie in memory.
struct Dimensions {
    unsigned x, y, z;
};

// One of each module: its special registers (CUDA C++ Programming Guide, "Built-in Variables") and shared memory.
struct Module {
    Dimensions* thread;
    Dimensions* block;
    Dimensions* block_dim;
    Dimensions* grid_dim;
    unsigned char* dynamic_shared;
    unsigned dynamic_shared_capacity;
    void* mutex;  // pthread_mutex_t: the above is for one launch at a time
};

enum LaunchStatus {
    COMPLETED = 0,
    DEADLOCKED = 1,     // threads wait for others that never come
    ASSERTED = 2,       // a failed assert()
    TRAPPED = 3,        // __trap()
    INVALID_LAUNCH = 4  // a grid, block or size of shared memory that no GPU takes
};

// What the lanes of a warp do together. Those from BALLOT on have one result for all.
enum LaneOperation {
    SYNC,
    SHUFFLE_INDEX,
    SHUFFLE_UP,
    SHUFFLE_DOWN,
    SHUFFLE_XOR,
    MATCH_ANY,
    MATCH_ALL,
    BALLOT,
    ANY,
    ALL,
    SUM,
    MIN_UNSIGNED,
    MAX_UNSIGNED,
    MIN_SIGNED,
    MAX_SIGNED,
    AND,
    OR,
    XOR
};

// Calls a kernel, whose type it knows, with parameters as cuLaunchKernel takes them.
using KernelCall = void (*)(void (*kernel)(), void** params);

}  // namespace cuda_on_cpu

#pragma GCC visibility push(default)
extern "C" {
// A LaunchStatus.
int cuda_on_cpu_launch(cuda_on_cpu::KernelCall call, void (*kernel)(), void** params, const unsigned* grid,
                       const unsigned* block, unsigned shared_nbytes, cuda_on_cpu::Module* module);
// n_true: of how many threads the predicate was; n: how many came.
void cuda_on_cpu_syncthreads(bool predicate, unsigned* n_true, unsigned* n);
unsigned long long cuda_on_cpu_warp(cuda_on_cpu::LaneOperation operation, unsigned mask, unsigned long long value,
                                    int argument, int width);
unsigned cuda_on_cpu_activemask(void* call_site);
unsigned cuda_on_cpu_lane();
void cuda_on_cpu_yield();
[[noreturn]] void cuda_on_cpu_stop(int status);
}
#pragma GCC visibility pop
