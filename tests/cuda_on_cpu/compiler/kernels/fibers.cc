// Fibers of x86-64: a switch keeps what the System V ABI has a callee keep, without the system call of swapcontext.
#include "fibers.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

// rdi: where to keep the stack pointer; rsi: the other stack's
asm(R"(
.text
.globl cuda_on_cpu_switch
.hidden cuda_on_cpu_switch
.type cuda_on_cpu_switch,@function
cuda_on_cpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");

namespace cuda_on_cpu {

namespace {

constexpr size_t STACK_NBYTES = 256 << 10;
constexpr size_t GUARD_NBYTES = 4096;
constexpr int N_SAVED_REGISTERS = 6;

Fiber* allocate() {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* memory = mmap(nullptr, STACK_NBYTES + GUARD_NBYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) {
        perror("cuda_on_cpu: no memory for a stack");
        abort();
    }
    mprotect(memory, GUARD_NBYTES, PROT_NONE);
    return new Fiber{static_cast<char*>(memory), nullptr};
}

}  // namespace

Fiber* make_fiber(std::vector<Fiber*>& all, std::vector<Fiber*>& unused, void (*entry)()) {
    Fiber* fiber;
    if (unused.empty()) {
        fiber = allocate();
        all.push_back(fiber);
    } else {
        fiber = unused.back();
        unused.pop_back();
    }
    // as a switch leaves a stack: the registers below the address to return to, below a return address for `entry`
    uint64_t* top = reinterpret_cast<uint64_t*>(fiber->memory + GUARD_NBYTES + STACK_NBYTES);
    *--top = 0;
    *--top = reinterpret_cast<uint64_t>(entry);
    for (int i = 0; i < N_SAVED_REGISTERS; ++i) {
        *--top = 0;
    }
    fiber->stack_pointer = top;
    return fiber;
}

void delete_fiber(Fiber* fiber) {
    munmap(fiber->memory, STACK_NBYTES + GUARD_NBYTES);
    delete fiber;
}

}  // namespace cuda_on_cpu
