// cuBLAS, level 1: dot products, sums, norms and extremes of vectors, scaling.
#include "cublas_handle.h"

using namespace cuda_on_cpu;

namespace {

// Where the result lies on the host, the call waits for it (documentation of cuBLAS, "Scalar Parameters").
template <class R, class F>
cublasStatus_t give(cublasHandle_t handle, R* result, const F& compute) {
    cublasStatus_t status = queue(handle, [=] { *result = compute(); });
    bool waits = handle->pointer_mode == CUBLAS_POINTER_MODE_HOST;
    if (!status && waits && synchronize(handle->stream)) return CUBLAS_STATUS_EXECUTION_FAILED;
    return status;
}

template <class C>
cublasStatus_t dot(const char* function, cublasHandle_t handle, int n, const C* x, int step_x, const C* y, int step_y,
                   C* result, bool conjugated) {
    Call call(handle, function);
    if (!call.needs(result, "result isn't null").ok()) return call.status();
    return give(handle, numbers(result), [=] {
        Number<C> sum(0);
        for (int i = 0; i < n; i++) {
            sum += conjugate_if(element(numbers(x), i, n, step_x), conjugated) * element(numbers(y), i, n, step_y);
        }
        return sum;
    });
}

template <class C>
cublasStatus_t axpy(const char* function, cublasHandle_t handle, int n, const C* alpha, const C* x, int step_x, C* y,
                    int step_y) {
    Call call(handle, function);
    if (!call.needs(alpha, "alpha isn't null").ok()) return call.status();
    auto alpha_of = scalar(handle, alpha);
    return queue(handle, [=] {
        Number<C> scale = alpha_of.get();
        for (int i = 0; i < n; i++)
            element(numbers(y), i, n, step_y) += scale * element(numbers(x), i, n, step_x);
    });
}

template <class S, class C>
cublasStatus_t scal(const char* function, cublasHandle_t handle, int n, const S* alpha, C* x, int step) {
    Call call(handle, function);
    if (!call.needs(alpha, "alpha isn't null").ok()) return call.status();
    if (step <= 0) return CUBLAS_STATUS_SUCCESS;
    auto alpha_of = scalar(handle, alpha);
    return queue(handle, [=] {
        Number<S> scale = alpha_of.get();
        for (int i = 0; i < n; i++)
            element(numbers(x), i, n, step) *= scale;
    });
}

// |re| + |im|, as BLAS measures
template <class T>
double size(T x) {
    if constexpr (is_complex<T>::value) {
        return std::abs(x.real()) + std::abs(x.imag());
    } else {
        return std::abs(x);
    }
}

template <class C, class R>
cublasStatus_t asum(const char* function, cublasHandle_t handle, int n, const C* x, int step, R* result) {
    Call call(handle, function);
    if (!call.needs(result, "result isn't null").ok()) return call.status();
    return give(handle, result, [=] {
        double sum = 0;
        for (int i = 0; step > 0 && i < n; i++)
            sum += size(element(numbers(x), i, n, step));
        return static_cast<R>(sum);
    });
}

template <class C, class R>
cublasStatus_t nrm2(const char* function, cublasHandle_t handle, int n, const C* x, int step, R* result) {
    Call call(handle, function);
    if (!call.needs(result, "result isn't null").ok()) return call.status();
    return give(handle, result, [=] {
        double sum = 0;
        for (int i = 0; step > 0 && i < n; i++) {
            sum += std::norm(convert<complex128>(element(numbers(x), i, n, step)));
        }
        return static_cast<R>(std::sqrt(sum));
    });
}

// The number, from 1, of the first element of the greatest or least size
template <class C>
cublasStatus_t extreme(const char* function, cublasHandle_t handle, int n, const C* x, int step, int* result,
                       bool greatest) {
    Call call(handle, function);
    if (!call.needs(result, "result isn't null").ok()) return call.status();
    return give(handle, result, [=] {
        if (n < 1 || step < 1) return 0;
        int best = 0;
        for (int i = 1; i < n; i++) {
            double here = size(element(numbers(x), i, n, step));
            double there = size(element(numbers(x), best, n, step));
            if (greatest ? here > there : here < there) best = i;
        }
        return best + 1;
    });
}

}  // namespace

#define DEFINE_DOT(name, C, conjugated)                                                                      \
    EXPORT cublasStatus_t name(cublasHandle_t handle, int n, const C* x, int step_x, const C* y, int step_y, \
                               C* result) {                                                                  \
        return dot(__func__, handle, n, x, step_x, y, step_y, result, conjugated);                           \
    }
DEFINE_DOT(cublasSdot_v2, float, false)
DEFINE_DOT(cublasDdot_v2, double, false)
DEFINE_DOT(cublasCdotu_v2, cuComplex, false)
DEFINE_DOT(cublasCdotc_v2, cuComplex, true)
DEFINE_DOT(cublasZdotu_v2, cuDoubleComplex, false)
DEFINE_DOT(cublasZdotc_v2, cuDoubleComplex, true)

#define DEFINE_AXPY(name, C)                                                                               \
    EXPORT cublasStatus_t name(cublasHandle_t handle, int n, const C* alpha, const C* x, int step_x, C* y, \
                               int step_y) {                                                               \
        return axpy(__func__, handle, n, alpha, x, step_x, y, step_y);                                     \
    }
DEFINE_AXPY(cublasSaxpy_v2, float)
DEFINE_AXPY(cublasDaxpy_v2, double)
DEFINE_AXPY(cublasCaxpy_v2, cuComplex)
DEFINE_AXPY(cublasZaxpy_v2, cuDoubleComplex)

#define DEFINE_SCAL(name, S, C)                                                                \
    EXPORT cublasStatus_t name(cublasHandle_t handle, int n, const S* alpha, C* x, int step) { \
        return scal(__func__, handle, n, alpha, x, step);                                      \
    }
DEFINE_SCAL(cublasSscal_v2, float, float)
DEFINE_SCAL(cublasDscal_v2, double, double)
DEFINE_SCAL(cublasCscal_v2, cuComplex, cuComplex)
DEFINE_SCAL(cublasCsscal_v2, float, cuComplex)
DEFINE_SCAL(cublasZscal_v2, cuDoubleComplex, cuDoubleComplex)
DEFINE_SCAL(cublasZdscal_v2, double, cuDoubleComplex)

#define DEFINE_NORM(name, norm, C, R)                                                           \
    EXPORT cublasStatus_t name(cublasHandle_t handle, int n, const C* x, int step, R* result) { \
        return norm(__func__, handle, n, x, step, result);                                      \
    }
DEFINE_NORM(cublasSasum_v2, asum, float, float)
DEFINE_NORM(cublasDasum_v2, asum, double, double)
DEFINE_NORM(cublasScasum_v2, asum, cuComplex, float)
DEFINE_NORM(cublasDzasum_v2, asum, cuDoubleComplex, double)
DEFINE_NORM(cublasSnrm2_v2, nrm2, float, float)
DEFINE_NORM(cublasDnrm2_v2, nrm2, double, double)
DEFINE_NORM(cublasScnrm2_v2, nrm2, cuComplex, float)
DEFINE_NORM(cublasDznrm2_v2, nrm2, cuDoubleComplex, double)

#define DEFINE_EXTREME(name, C, greatest)                                                         \
    EXPORT cublasStatus_t name(cublasHandle_t handle, int n, const C* x, int step, int* result) { \
        return extreme(__func__, handle, n, x, step, result, greatest);                           \
    }
DEFINE_EXTREME(cublasIsamax_v2, float, true)
DEFINE_EXTREME(cublasIdamax_v2, double, true)
DEFINE_EXTREME(cublasIcamax_v2, cuComplex, true)
DEFINE_EXTREME(cublasIzamax_v2, cuDoubleComplex, true)
DEFINE_EXTREME(cublasIsamin_v2, float, false)
DEFINE_EXTREME(cublasIdamin_v2, double, false)
DEFINE_EXTREME(cublasIcamin_v2, cuComplex, false)
DEFINE_EXTREME(cublasIzamin_v2, cuDoubleComplex, false)
