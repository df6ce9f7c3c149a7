// Stacks to run threads of a block on, and the switch between them.
#pragma once

#include <vector>

namespace cuda_on_cpu {

struct Fiber {
    char* memory;
    void* stack_pointer;  // while it doesn't run
};

// A fiber that calls `entry`, which never returns, at the first switch to it: one of `unused` or a new one, which
// `all` is told of.
Fiber* make_fiber(std::vector<Fiber*>& all, std::vector<Fiber*>& unused, void (*entry)());
void delete_fiber(Fiber* fiber);

// Goes on at the stack `next`; returns where another switch goes to what this one has put into `saved`.
extern "C" void cuda_on_cpu_switch(void** saved, void* next) __attribute__((visibility("hidden")));

}  // namespace cuda_on_cpu
