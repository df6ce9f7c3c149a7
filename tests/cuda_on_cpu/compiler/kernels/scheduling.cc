// Runs kernels: blocks one after another; the threads of a block in turn, each up to where it waits for others. A
// thread that waits for nobody takes no fiber of its own: the next begins on the same stack.
#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "multiprocessor.h"

namespace cuda_on_cpu {

thread_local Multiprocessor* multiprocessor = nullptr;

Multiprocessor::~Multiprocessor() {
    for (Fiber* fiber : fibers) {
        delete_fiber(fiber);
    }
}

namespace {

// Kept for this CPU thread's next launch, with their stacks; more than one where a kernel's launch is inside another's.
thread_local std::vector<std::unique_ptr<Multiprocessor>> unused_multiprocessors;

// CUDA_ON_CPU_ORDER: threads of a block begin 0 as they are numbered, 1 backwards, otherwise by chance of this seed.
int thread_order = 0;
pthread_once_t is_prepared = PTHREAD_ONCE_INIT;

void prepare() {
    handle_integer_division();
    if (const char* text = getenv("CUDA_ON_CPU_ORDER")) thread_order = atoi(text);
}

void release_barrier(Multiprocessor& m) {
    m.barrier_sum = m.predicate_sum;
    m.barrier_arrived = m.n_alive;
    m.predicate_sum = 0;
    for (unsigned t : m.at_barrier) {
        m.threads[t].state = ThreadState::RUNNABLE;
        m.ready.push_back(t);
    }
    m.at_barrier.clear();
}

// A thread that exits is waited for by nobody any more.
void finish(Multiprocessor& m, unsigned t) {
    m.threads[t].state = ThreadState::DONE;
    --m.n_alive;
    if (!m.at_barrier.empty() && m.at_barrier.size() == m.n_alive) release_barrier(m);
    const unsigned first = t / WARP_SIZE * WARP_SIZE;
    for (unsigned i = first; i < first + WARP_SIZE && i < m.n_threads; ++i) {
        if (m.threads[i].state == ThreadState::IN_WARP) try_complete(m, i, false);
    }
}

bool pop_ready(Multiprocessor& m, unsigned& t) {
    if (m.ready_begin == m.ready.size()) {
        m.ready.clear();
        m.ready_begin = 0;
        return false;
    }
    t = m.ready[m.ready_begin++];
    return true;
}

void resume(Multiprocessor& m, unsigned t, void** saved) {
    m.current = t;
    *m.module->thread = m.threads[t].index;
    m.running = m.threads[t].fiber;
    cuda_on_cpu_switch(saved, m.running->stack_pointer);
}

[[noreturn]] void return_to_launcher(Multiprocessor& m) {
    void* unused;
    cuda_on_cpu_switch(&unused, m.launcher_stack);
    abort();
}

// The current fiber's thread is done and none is left to begin.
[[noreturn]] void leave(Multiprocessor& m) {
    Fiber* mine = m.running;
    for (;;) {
        unsigned t;
        if (pop_ready(m, t)) {
            m.unused_fibers.push_back(mine);
            void* unused;
            resume(m, t, &unused);
            abort();
        }
        if (m.n_alive == 0) return_to_launcher(m);
        if (answer_active(m)) continue;
        m.status = DEADLOCKED;
        return_to_launcher(m);
    }
}

void run_threads() {
    Multiprocessor& m = *multiprocessor;
    while (m.next < m.n_threads) {
        const unsigned t = m.order[m.next++];
        m.current = t;
        m.threads[t].state = ThreadState::RUNNABLE;
        *m.module->thread = m.threads[t].index;
        m.call(m.kernel, m.params);
        finish(m, t);
    }
    leave(m);
}

void begin_fiber(Multiprocessor& m, void** saved) {
    m.running = make_fiber(m.fibers, m.unused_fibers, run_threads);
    cuda_on_cpu_switch(saved, m.running->stack_pointer);
}

void shuffle(std::vector<unsigned>& order, uint64_t& random) {
    for (unsigned i = unsigned(order.size()) - 1; i > 0; --i) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(order[i], order[unsigned(random >> 33) % (i + 1)]);
    }
}

void begin_launch(Multiprocessor& m, const unsigned* block) {
    m.status = COMPLETED;
    m.n_threads = block[0] * block[1] * block[2];
    m.threads.resize(m.n_threads);
    m.order.resize(m.n_threads);
    unsigned t = 0;
    for (unsigned z = 0; z < block[2]; ++z) {
        for (unsigned y = 0; y < block[1]; ++y) {
            for (unsigned x = 0; x < block[0]; ++x) {
                m.threads[t++].index = {x, y, z};
            }
        }
    }
    for (unsigned i = 0; i < m.n_threads; ++i) {
        m.order[i] = thread_order == 1 ? m.n_threads - 1 - i : i;
    }
}

void run_block(Multiprocessor& m) {
    m.next = 0;
    m.n_alive = m.n_threads;
    m.ready.clear();
    m.ready_begin = 0;
    m.at_barrier.clear();
    m.predicate_sum = 0;
    for (Thread& thread : m.threads) {
        thread.state = ThreadState::UNSTARTED;
    }
    m.unused_fibers = m.fibers;
    begin_fiber(m, &m.launcher_stack);
}

void run_grid(Multiprocessor& m, const unsigned* grid) {
    uint64_t random = uint64_t(thread_order);
    for (unsigned z = 0; z < grid[2]; ++z) {
        for (unsigned y = 0; y < grid[1]; ++y) {
            for (unsigned x = 0; x < grid[0]; ++x) {
                *m.module->block = {x, y, z};
                if (thread_order > 1) shuffle(m.order, random);
                run_block(m);
                if (m.status) return;
            }
        }
    }
}

}  // namespace

void wait(Multiprocessor& m) {
    const unsigned me = m.current;
    Fiber* mine = m.running;
    m.threads[me].fiber = mine;
    for (;;) {
        unsigned t;
        if (pop_ready(m, t)) {
            if (t != me) resume(m, t, &mine->stack_pointer);
            return;
        }
        if (m.next < m.n_threads) {
            begin_fiber(m, &mine->stack_pointer);
            return;
        }
        if (answer_active(m)) continue;
        m.status = DEADLOCKED;
        return_to_launcher(m);
    }
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

int cuda_on_cpu_launch(KernelCall call, void (*kernel)(), void** params, const unsigned* grid, const unsigned* block,
                       unsigned shared_nbytes, Module* module) {
    pthread_once(&is_prepared, prepare);
    const uint64_t n_threads = uint64_t(block[0]) * block[1] * block[2];
    if (n_threads == 0 || n_threads > MAX_THREADS_OF_BLOCK) return INVALID_LAUNCH;
    if (!grid[0] || !grid[1] || !grid[2]) return INVALID_LAUNCH;
    if (shared_nbytes > module->dynamic_shared_capacity) return INVALID_LAUNCH;
    std::unique_ptr<Multiprocessor> m;
    if (unused_multiprocessors.empty()) {
        m = std::make_unique<Multiprocessor>();
    } else {
        m = std::move(unused_multiprocessors.back());
        unused_multiprocessors.pop_back();
    }
    pthread_mutex_t* mutex = static_cast<pthread_mutex_t*>(module->mutex);
    pthread_mutex_lock(mutex);
    Multiprocessor* outer = multiprocessor;
    multiprocessor = m.get();
    m->module = module;
    m->call = call;
    m->kernel = kernel;
    m->params = params;
    begin_launch(*m, block);
    *module->block_dim = {block[0], block[1], block[2]};
    *module->grid_dim = {grid[0], grid[1], grid[2]};
    // what a kernel reads before it has written it is NaN
    memset(module->dynamic_shared, 0xff, shared_nbytes);
    run_grid(*m, grid);
    multiprocessor = outer;
    pthread_mutex_unlock(mutex);
    const int status = m->status;
    unused_multiprocessors.push_back(std::move(m));
    return status;
}

void cuda_on_cpu_syncthreads(bool predicate, unsigned* n_true, unsigned* n) {
    Multiprocessor& m = *multiprocessor;
    m.predicate_sum += predicate;
    if (m.at_barrier.size() + 1 == m.n_alive) {
        release_barrier(m);
    } else {
        m.threads[m.current].state = ThreadState::AT_BARRIER;
        m.at_barrier.push_back(m.current);
        wait(m);
    }
    if (n_true) *n_true = m.barrier_sum;
    if (n) *n = m.barrier_arrived;
}

void cuda_on_cpu_yield() {
    Multiprocessor& m = *multiprocessor;
    m.ready.push_back(m.current);
    wait(m);
}

void cuda_on_cpu_stop(int status) {
    multiprocessor->status = status;
    return_to_launcher(*multiprocessor);
}

// Modules are linked by --wrap=__assert_fail. The text is that of a GPU's assert().
extern "C" __attribute__((visibility("default"))) void __wrap___assert_fail(const char* text, const char* file,
                                                                            unsigned line, const char* function) {
    if (!multiprocessor) {
        fprintf(stderr, "%s:%u: %s: Assertion `%s' failed.\n", file, line, function, text);
        abort();
    }
    const Dimensions b = *multiprocessor->module->block;
    const Dimensions t = *multiprocessor->module->thread;
    fprintf(stderr, "%s:%u: %s: block: [%u,%u,%u], thread: [%u,%u,%u] Assertion `%s` failed.\n", file, line, function,
            b.x, b.y, b.z, t.x, t.y, t.z, text);
    cuda_on_cpu_stop(ASSERTED);
}
