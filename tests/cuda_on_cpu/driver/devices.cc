// Devices: how many there are, what they say of themselves, and who may touch their memory when.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "state.h"

namespace cuda_on_cpu {

Device devices[MOST_DEVICES];
std::map<char*, Mapping> mappings;
thread_local int current_device = 0;
static int n_touching = 0;

int n_devices() {
    static const int count = (int)setting("CUDA_ON_CPU_DEVICES", 1);
    return count < MOST_DEVICES ? count : MOST_DEVICES;
}

int compute_capability() {
    static const int found = (int)setting("CUDA_ON_CPU_CAPABILITY", 90);
    return found;
}

size_t memory_nbytes() {
    static const size_t found = (size_t)setting("CUDA_ON_CPU_MEMORY_MB", 4096) << 20;
    return found;
}

bool protects() {
    static const bool found = setting("CUDA_ON_CPU_PROTECT", 1);
    return found;
}

Device& device_of(int number) {
    Device& device = devices[number];
    if (device.base) return device;
    device.room_nbytes = 2 * memory_nbytes();  // addresses cost nothing: fragments don't count
    device.fd = (int)syscall(SYS_memfd_create, "cuda_on_cpu", 0);
    if (device.fd < 0 || ftruncate(device.fd, (off_t)device.room_nbytes)) abort();
    const int may = protects() ? PROT_NONE : PROT_READ | PROT_WRITE;
    void* base = mmap(nullptr, device.room_nbytes, may, MAP_SHARED | MAP_NORESERVE, device.fd, 0);
    if (base == MAP_FAILED) abort();
    device.base = (char*)base;
    log("context on device %d", number);
    return device;
}

bool find_allocation(const void* at, Allocation* found) {
    for (int number = 0; number < n_devices(); ++number) {
        Device& device = devices[number];
        if (!device.holds(at)) continue;
        const size_t offset = (const char*)at - device.base;
        auto after = device.allocated.upper_bound(offset);
        if (after == device.allocated.begin()) return false;
        --after;
        if (offset >= after->first + after->second) return false;
        if (found) *found = {number, device.base + after->first, after->second};
        return true;
    }
    for (auto& [address, mapping] : mappings) {
        if ((const char*)at < mapping.base || (const char*)at >= mapping.base + mapping.nbytes) continue;
        if (found) *found = {mapping.device, mapping.base, mapping.nbytes};
        return true;
    }
    return false;
}

bool on_device(const void* at) {
    return find_allocation(at);
}

bool is_inside(const void* at, size_t nbytes, const char* what) {
    Allocation found;
    for (int number = 0; number < n_devices(); ++number) {
        if (!devices[number].holds(at)) continue;
        if (!find_allocation(at, &found)) {
            complain("%s: %p is memory of device %d that is not allocated", what, at, number);
            return false;
        }
        if ((const char*)at + nbytes > found.base + found.nbytes) {
            complain("%s: %zu bytes at %p reach past an allocation of %zu bytes", what, nbytes, at, found.nbytes);
            return false;
        }
    }
    return true;
}

static void set_protection(int device, bool may_touch) {
    const int how = may_touch ? PROT_READ | PROT_WRITE : PROT_NONE;
    auto concerns = [&](int number) {
        return !may_touch || device == ALL_DEVICES || number == device || devices[device].peers.count(number);
    };
    for (int number = 0; number < n_devices(); ++number)
        if (devices[number].base && concerns(number)) mprotect(devices[number].base, devices[number].room_nbytes, how);
    for (auto& [address, mapping] : mappings)
        if (concerns(mapping.device)) mprotect(mapping.base, mapping.nbytes, how);
}

Touching::Touching(int device) {
    if ((n_touching++ == 0 || device == ALL_DEVICES) && protects()) set_protection(device, true);
}

Touching::~Touching() {
    if (--n_touching == 0 && protects()) set_protection(ALL_DEVICES, false);
}

static bool is_there(int device) {
    return device >= 0 && device < n_devices();
}

static void fill_in(cudaDeviceProp& told, int device) {
    memset(&told, 0, sizeof told);
    snprintf(told.name, sizeof told.name, "NVIDIA H200 of the CPU");
    told.totalGlobalMem = memory_nbytes();
    told.major = compute_capability() / 10;
    told.minor = compute_capability() % 10;
    told.pciBusID = device + 1;
    for (int i = 0; i < 16; ++i)
        told.uuid.bytes[i] = (char)(i + device);
    told.multiProcessorCount = 132;
    told.warpSize = 32;
    told.maxThreadsPerBlock = told.maxThreadsDim[0] = told.maxThreadsDim[1] = 1024;
    told.maxThreadsDim[2] = 64;
    told.maxGridSize[0] = 2147483647;
    told.maxGridSize[1] = told.maxGridSize[2] = 65535;
    told.maxThreadsPerMultiProcessor = 2048;
    told.maxBlocksPerMultiProcessor = 32;
    told.regsPerBlock = told.regsPerMultiprocessor = 65536;
    told.sharedMemPerBlock = 49152;
    told.sharedMemPerBlockOptin = 232448;
    told.sharedMemPerMultiprocessor = 233472;
    told.reservedSharedMemPerBlock = 1024;
    told.totalConstMem = 65536;
    told.l2CacheSize = 62914560;
    told.persistingL2CacheMaxSize = 40000000;
    told.clockRate = 1980000;
    told.memoryClockRate = 3201000;
    told.memoryBusWidth = 6144;
    told.asyncEngineCount = 3;
    told.concurrentKernels = told.unifiedAddressing = told.canMapHostMemory = told.managedMemory = 1;
    told.memoryPoolsSupported = told.cooperativeLaunch = 1;
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

EXPORT cudaError_t cudaDriverGetVersion(int* version) {
    *version = 12090;
    return cudaSuccess;
}

EXPORT cudaError_t cudaRuntimeGetVersion(int* version) {
    return cudaDriverGetVersion(version);
}

EXPORT cudaError_t cudaGetDeviceCount(int* count) {
    *count = n_devices();
    return n_devices() ? cudaSuccess : fail(cudaErrorNoDevice, "cudaGetDeviceCount");
}

EXPORT cudaError_t cudaGetDevice(int* device) {
    if (!n_devices()) return fail(cudaErrorNoDevice, "cudaGetDevice");
    *device = current_device;
    return cudaSuccess;
}

EXPORT cudaError_t cudaSetDevice(int device) {
    Guard guard(lock);
    if (!is_there(device)) return fail(cudaErrorInvalidDevice, "cudaSetDevice");
    current_device = device;
    device_of(device);  // since CUDA 12 it makes the context
    return cudaSuccess;
}

// For tests: whether anything has used a device.
EXPORT int cuda_on_cpu_has_context(int device) {
    return devices[device].base != nullptr;
}

EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* told, int device) {
    if (!is_there(device)) return fail(cudaErrorInvalidDevice, "cudaGetDeviceProperties");
    fill_in(*told, device);
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    if (!is_there(device)) return fail(cudaErrorInvalidDevice, "cudaDeviceGetAttribute");
    cudaDeviceProp told;
    fill_in(told, device);
    switch (attribute) {
        case cudaDevAttrMaxThreadsPerBlock: *value = told.maxThreadsPerBlock; break;
        case cudaDevAttrMaxBlockDimX: *value = told.maxThreadsDim[0]; break;
        case cudaDevAttrMaxBlockDimY: *value = told.maxThreadsDim[1]; break;
        case cudaDevAttrMaxBlockDimZ: *value = told.maxThreadsDim[2]; break;
        case cudaDevAttrMaxGridDimX: *value = told.maxGridSize[0]; break;
        case cudaDevAttrMaxGridDimY: *value = told.maxGridSize[1]; break;
        case cudaDevAttrMaxGridDimZ: *value = told.maxGridSize[2]; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)told.sharedMemPerBlock; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)told.sharedMemPerBlockOptin; break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = (int)told.sharedMemPerMultiprocessor; break;
        case cudaDevAttrTotalConstantMemory: *value = (int)told.totalConstMem; break;
        case cudaDevAttrWarpSize: *value = told.warpSize; break;
        case cudaDevAttrMaxRegistersPerBlock: *value = told.regsPerBlock; break;
        case cudaDevAttrMaxRegistersPerMultiprocessor: *value = told.regsPerMultiprocessor; break;
        case cudaDevAttrMultiProcessorCount: *value = told.multiProcessorCount; break;
        case cudaDevAttrMaxThreadsPerMultiProcessor: *value = told.maxThreadsPerMultiProcessor; break;
        case cudaDevAttrMaxBlocksPerMultiprocessor: *value = told.maxBlocksPerMultiProcessor; break;
        case cudaDevAttrClockRate: *value = told.clockRate; break;
        case cudaDevAttrMemoryClockRate: *value = told.memoryClockRate; break;
        case cudaDevAttrGlobalMemoryBusWidth: *value = told.memoryBusWidth; break;
        case cudaDevAttrL2CacheSize: *value = told.l2CacheSize; break;
        case cudaDevAttrComputeCapabilityMajor: *value = told.major; break;
        case cudaDevAttrComputeCapabilityMinor: *value = told.minor; break;
        case cudaDevAttrConcurrentKernels:
        case cudaDevAttrUnifiedAddressing:
        case cudaDevAttrManagedMemory:
        case cudaDevAttrCooperativeLaunch:
        case cudaDevAttrMemoryPoolsSupported: *value = 1; break;
        default: *value = 0;
    }
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int device) {
    if (!is_there(device)) return fail(cudaErrorInvalidDevice, "cudaDeviceGetPCIBusId");
    snprintf(id, length, "0000:%02X:00.0", device + 1);
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetByPCIBusId(int* device, const char* id) {
    unsigned domain, bus;
    if (sscanf(id, "%x:%x", &domain, &bus) != 2 || !is_there((int)bus - 1))
        return fail(cudaErrorInvalidValue, "cudaDeviceGetByPCIBusId");
    *device = (int)bus - 1;
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
    *can = device != peer && setting("CUDA_ON_CPU_PEERS", 1);
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned) {
    Guard guard(lock);
    if (!is_there(peer)) return fail(cudaErrorInvalidDevice, "cudaDeviceEnablePeerAccess");
    device_of(peer);
    const bool is_new = device_of(current_device).peers.insert(peer).second;
    return is_new ? cudaSuccess : fail(cudaErrorPeerAccessAlreadyEnabled, "cudaDeviceEnablePeerAccess");
}

EXPORT cudaError_t cudaDeviceDisablePeerAccess(int peer) {
    Guard guard(lock);
    device_of(current_device).peers.erase(peer);
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceGetLimit(size_t* value, cudaLimit) {
    *value = 8 << 20;
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceSetLimit(cudaLimit, size_t) {
    return cudaSuccess;
}

EXPORT cudaError_t cudaProfilerStart() {
    return cudaSuccess;
}

EXPORT cudaError_t cudaProfilerStop() {
    return cudaSuccess;
}

// By its own name, which the header replaces, the function writes what CUDA 11 had: cudnn-frontend has room for no
// more.
#undef cudaGetDeviceProperties
EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* told, int device) {
    constexpr size_t NBYTES_OF_CUDA_11 = 712;
    cudaDeviceProp all;
    if (const cudaError_t error = cudaGetDeviceProperties_v2(&all, device)) return error;
    memcpy(told, &all, NBYTES_OF_CUDA_11);
    return cudaSuccess;
}
