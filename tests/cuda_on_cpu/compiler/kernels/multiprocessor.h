// What runs a block: its threads, each either not begun, done, or on a fiber.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../include/cuda_on_cpu/launch.h"
#include "fibers.h"

namespace cuda_on_cpu {

constexpr unsigned WARP_SIZE = 32;
constexpr unsigned MAX_THREADS_OF_BLOCK = 1024;

enum class ThreadState : unsigned char { UNSTARTED, RUNNABLE, AT_BARRIER, IN_WARP, ASKS_ACTIVE, DONE };

struct Thread {
    Fiber* fiber;
    ThreadState state;
    Dimensions index;
    // of its wait for other lanes
    unsigned mask;
    LaneOperation operation;
    int argument, width;
    uint64_t in, out;
    void* call_site;
};

struct Multiprocessor {
    std::vector<Fiber*> fibers, unused_fibers;
    std::vector<Thread> threads;
    std::vector<unsigned> order;       // in which threads begin
    std::vector<unsigned> ready;       // those that may go on, from ready_begin on
    std::vector<unsigned> at_barrier;  // those that wait at __syncthreads
    size_t ready_begin = 0;
    unsigned n_threads = 0;
    unsigned next = 0;     // of order
    unsigned n_alive = 0;  // begun or not, and not done
    unsigned current = 0;
    unsigned predicate_sum = 0;                     // of the barrier that is being waited at
    unsigned barrier_sum = 0, barrier_arrived = 0;  // of the last
    Fiber* running = nullptr;
    void* launcher_stack = nullptr;
    int status = COMPLETED;
    Module* module = nullptr;
    KernelCall call = nullptr;
    void (*kernel)() = nullptr;
    void** params = nullptr;

    ~Multiprocessor();
};

// This CPU thread's, while a launch runs, or null.
extern thread_local Multiprocessor* multiprocessor;

// scheduling.cc: the current thread waits until another puts it among the ready.
void wait(Multiprocessor& m);

// lanes.cc: ends the wait of thread `t` where every lane that its mask names has come, and says whether. A thread that
// is current goes on by itself; the others become ready.
bool try_complete(Multiprocessor& m, unsigned t, bool is_current);
// Answers __activemask where no thread can go on otherwise; says whether any asked.
bool answer_active(Multiprocessor& m);

// division.cc
void handle_integer_division();

}  // namespace cuda_on_cpu
