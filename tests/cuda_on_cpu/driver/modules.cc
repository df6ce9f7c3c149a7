// The driver's interface: contexts, modules that the compiler beside this library made, launches.
//
// A module is "CPUCUBIN", the length of a shared object in 8 bytes, and the object itself; of each kernel NAME it has
// NAME__launch and NAME__parameters_nbytes.
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state.h"

using namespace cuda_on_cpu;

struct CUctx_st {
    int device;
};

struct CUmod_st {
    void* library;
};

using Launch = int (*)(void** parameters, const unsigned* grid, const unsigned* block, unsigned shared_nbytes);
using ParametersNbytes = unsigned (*)(unsigned* nbytes, unsigned capacity);

struct CUfunc_st {
    std::string name;
    Launch launch;
    std::vector<unsigned> parameters_nbytes;
    int device;
    int most_dynamic_shared_nbytes;
};

namespace {

constexpr char MAGIC[] = "CPUCUBIN";
constexpr size_t MAGIC_NBYTES = 8, HEADER_NBYTES = MAGIC_NBYTES + sizeof(uint64_t);
constexpr unsigned MOST_THREADS = 1024, MOST_BLOCKS_OF_Y_AND_Z = 65535;
constexpr int SHARED_NBYTES = 49152, MOST_SHARED_NBYTES = 232448;

CUctx_st contexts[MOST_DEVICES];

CUcontext context_of(int device) {
    contexts[device].device = device;
    return &contexts[device];
}

bool write_all(int fd, const char* data, size_t nbytes) {
    while (nbytes) {
        const ssize_t written = write(fd, data, nbytes);
        if (written <= 0) return false;
        data += written;
        nbytes -= written;
    }
    return true;
}

bool is_launchable(const CUfunc_st& function, const unsigned (&grid)[3], const unsigned (&block)[3], unsigned shared) {
    const uint64_t n_threads = (uint64_t)block[0] * block[1] * block[2];
    return grid[0] && grid[1] && grid[2] && n_threads && n_threads <= MOST_THREADS && grid[0] <= 2147483647u &&
           grid[1] <= MOST_BLOCKS_OF_Y_AND_Z && grid[2] <= MOST_BLOCKS_OF_Y_AND_Z &&
           (int)shared <= function.most_dynamic_shared_nbytes;
}

}  // namespace

EXPORT CUresult cuInit(unsigned) {
    return n_devices() ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

EXPORT CUresult cuDriverGetVersion(int* version) {
    return (CUresult)cudaDriverGetVersion(version);
}

EXPORT CUresult cuDeviceGetCount(int* count) {
    *count = n_devices();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice* device, int number) {
    *device = number;
    return number >= 0 && number < n_devices() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

EXPORT CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
    cudaDeviceProp told;
    if (auto error = cudaGetDeviceProperties(&told, device)) return (CUresult)error;
    snprintf(name, length, "%s", told.name);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t* nbytes, CUdevice) {
    *nbytes = memory_nbytes();
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
    return (CUresult)cudaDeviceGetAttribute(value, (cudaDeviceAttr)attribute, device);
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    Guard guard(lock);
    device_of(device);
    *context = context_of(device);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) {
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxCreate_v2(CUcontext* context, unsigned, CUdevice device) {
    return cuDevicePrimaryCtxRetain(context, device);
}

EXPORT CUresult cuCtxDestroy_v2(CUcontext) {
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext* context) {
    *context = devices[current_device].base ? context_of(current_device) : nullptr;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
    if (context) current_device = context->device;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetDevice(CUdevice* device) {
    *device = current_device;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuStreamGetCtx(CUstream handle, CUcontext* context) {
    Guard guard(lock);
    CUstream_st* stream = stream_of(handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    *context = context_of(stream->device);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    Guard guard(lock);
    if (forbid_in_capture("cuModuleLoadData")) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (memcmp(image, MAGIC, MAGIC_NBYTES)) return CUDA_ERROR_INVALID_IMAGE;
    uint64_t nbytes;
    memcpy(&nbytes, (const char*)image + MAGIC_NBYTES, sizeof nbytes);
    // a name of its own: the linker takes a path that it has opened before for the same library
    char path[] = "/tmp/cuda_on_cpu_XXXXXX";
    const int fd = mkstemp(path);
    if (fd < 0) return CUDA_ERROR_OPERATING_SYSTEM;
    const bool is_written = write_all(fd, (const char*)image + HEADER_NBYTES, nbytes);
    close(fd);
    void* library = is_written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    unlink(path);
    if (!library) {
        complain("a module can't be loaded: %s", is_written ? dlerror() : "no room for it");
        return CUDA_ERROR_INVALID_IMAGE;
    }
    *module = new CUmod_st{library};
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleLoad(CUmodule* module, const char* path) {
    FILE* file = fopen(path, "rb");
    if (!file) return CUDA_ERROR_FILE_NOT_FOUND;
    std::string image;
    char part[65536];
    while (const size_t n = fread(part, 1, sizeof part, file))
        image.append(part, n);
    fclose(file);
    return image.size() < HEADER_NBYTES ? CUDA_ERROR_INVALID_IMAGE : cuModuleLoadData(module, image.data());
}

EXPORT CUresult cuModuleUnload(CUmodule module) {
    Guard guard(lock);
    if (forbid_in_capture("cuModuleUnload")) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    return module ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;  // it stays loaded: work may be of it
}

EXPORT CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    Guard guard(lock);
    const std::string prefix = std::string(name) + "__";
    const auto launch = (Launch)dlsym(module->library, (prefix + "launch").c_str());
    const auto told = (ParametersNbytes)dlsym(module->library, (prefix + "parameters_nbytes").c_str());
    if (!launch || !told) return CUDA_ERROR_NOT_FOUND;
    std::vector<unsigned> parameters_nbytes(told(nullptr, 0));
    told(parameters_nbytes.data(), (unsigned)parameters_nbytes.size());
    *function = new CUfunc_st{name, launch, std::move(parameters_nbytes), current_device, SHARED_NBYTES};
    return CUDA_SUCCESS;
}

EXPORT CUresult cuModuleGetGlobal_v2(CUdeviceptr* at, size_t* nbytes, CUmodule module, const char* name) {
    Guard guard(lock);
    void* found = dlsym(module->library, name);
    if (!found) return CUDA_ERROR_NOT_FOUND;
    *at = (CUdeviceptr)found;
    Dl_info library;
    ElfW(Sym)* symbol = nullptr;
    if (nbytes && dladdr1(found, &library, (void**)&symbol, RTLD_DL_SYMENT) && symbol) *nbytes = symbol->st_size;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                               unsigned block_y, unsigned block_z, unsigned shared_nbytes, CUstream handle,
                               void** parameters, void** extra) {
    Guard guard(lock);
    CUstream_st* stream = stream_of(handle);
    if (!function || !stream) return CUDA_ERROR_INVALID_HANDLE;
    const char* name = function->name.c_str();
    if (extra) {
        complain("%s: parameters by `extra` are not understood", name);
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (function->device != stream->device) {
        complain("%s of device %d on a stream of device %d", name, function->device, stream->device);
        return CUDA_ERROR_INVALID_HANDLE;
    }
    const unsigned grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};
    if (!is_launchable(*function, grid, block, shared_nbytes)) {
        complain("%s: no GPU has a grid of %u %u %u, blocks of %u %u %u, %u bytes of dynamic shared memory", name,
                 grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_nbytes);
        return CUDA_ERROR_INVALID_VALUE;
    }
    auto copies = std::make_shared<std::vector<std::string>>();  // the caller's may change after the call
    for (size_t i = 0; i < function->parameters_nbytes.size(); ++i)
        copies->emplace_back((const char*)parameters[i], function->parameters_nbytes[i]);
    auto act = [=] {
        const unsigned of_grid[3] = {grid_x, grid_y, grid_z}, of_block[3] = {block_x, block_y, block_z};
        std::vector<void*> given;
        for (std::string& copy : *copies)
            given.push_back(copy.data());
        if (const int failure = function->launch(given.data(), of_grid, of_block, shared_nbytes)) {
            complain("%s failed with %d (1: threads wait for others that never come)", function->name.c_str(), failure);
            abort();
        }
    };
    return (CUresult)put(handle, act, name);
}

EXPORT CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                          unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_nbytes,
                                          CUstream stream, void** parameters) {
    return cuLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_nbytes, stream,
                          parameters, nullptr);
}

EXPORT CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
    switch (attribute) {
        case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = MOST_THREADS; break;
        case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = function->most_dynamic_shared_nbytes; break;
        case CU_FUNC_ATTRIBUTE_NUM_REGS: *value = 32; break;
        case CU_FUNC_ATTRIBUTE_PTX_VERSION:
        case CU_FUNC_ATTRIBUTE_BINARY_VERSION: *value = compute_capability(); break;
        default: *value = 0;
    }
    return CUDA_SUCCESS;
}

EXPORT CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
    if (value > MOST_SHARED_NBYTES) return CUDA_ERROR_INVALID_VALUE;
    function->most_dynamic_shared_nbytes = value;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n_blocks, CUfunction, int n_threads, size_t) {
    *n_blocks = 2048 / (n_threads ? n_threads : 1);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuOccupancyMaxPotentialBlockSize(int* n_blocks, int* n_threads, CUfunction, CUoccupancyB2DSize, size_t,
                                                 int) {
    *n_blocks = 264;
    *n_threads = 256;
    return CUDA_SUCCESS;
}
