// The library's version and settings, its errors' names, and handles with their streams.
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>

#include "descriptors.h"
#include "report.h"

namespace cuda_on_cpu::cudnn {

namespace {

std::mutex lock;
std::set<const void*> handles;

}  // namespace

int version() {
    static const int known = [] {
        const char* text = getenv("CUDA_ON_CPU_CUDNN_VERSION");
        return text && *text ? atoi(text) : CUDNN_VERSION;
    }();
    return known;
}

bool is_declined(const char* word) {
    const char* words = getenv("CUDA_ON_CPU_CUDNN_DECLINE");
    return words && text_of(",", words, ",").find(text_of(",", word, ",")) != std::string::npos;
}

bool logs() {
    static const bool known = [] {
        const char* text = getenv("CUDA_ON_CPU_LOG");
        return text && atoi(text) != 0;
    }();
    return known;
}

std::string& last_error() {
    static thread_local std::string text;
    return text;
}

bool is_handle(const void* pointer) {
    std::lock_guard<std::mutex> guard(lock);
    return handles.count(pointer) > 0;
}

EXPORT size_t cudnnGetVersion() {
    return version();
}

EXPORT size_t cudnnGetMaxDeviceVersion() {
    return CUDNN_MAX_DEVICE_VERSION;
}

EXPORT size_t cudnnGetCudartVersion() {
    return CUDART_VERSION;
}

EXPORT cudnnStatus_t cudnnGetProperty(libraryPropertyType type, int* value) {
    switch (type) {
        case MAJOR_VERSION: *value = version() / 10000; break;
        case MINOR_VERSION: *value = version() / 100 % 100; break;
        default: *value = version() % 100;
    }
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnGraphVersionCheck() {
    return CUDNN_STATUS_SUCCESS;
}

EXPORT const char* cudnnGetErrorString(cudnnStatus_t status) {
    switch (status) {
        case CUDNN_STATUS_SUCCESS: return "CUDNN_STATUS_SUCCESS";
        case CUDNN_STATUS_NOT_INITIALIZED: return "CUDNN_STATUS_NOT_INITIALIZED";
        case CUDNN_STATUS_BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
        case CUDNN_STATUS_BAD_PARAM_NULL_POINTER: return "CUDNN_STATUS_BAD_PARAM_NULL_POINTER";
        case CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER: return "CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER";
        case CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED: return "CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED";
        case CUDNN_STATUS_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
        case CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN: return "CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN";
        case CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED: return "CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED";
        case CUDNN_STATUS_EXECUTION_FAILED: return "CUDNN_STATUS_EXECUTION_FAILED";
        default: break;
    }
    static thread_local std::string text;
    text = text_of("CUDNN_STATUS ", static_cast<int>(status));
    return text.c_str();
}

EXPORT void cudnnGetLastErrorString(char* message, size_t nbytes) {
    if (message && nbytes) snprintf(message, nbytes, "%s", last_error().c_str());
}

EXPORT cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
    const char* where = "cudnnCreate";
    if (!handle) return misuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, where, "no place for the handle");
    int device = current_device();
    if (device < 0) return misuse(CUDNN_STATUS_NOT_INITIALIZED, where, "no device");
    *handle = new cudnnContext{nullptr, device};
    std::lock_guard<std::mutex> guard(lock);
    handles.insert(*handle);
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    if (!is_handle(handle)) return bad("cudnnDestroy", handle, " is no handle");
    std::lock_guard<std::mutex> guard(lock);
    handles.erase(handle);
    delete handle;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    if (!is_handle(handle)) return bad("cudnnSetStream", handle, " is no handle");
    is_of_current_device("cudnn", "cudnnSetStream", handle->device);
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) {
    if (!is_handle(handle)) return bad("cudnnGetStream", handle, " is no handle");
    *stream = handle->stream;
    return CUDNN_STATUS_SUCCESS;
}

}  // namespace cuda_on_cpu::cudnn
