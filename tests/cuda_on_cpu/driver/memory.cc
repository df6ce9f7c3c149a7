// Memory of devices and page-locked memory of the host; copies between them.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "state.h"

namespace cuda_on_cpu {

namespace {

struct Pinned {
    size_t nbytes;
    bool is_registered;  // by cudaHostRegister: the memory itself is the caller's
};

std::map<char*, Pinned> pinned;

// of allocations and the gaps between them
constexpr size_t GRANULE_NBYTES = 512;
// memory is filled when it is taken and when it is given back: what nobody wrote is NaN. Larger ones would take long.
constexpr int UNWRITTEN = 0xFF, GIVEN_BACK = 0xFE;
constexpr size_t MOST_FILLED_NBYTES = 256 << 20;

size_t in_granules(size_t nbytes) {
    return (nbytes + GRANULE_NBYTES - 1) / GRANULE_NBYTES * GRANULE_NBYTES;
}

cudaError_t take(void** at, size_t nbytes) {
    *at = nullptr;
    if (!nbytes) return cudaSuccess;
    Device& device = device_of(current_device);
    const size_t wanted = in_granules(nbytes);
    if (device.used_nbytes + wanted > memory_nbytes()) return fail(cudaErrorMemoryAllocation, "no memory");
    size_t offset = GRANULE_NBYTES;
    for (auto& [begin, taken] : device.allocated) {
        if (begin >= offset + wanted + GRANULE_NBYTES) break;
        offset = in_granules(begin + taken) + GRANULE_NBYTES;
    }
    if (offset + wanted > device.room_nbytes) return fail(cudaErrorMemoryAllocation, "no room");
    device.allocated[offset] = nbytes;
    device.used_nbytes += wanted;
    *at = device.base + offset;
    static const bool fills = setting("CUDA_ON_CPU_FILL", 1);
    if (fills && nbytes < MOST_FILLED_NBYTES) {
        Touching touching(current_device);
        memset(*at, UNWRITTEN, nbytes);
    }
    log("%zu bytes at %p", nbytes, *at);
    return cudaSuccess;
}

cudaError_t give_back(void* at) {
    Allocation found;
    if (!find_allocation(at, &found) || found.base != at || !devices[found.device].holds(at))
        return fail(cudaErrorInvalidValue, "free of what was not allocated here");
    Device& device = devices[found.device];
    const size_t offset = found.base - device.base;
    if (found.nbytes < MOST_FILLED_NBYTES) {
        Touching touching(found.device);
        memset(at, GIVEN_BACK, found.nbytes);
    } else {
        const off_t first = (off_t)(offset / 4096 * 4096 + 4096), length = (off_t)(found.nbytes / 4096 * 4096 - 8192);
        fallocate(device.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, first, length);
    }
    device.used_nbytes -= in_granules(found.nbytes);
    device.allocated.erase(offset);
    return cudaSuccess;
}

bool is_pageable(const void* at) {
    return !on_device(at) && !is_pinned(at);
}

cudaError_t check_copy(void* to, const void* from, size_t nbytes, cudaMemcpyKind kind) {
    if (!is_inside(to, nbytes, "cudaMemcpy") || !is_inside(from, nbytes, "cudaMemcpy"))
        return fail(cudaErrorInvalidValue, "cudaMemcpy");
    if (!nbytes || kind == cudaMemcpyDefault) return cudaSuccess;
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device == on_device(to) && from_device == on_device(from)) return cudaSuccess;
    complain("cudaMemcpy of kind %d from %p to %p, which are not where it says", (int)kind, from, to);
    return fail(cudaErrorInvalidValue, "cudaMemcpy");
}

}  // namespace

bool is_pinned(const void* at) {
    auto after = pinned.upper_bound((char*)at);
    if (after == pinned.begin()) return false;
    --after;
    return (char*)at < after->first + after->second.nbytes;
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

EXPORT cudaError_t cudaMalloc(void** at, size_t nbytes) {
    Guard guard(lock);
    if (auto error = forbid_in_capture("cudaMalloc")) return error;
    return take(at, nbytes);
}

EXPORT cudaError_t cudaFree(void* at) {
    Guard guard(lock);
    if (auto error = forbid_in_capture("cudaFree")) return error;
    if (!at) return cudaSuccess;
    Allocation found;
    if (!find_allocation(at, &found)) return fail(cudaErrorInvalidValue, "cudaFree");
    drain_device(found.device);
    return give_back(at);
}

EXPORT cudaError_t cudaMallocAsync(void** at, size_t nbytes, cudaStream_t) {
    Guard guard(lock);
    return take(at, nbytes);
}

EXPORT cudaError_t cudaMallocFromPoolAsync(void** at, size_t nbytes, cudaMemPool_t, cudaStream_t stream) {
    return cudaMallocAsync(at, nbytes, stream);
}

EXPORT cudaError_t cudaFreeAsync(void* at, cudaStream_t stream) {
    Guard guard(lock);
    return put(stream, [=] { give_back(at); }, "free");
}

EXPORT cudaError_t cudaMallocManaged(void**, size_t, unsigned) {
    return fail(cudaErrorNotSupported, "cudaMallocManaged");
}

EXPORT cudaError_t cudaMemGetInfo(size_t* free_nbytes, size_t* total_nbytes) {
    Guard guard(lock);
    *total_nbytes = memory_nbytes();
    *free_nbytes = memory_nbytes() - device_of(current_device).used_nbytes;
    return cudaSuccess;
}

EXPORT cudaError_t cudaHostAlloc(void** at, size_t nbytes, unsigned) {
    Guard guard(lock);
    if (auto error = forbid_in_capture("cudaHostAlloc")) return error;
    if (posix_memalign(at, 4096, nbytes ? nbytes : 1)) return fail(cudaErrorMemoryAllocation, "cudaHostAlloc");
    pinned[(char*)*at] = {nbytes, false};
    return cudaSuccess;
}

EXPORT cudaError_t cudaMallocHost(void** at, size_t nbytes) {
    return cudaHostAlloc(at, nbytes, 0);
}

EXPORT cudaError_t cudaFreeHost(void* at) {
    Guard guard(lock);
    if (auto error = forbid_in_capture("cudaFreeHost")) return error;
    if (!at) return cudaSuccess;
    auto found = pinned.find((char*)at);
    if (found == pinned.end() || found->second.is_registered) return fail(cudaErrorInvalidValue, "cudaFreeHost");
    drain_all();
    pinned.erase(found);
    free(at);
    return cudaSuccess;
}

EXPORT cudaError_t cudaHostRegister(void* at, size_t nbytes, unsigned) {
    Guard guard(lock);
    if (auto error = forbid_in_capture("cudaHostRegister")) return error;
    if (is_pinned(at)) return fail(cudaErrorHostMemoryAlreadyRegistered, "cudaHostRegister");
    pinned[(char*)at] = {nbytes, true};
    return cudaSuccess;
}

EXPORT cudaError_t cudaHostUnregister(void* at) {
    Guard guard(lock);
    if (auto error = forbid_in_capture("cudaHostUnregister")) return error;
    auto found = pinned.find((char*)at);
    if (found == pinned.end() || !found->second.is_registered)
        return fail(cudaErrorHostMemoryNotRegistered, "cudaHostUnregister");
    drain_all();
    pinned.erase(found);
    return cudaSuccess;
}

EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* told, const void* at) {
    Guard guard(lock);
    memset(told, 0, sizeof *told);
    Allocation found;
    if (find_allocation(at, &found)) {
        told->type = cudaMemoryTypeDevice;
        told->device = found.device;
        told->devicePointer = (void*)at;
    } else if (is_pinned(at)) {
        told->type = cudaMemoryTypeHost;
        told->devicePointer = told->hostPointer = (void*)at;
    } else {
        told->type = cudaMemoryTypeUnregistered;
        told->device = -2;
    }
    return cudaSuccess;
}

// CUDA's "API synchronization behavior": from pageable memory the source may change after the call, to it the call
// returns when it is done.
EXPORT cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t nbytes, cudaMemcpyKind kind,
                                   cudaStream_t handle) {
    Guard guard(lock);
    if (auto error = check_copy(to, from, nbytes, kind)) return error;
    CUstream_st* stream = stream_of(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle, "cudaMemcpyAsync");
    if (is_pageable(from) && !stream->capture) {
        auto staged = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + nbytes);
        return put(handle, [=] { memcpy(to, staged->data(), nbytes); }, "copy of staged memory", ALL_DEVICES);
    }
    const cudaError_t error = put(handle, [=] { memmove(to, from, nbytes); }, "copy", ALL_DEVICES);
    if (!error && is_pageable(to) && !stream->capture) drain(stream);
    return error;
}

EXPORT cudaError_t cudaMemcpy(void* to, const void* from, size_t nbytes, cudaMemcpyKind kind) {
    Guard guard(lock);
    if (auto error = forbid_in_capture("cudaMemcpy")) return error;
    if (auto error = check_copy(to, from, nbytes, kind)) return error;
    const cudaError_t error = put(nullptr, [=] { memmove(to, from, nbytes); }, "copy", ALL_DEVICES);
    drain(stream_of(nullptr));
    return error;
}

EXPORT cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t nbytes, cudaStream_t stream) {
    return cudaMemcpyAsync(to, from, nbytes, cudaMemcpyDeviceToDevice, stream);
}

EXPORT cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t nbytes) {
    Guard guard(lock);
    drain_all();
    return cudaMemcpy(to, from, nbytes, cudaMemcpyDeviceToDevice);
}

EXPORT cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                                     size_t height, cudaMemcpyKind, cudaStream_t stream) {
    Guard guard(lock);
    auto act = [=] {
        for (size_t row = 0; row < height; ++row)
            memmove((char*)to + row * to_pitch, (const char*)from + row * from_pitch, width);
    };
    return put(stream, act, "copy of rows", ALL_DEVICES);
}

EXPORT cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                                size_t height, cudaMemcpyKind kind) {
    Guard guard(lock);
    if (auto error = forbid_in_capture("cudaMemcpy2D")) return error;
    const cudaError_t error = cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, width, height, kind, nullptr);
    drain(stream_of(nullptr));
    return error;
}

EXPORT cudaError_t cudaMemsetAsync(void* at, int value, size_t nbytes, cudaStream_t stream) {
    Guard guard(lock);
    if (!is_inside(at, nbytes, "cudaMemset")) return fail(cudaErrorInvalidValue, "cudaMemset");
    return put(stream, [=] { memset(at, value, nbytes); }, "memset");
}

EXPORT cudaError_t cudaMemset(void* at, int value, size_t nbytes) {
    return cudaMemsetAsync(at, value, nbytes, nullptr);
}

EXPORT cudaError_t cudaMemPrefetchAsync(const void*, size_t, int, cudaStream_t) {
    return cudaSuccess;
}

EXPORT cudaError_t cudaMemAdvise(const void*, size_t, cudaMemoryAdvise, int) {
    return cudaSuccess;
}

// One pool a device: that of cudaMallocAsync, which keeps nothing.
EXPORT cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
    *pool = (cudaMemPool_t)(intptr_t)(device + 1);
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) {
    return cudaDeviceGetDefaultMemPool(pool, device);
}

EXPORT cudaError_t cudaDeviceSetMemPool(int, cudaMemPool_t) {
    return cudaSuccess;
}

EXPORT cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
    return cudaDeviceGetDefaultMemPool(pool, current_device);
}

EXPORT cudaError_t cudaMemPoolDestroy(cudaMemPool_t) {
    return cudaSuccess;
}

EXPORT cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) {
    return cudaSuccess;
}

EXPORT cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
    *(uint64_t*)value = 0;
    return cudaSuccess;
}

EXPORT cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
    return cudaSuccess;
}
