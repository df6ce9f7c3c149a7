// What every library here needs of the driver (libcuda.so.1, see ../driver): it queues work on a stream, waits for a
// stream, and knows the current device. Also how a library says on stderr what it refuses, and why.
//
// A process without that driver computes at once, on memory of the host: libraries can be tested on their own.
#pragma once

#include <dlfcn.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <type_traits>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace cuda_on_cpu {

__attribute__((format(printf, 3, 4))) inline void report(const char* library, const char* function, const char* format,
                                                         ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "[cuda on cpu] %s: %s: %s\n", library, function, text);
    fflush(stderr);
}

inline void* driver() {
    static std::atomic<void*> known{nullptr};
    void* library = known.load(std::memory_order_acquire);
    if (library) return library;
    library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    // NVIDIA's own has the same name
    if (library && !dlsym(library, "cuda_on_cpu_enqueue")) library = nullptr;
    if (library) known.store(library, std::memory_order_release);
    return library;
}

template <class Function>
Function* driver_function(const char* name) {
    void* library = driver();
    return library ? reinterpret_cast<Function*>(dlsym(library, name)) : nullptr;
}

// Runs `work` when the stream comes to it. A graph that captured the stream runs it as often as the graph is launched,
// so it must not change itself; and what it captures is copied and dropped as bytes. Returns 0, or the driver's error.
template <class Work>
int enqueue(void* stream, const Work& work) {
    static_assert(std::is_trivially_copyable<Work>::value && std::is_trivially_destructible<Work>::value,
                  "queued work may capture plain values alone");
    void* data = malloc(sizeof(Work));
    new (data) Work(work);
    void (*run)(void*) = [](void* given) { (*static_cast<const Work*>(given))(); };
    auto* queue = driver_function<int(void*, void (*)(void*), void*)>("cuda_on_cpu_enqueue");
    if (queue) return queue(stream, run, data);  // which frees data
    run(data);
    free(data);
    return 0;
}

inline int synchronize(void* stream) {
    auto* wait = driver_function<int(void*)>("cudaStreamSynchronize");
    return wait ? wait(stream) : 0;
}

// -1 without a driver
inline int current_device() {
    auto* get = driver_function<int(int*)>("cudaGetDevice");
    int device = -1;
    if (get && get(&device)) return -1;
    return device;
}

// A handle belongs to the device that was current when it was created (documentation of cuBLAS, "cuBLAS Context").
inline bool is_of_current_device(const char* library, const char* function, int device) {
    int current = current_device();
    if (current < 0 || device < 0 || current == device) return true;
    report(library, function, "the handle is of device %d, device %d is current", device, current);
    return false;
}

}  // namespace cuda_on_cpu
