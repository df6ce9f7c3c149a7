// CUDA C on a CPU: the threads of a block are fibers of one thread, which run in turn up to where they meet; blocks run
// one after another. What threads do to each other between two meetings is seen, in the order that is asked for.
#include <stdlib.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __restrict__ __restrict
#define __launch_bounds__(...)

#define OF_BOTH(of) \
    of(acos) of(acosh) of(asin) of(asinh) of(atan) of(atanh) of(ceil) of(cos) of(cosh) of(erf) of(exp) of(expm1) \
    of(fabs) of(floor) of(log) of(log1p) of(rint) of(sin) of(sinh) of(sqrt) of(tan) of(tanh) of(trunc)
#define OF_ONE(name) \
    static inline double name(double x) { return __builtin_##name(x); } \
    static inline float name##f(float x) { return __builtin_##name##f(x); }
OF_BOTH(OF_ONE)
#define OF_TWO(name) \
    static inline double name(double x, double y) { return __builtin_##name(x, y); } \
    static inline float name##f(float x, float y) { return __builtin_##name##f(x, y); }
OF_TWO(pow) OF_TWO(fmod) OF_TWO(copysign)

struct Three { unsigned x, y, z; };
static thread_local Three threadIdx, blockIdx, blockDim, gridDim;

namespace simulated {

struct Meeting { int n_arrived; long round; };
struct Fiber { ucontext_t context; bool is_done; unsigned number; };
struct Warp { Meeting meeting; unsigned long long slots[32]; };

static thread_local ucontext_t around;
static thread_local Fiber* fibers;
static thread_local Warp* warps;
static thread_local Fiber* current;
static thread_local Meeting of_block;
static thread_local int n_alive;
static thread_local bool has_moved;

static void meet(Meeting& meeting, int n_awaited) {
    const long round = meeting.round;
    if (++meeting.n_arrived >= n_awaited) {
        meeting.n_arrived = 0;
        ++meeting.round;
        has_moved = true;
        return;
    }
    while (meeting.round == round) swapcontext(&current->context, &around);
}

static int lanes_of_warp() {
    const unsigned first = current->number / 32 * 32, rest = blockDim.x - first;
    return rest < 32 ? (int)rest : 32;
}

template <typename T> static T exchanged(T value, int lane) {
    Warp& warp = warps[current->number / 32];
    const int n_lanes = lanes_of_warp(), mine = current->number % 32;
    __builtin_memcpy(&warp.slots[mine], &value, sizeof(T));
    meet(warp.meeting, n_lanes);
    T found = value;
    if (lane >= 0 && lane < n_lanes) __builtin_memcpy(&found, &warp.slots[lane], sizeof(T));
    meet(warp.meeting, n_lanes);
    return found;
}

typedef void (*Body)(void**);
static thread_local Body body;
static thread_local void** arguments;

static void begin() {
    body(arguments);
    current->is_done = true;
    --n_alive;
    has_moved = true;
    swapcontext(&current->context, &around);
}

// 0, or 1 where threads wait for others that never come
// order: 0 as they are numbered, 1 backwards, else by chance, each time anew
static int run(Body kernel, void** given, unsigned n_blocks, unsigned n_threads, int order) {
    const size_t stack_nbytes = 64 << 10;
    body = kernel;
    arguments = given;
    char* stacks = (char*)malloc(stack_nbytes * n_threads);
    fibers = (Fiber*)calloc(n_threads, sizeof(Fiber));
    warps = (Warp*)calloc(n_threads / 32 + 1, sizeof(Warp));
    blockDim = {n_threads, 1, 1};
    gridDim = {n_blocks, 1, 1};
    unsigned* turns = (unsigned*)malloc(sizeof(unsigned) * n_threads);
    for (unsigned i = 0; i < n_threads; ++i) turns[i] = order == 1 ? n_threads - 1 - i : i;
    unsigned long long chance = (unsigned long long)order;
    int failure = 0;
    for (unsigned block = 0; block < n_blocks && !failure; ++block) {
        of_block = {0, 0};
        n_alive = (int)n_threads;
        for (unsigned i = 0; i < n_threads; ++i) {
            fibers[i].is_done = false;
            fibers[i].number = i;
            getcontext(&fibers[i].context);
            fibers[i].context.uc_stack.ss_sp = stacks + i * stack_nbytes;
            fibers[i].context.uc_stack.ss_size = stack_nbytes;
            fibers[i].context.uc_link = &around;
            makecontext(&fibers[i].context, begin, 0);
        }
        while (n_alive && !failure) {
            has_moved = false;
            for (unsigned i = n_threads - 1; order > 1 && i > 0; --i) {
                chance = chance * 6364136223846793005ull + 1442695040888963407ull;
                const unsigned other = (unsigned)(chance >> 33) % (i + 1), turn = turns[i];
                turns[i] = turns[other];
                turns[other] = turn;
            }
            for (unsigned i = 0; i < n_threads; ++i) {
                current = &fibers[turns[i]];
                if (current->is_done) continue;
                threadIdx = {current->number, 0, 0};
                blockIdx = {block, 0, 0};
                swapcontext(&around, &current->context);
            }
            failure = !has_moved;
        }
    }
    free(turns);
    free(stacks);
    free(fibers);
    free(warps);
    return failure;
}

}  // namespace simulated

static inline void __syncthreads() { simulated::meet(simulated::of_block, simulated::n_alive); }
static inline void __syncwarp(unsigned = 0) { simulated::exchanged(0, 0); }
static inline unsigned lane_number() { return simulated::current->number % 32; }
template <typename T> static T __shfl_xor_sync(unsigned, T value, int bits) {
    return simulated::exchanged(value, (int)lane_number() ^ bits);
}
template <typename T> static T __shfl_up_sync(unsigned, T value, unsigned by) {
    return simulated::exchanged(value, (int)lane_number() - (int)by);
}
template <typename T> static T __shfl_down_sync(unsigned, T value, unsigned by) {
    return simulated::exchanged(value, (int)(lane_number() + by));
}
template <typename T> static T __shfl_sync(unsigned, T value, int lane) { return simulated::exchanged(value, lane); }

template <typename T> static T atomicAdd(T* to, T value) { const T old = *to; *to = old + value; return old; }
template <typename T> static T atomicMax(T* to, T value) { const T old = *to; if (value > old) *to = value; return old; }
template <typename T> static T atomicMin(T* to, T value) { const T old = *to; if (value < old) *to = value; return old; }
template <typename T> static T atomicCAS(T* to, T compare, T value) {
    const T old = *to;
    if (old == compare) *to = value;
    return old;
}
