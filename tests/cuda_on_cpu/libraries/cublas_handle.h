// The handle of cuBLAS, the checks that every routine begins with, and scalars, which lie on the host or on the device.
#pragma once

#define CUBLASAPI
#include <cublas_api.h>

#include <complex>

#include "driver.h"
#include "numbers.h"

struct cublasContext {
    static constexpr unsigned ALIVE = 0xb1a5;

    unsigned state = ALIVE;  // 0 when destroyed
    int device = cuda_on_cpu::current_device();
    void* stream = nullptr;
    int pointer_mode = CUBLAS_POINTER_MODE_HOST;
    int math_mode = CUBLAS_DEFAULT_MATH;
};

namespace cuda_on_cpu {

inline bool is_alive(cublasHandle_t handle) {
    return handle && handle->state == cublasContext::ALIVE;
}

// The checks of one call: the first that fails is reported and gives the status.
class Call {
public:
    Call(cublasHandle_t handle, const char* function) : function_(function) {
        if (!is_alive(handle)) {
            report("cublas", function, "no such handle %p", static_cast<void*>(handle));
            status_ = CUBLAS_STATUS_NOT_INITIALIZED;
        } else if (!is_of_current_device("cublas", function, handle->device)) {
            status_ = CUBLAS_STATUS_NOT_INITIALIZED;
        }
    }

    Call& needs(bool condition, const char* rule) {
        if (!condition && ok()) {
            report("cublas", function_, "not so: %s", rule);
            status_ = CUBLAS_STATUS_INVALID_VALUE;
        }
        return *this;
    }
    bool ok() const { return status_ == CUBLAS_STATUS_SUCCESS; }
    cublasStatus_t status() const { return status_; }

private:
    const char* function_;
    cublasStatus_t status_ = CUBLAS_STATUS_SUCCESS;
};

template <class Work>
cublasStatus_t queue(cublasHandle_t handle, const Work& work) {
    return enqueue(handle->stream, work) ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

// The type that is computed in for a type of the interface, and its cudaDataType.
template <class C>
struct NumberOf {
    using type = C;
};
template <>
struct NumberOf<cuComplex> {
    using type = complex64;
};
template <>
struct NumberOf<cuDoubleComplex> {
    using type = complex128;
};
template <class C>
using Number = typename NumberOf<C>::type;

template <class C>
auto numbers(C* data) {
    return reinterpret_cast<Number<C>*>(data);
}
template <class C>
auto numbers(const C* data) {
    return reinterpret_cast<const Number<C>*>(data);
}

template <class T>
constexpr int type_of = CUDA_R_32F;
template <>
inline constexpr int type_of<double> = CUDA_R_64F;
template <>
inline constexpr int type_of<complex64> = CUDA_C_32F;
template <>
inline constexpr int type_of<complex128> = CUDA_C_64F;

// Read at the call where it lies on the host, by the queued work where it lies on the device.
template <class T>
class Scalar {
public:
    Scalar(cublasHandle_t handle, const void* data, int type) : type_(type) {
        if (handle->pointer_mode == CUBLAS_POINTER_MODE_DEVICE) {
            on_device_ = data;
        } else {
            value_ = load_one<T>(type, data);
        }
    }
    T get() const { return on_device_ ? load_one<T>(type_, on_device_) : value_; }

private:
    const void* on_device_ = nullptr;
    T value_{};
    int type_;
};

template <class C>
Scalar<Number<C>> scalar(cublasHandle_t handle, const C* data) {
    return Scalar<Number<C>>(handle, data, type_of<Number<C>>);
}

// Number i of the n of a vector: with a negative step, the last lies first.
template <class T>
T& element(T* x, int i, int n, int step) {
    return x[static_cast<int64_t>(step >= 0 ? i : i - n + 1) * step];
}

}  // namespace cuda_on_cpu
