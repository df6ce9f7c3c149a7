// cuBLAS: handles, their streams and modes.
#include "cublas_handle.h"

using namespace cuda_on_cpu;

EXPORT cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
    if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
    *handle = new cublasContext;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
    if (!is_alive(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
    handle->state = 0;
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) {
    if (!version) return CUBLAS_STATUS_INVALID_VALUE;
    *version = 120901;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    if (!is_alive(handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
    if (!handle || !stream) return CUBLAS_STATUS_INVALID_VALUE;
    *stream = static_cast<cudaStream_t>(handle->stream);
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
    Call call(handle, __func__);
    call.needs(mode == CUBLAS_POINTER_MODE_HOST || mode == CUBLAS_POINTER_MODE_DEVICE, "the pointer mode is 0 or 1");
    if (call.ok()) handle->pointer_mode = mode;
    return call.status();
}

EXPORT cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t* mode) {
    Call call(handle, __func__);
    call.needs(mode, "mode isn't null");
    if (call.ok()) *mode = static_cast<cublasPointerMode_t>(handle->pointer_mode);
    return call.status();
}

EXPORT cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
    Call call(handle, __func__);
    if (call.ok()) handle->math_mode = mode;
    return call.status();
}

EXPORT cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
    Call call(handle, __func__);
    call.needs(mode, "mode isn't null");
    if (call.ok()) *mode = static_cast<cublasMath_t>(handle->math_mode);
    return call.status();
}
