// Settings, complaints, and errors by CUDA's names and texts.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "state.h"

namespace cuda_on_cpu {

std::recursive_mutex lock;

long setting(const char* name, long otherwise) {
    const char* text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

static void write_line(const char* format, va_list arguments) {
    fputs("[cuda on cpu] ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

void log(const char* format, ...) {
    static const bool logs = setting("CUDA_ON_CPU_LOG", 0);
    if (!logs) return;
    va_list arguments;
    va_start(arguments, format);
    write_line(format, arguments);
    va_end(arguments);
}

void complain(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    write_line(format, arguments);
    va_end(arguments);
}

static thread_local cudaError_t last_error = cudaSuccess;

cudaError_t fail(cudaError_t code, const char* what) {
    log("error %d: %s", (int)code, what);
    last_error = code;
    return code;
}

namespace {

struct Error {
    int code;
    const char* name;
    const char* text;
};

// as cuda_runtime_api.h has them; numbers of the driver's are the same
const Error ERRORS[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorDeviceUninitialized, "cudaErrorDeviceUninitialized", "invalid device context"},
    {cudaErrorInvalidKernelImage, "cudaErrorInvalidKernelImage", "device kernel image is invalid"},
    {cudaErrorFileNotFound, "cudaErrorFileNotFound", "file not found"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorSymbolNotFound, "cudaErrorSymbolNotFound", "named symbol not found"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorPeerAccessAlreadyEnabled, "cudaErrorPeerAccessAlreadyEnabled", "peer access is already enabled"},
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped"},
    {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
     "pointer does not correspond to a registered memory region"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
};

const Error UNKNOWN = {-1, "cudaErrorUnknown", "unknown error"};

const Error& error_of(int code) {
    for (const Error& error : ERRORS)
        if (error.code == code) return error;
    return UNKNOWN;
}

}  // namespace
}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

EXPORT const char* cudaGetErrorName(cudaError_t error) {
    return error_of(error).name;
}

EXPORT const char* cudaGetErrorString(cudaError_t error) {
    return error_of(error).text;
}

EXPORT cudaError_t cudaGetLastError() {
    return std::exchange(last_error, cudaSuccess);
}

EXPORT cudaError_t cudaPeekAtLastError() {
    return last_error;
}

EXPORT CUresult cuGetErrorName(CUresult error, const char** name) {
    *name = error_of(error).name;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char** text) {
    *text = error_of(error).text;
    return CUDA_SUCCESS;
}
