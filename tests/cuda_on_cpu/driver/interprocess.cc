// Memory and events of other processes. A handle names the process and the descriptor of its device's memory, which is
// opened by way of /proc.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "state.h"

using namespace cuda_on_cpu;

namespace {

struct MemoryHandle {
    int pid;
    int fd;
    uint64_t offset;
    uint64_t nbytes;
};
static_assert(sizeof(MemoryHandle) <= CUDA_IPC_HANDLE_SIZE);

constexpr size_t PAGE_NBYTES = 4096;

}  // namespace

EXPORT cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* at) {
    Guard guard(lock);
    Allocation found;
    if (!find_allocation(at, &found) || !devices[found.device].holds(at))
        return fail(cudaErrorInvalidValue, "cudaIpcGetMemHandle");
    const Device& device = devices[found.device];
    const MemoryHandle made{(int)getpid(), device.fd, (uint64_t)(found.base - device.base), found.nbytes};
    memset(handle, 0, sizeof *handle);
    memcpy(handle, &made, sizeof made);
    return cudaSuccess;
}

EXPORT cudaError_t cudaIpcOpenMemHandle(void** at, cudaIpcMemHandle_t given, unsigned) {
    Guard guard(lock);
    if (auto error = forbid_in_capture("cudaIpcOpenMemHandle")) return error;
    MemoryHandle handle;
    memcpy(&handle, &given, sizeof handle);
    if (handle.pid == getpid()) return fail(cudaErrorDeviceUninitialized, "a handle of this process's own memory");
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", handle.pid, handle.fd);
    const int fd = open(path, O_RDWR);
    if (fd < 0) return fail(cudaErrorInvalidValue, "the process that has the memory is gone");
    const size_t more = handle.offset % PAGE_NBYTES;
    const size_t nbytes = (more + handle.nbytes + PAGE_NBYTES - 1) / PAGE_NBYTES * PAGE_NBYTES;
    const int may = protects() ? PROT_NONE : PROT_READ | PROT_WRITE;
    void* base = mmap(nullptr, nbytes, may, MAP_SHARED | MAP_NORESERVE, fd, (off_t)(handle.offset - more));
    close(fd);
    if (base == MAP_FAILED) return fail(cudaErrorMemoryAllocation, "cudaIpcOpenMemHandle");
    *at = (char*)base + more;
    mappings[(char*)*at] = {(char*)base, nbytes, current_device};
    return cudaSuccess;
}

EXPORT cudaError_t cudaIpcCloseMemHandle(void* at) {
    Guard guard(lock);
    if (auto error = forbid_in_capture("cudaIpcCloseMemHandle")) return error;
    auto found = mappings.find((char*)at);
    if (found == mappings.end()) return fail(cudaErrorInvalidValue, "cudaIpcCloseMemHandle");
    drain_all();
    munmap(found->second.base, found->second.nbytes);
    mappings.erase(found);
    return cudaSuccess;
}

// Work with such an event is done when it is recorded (streams.cc), so the other process has nothing to wait for.
EXPORT cudaError_t cudaIpcGetEventHandle(cudaIpcEventHandle_t* handle, cudaEvent_t event) {
    Guard guard(lock);
    if (!(event->flags & cudaEventInterprocess)) return fail(cudaErrorInvalidResourceHandle, "cudaIpcGetEventHandle");
    memset(handle, 0, sizeof *handle);
    return cudaSuccess;
}

EXPORT cudaError_t cudaIpcOpenEventHandle(cudaEvent_t* event, cudaIpcEventHandle_t) {
    return cudaEventCreateWithFlags(event, cudaEventInterprocess | cudaEventDisableTiming);
}
