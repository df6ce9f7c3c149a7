// cuBLAS: solutions by triangular matrices, and LU factors, inverses and solutions of batches of small matrices.
#include "cublas_handle.h"
#include "factors.h"

using namespace cuda_on_cpu;

namespace {

struct Triangle {
    int side;
    int fill;
    int operation;
    int diagonal;
};

// op(A) · X = alpha · B in place of B; with A at the right, X · op(A) = alpha · B, which is op(A)^T · X^T = alpha · B^T
template <class T>
void solve_triangle(const Triangle& triangle, int m, int n, T alpha, const T* a, int64_t lda, T* b, int64_t ldb) {
    bool left = triangle.side == CUBLAS_SIDE_LEFT;
    bool transposed = triangle.operation != CUBLAS_OP_N;
    bool conjugated = triangle.operation == CUBLAS_OP_C;
    int size = left ? m : n;
    int n_lines = left ? n : m;
    bool lower = (triangle.fill == CUBLAS_FILL_MODE_LOWER) != transposed;
    if (!left) lower = !lower;
    // of op(A), or of its transpose where it is at the right
    auto element_of = [&](int64_t i, int64_t j) {
        if (!left) std::swap(i, j);
        return conjugate_if(transposed ? a[i * lda + j] : a[j * lda + i], conjugated);
    };
    for (int64_t line = 0; line < n_lines; line++) {
        auto x = [&](int64_t i) -> T& { return left ? b[line * ldb + i] : b[i * ldb + line]; };
        for (int done = 0; done < size; done++) {
            int i = lower ? done : size - 1 - done;
            T value = alpha == T(0) ? T(0) : alpha * x(i);
            for (int before = 0; before < done; before++) {
                int j = lower ? before : size - 1 - before;
                value -= element_of(i, j) * x(j);
            }
            x(i) = triangle.diagonal == CUBLAS_DIAG_UNIT ? value : value / element_of(i, i);
        }
    }
}

void check_triangle(Call& call, const Triangle& triangle, int m, int n, int lda, int ldb) {
    int size = triangle.side == CUBLAS_SIDE_LEFT ? m : n;
    call.needs(lda >= std::max(1, size), "lda is at least the rows of A")
        .needs(ldb >= std::max(1, m), "ldb is at least m");
}

template <class C>
cublasStatus_t trsm(const char* function, cublasHandle_t handle, const Triangle& triangle, int m, int n, const C* alpha,
                    const C* a, int lda, C* b, int ldb) {
    Call call(handle, function);
    check_triangle(call, triangle, m, n, lda, ldb);
    if (!call.ok()) return call.status();
    auto alpha_of = scalar(handle, alpha);
    return queue(handle, [=] { solve_triangle(triangle, m, n, alpha_of.get(), numbers(a), lda, numbers(b), ldb); });
}

template <class C>
cublasStatus_t trsm_batched(const char* function, cublasHandle_t handle, const Triangle& triangle, int m, int n,
                            const C* alpha, const C* const* a, int lda, C* const* b, int ldb, int batch) {
    Call call(handle, function);
    check_triangle(call, triangle, m, n, lda, ldb);
    if (!call.ok()) return call.status();
    auto alpha_of = scalar(handle, alpha);
    return queue(handle, [=] {
        for (int number = 0; number < batch; number++) {
            solve_triangle(triangle, m, n, alpha_of.get(), numbers(a[number]), lda, numbers(b[number]), ldb);
        }
    });
}

const int* pivots_of(const int* pivots, int64_t n, int64_t number) {
    return pivots ? pivots + number * n : nullptr;
}

template <class C>
cublasStatus_t getrf_batched(const char* function, cublasHandle_t handle, int n, C* const* a, int lda, int* pivots,
                             int* info, int batch) {
    Call call(handle, function);
    call.needs(n >= 0 && batch >= 0, "n and the batch aren't negative")
        .needs(lda >= std::max(1, n), "lda is at least n");
    call.needs(info || !batch, "info isn't null");
    if (!call.ok()) return call.status();
    return queue(handle, [=] {
        for (int64_t number = 0; number < batch; number++) {
            int* its_pivots = pivots ? pivots + number * n : nullptr;
            info[number] = lu_factors(n, n, numbers(a[number]), lda, its_pivots);
        }
    });
}

// The number, from 1, of the first 0 of the diagonal, or 0
template <class T>
int first_zero(const T* a, int64_t n, int64_t lda) {
    for (int64_t i = 0; i < n; i++) {
        if (a[i * lda + i] == T(0)) return static_cast<int>(i) + 1;
    }
    return 0;
}

template <class C>
cublasStatus_t getri_batched(const char* function, cublasHandle_t handle, int n, const C* const* a, int lda,
                             const int* pivots, C* const* c, int ldc, int* info, int batch) {
    using T = Number<C>;
    Call call(handle, function);
    call.needs(n >= 0 && batch >= 0, "n and the batch aren't negative");
    call.needs(lda >= std::max(1, n) && ldc >= std::max(1, n), "lda and ldc are at least n");
    if (!call.ok()) return call.status();
    return queue(handle, [=] {
        for (int number = 0; number < batch; number++) {
            const T* factors = numbers(a[number]);
            T* inverse = numbers(c[number]);
            info[number] = first_zero(factors, n, lda);
            if (info[number]) continue;
            for (int64_t j = 0; j < n; j++) {
                for (int64_t i = 0; i < n; i++)
                    inverse[j * ldc + i] = T(i == j);
            }
            lu_solve(CUBLAS_OP_N, n, n, factors, lda, pivots_of(pivots, n, number), inverse, ldc);
        }
    });
}

// info is of the host here, and tells of the arguments alone
template <class C>
cublasStatus_t getrs_batched(const char* function, cublasHandle_t handle, int operation, int n, int n_columns,
                             const C* const* a, int lda, const int* pivots, C* const* b, int ldb, int* info,
                             int batch) {
    Call call(handle, function);
    call.needs(info, "info isn't null")
        .needs(lda >= std::max(1, n) && ldb >= std::max(1, n), "lda and ldb are at least n");
    if (!call.ok()) return call.status();
    *info = 0;
    return queue(handle, [=] {
        for (int number = 0; number < batch; number++) {
            const int* its_pivots = pivots_of(pivots, n, number);
            lu_solve(operation, n, n_columns, numbers(a[number]), lda, its_pivots, numbers(b[number]), ldb);
        }
    });
}

}  // namespace

#define DEFINE_TRSM(name, C)                                                                                         \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t fill,                  \
                               cublasOperation_t operation, cublasDiagType_t diagonal, int m, int n, const C* alpha, \
                               const C* a, int lda, C* b, int ldb) {                                                 \
        Triangle triangle{side, fill, operation, diagonal};                                                          \
        return trsm(__func__, handle, triangle, m, n, alpha, a, lda, b, ldb);                                        \
    }
DEFINE_TRSM(cublasStrsm_v2, float)
DEFINE_TRSM(cublasDtrsm_v2, double)
DEFINE_TRSM(cublasCtrsm_v2, cuComplex)
DEFINE_TRSM(cublasZtrsm_v2, cuDoubleComplex)

#define DEFINE_TRSM_BATCHED(name, C)                                                                                 \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t fill,                  \
                               cublasOperation_t operation, cublasDiagType_t diagonal, int m, int n, const C* alpha, \
                               const C* const a[], int lda, C* const b[], int ldb, int batch) {                      \
        Triangle triangle{side, fill, operation, diagonal};                                                          \
        return trsm_batched(__func__, handle, triangle, m, n, alpha, a, lda, b, ldb, batch);                         \
    }
DEFINE_TRSM_BATCHED(cublasStrsmBatched, float)
DEFINE_TRSM_BATCHED(cublasDtrsmBatched, double)
DEFINE_TRSM_BATCHED(cublasCtrsmBatched, cuComplex)
DEFINE_TRSM_BATCHED(cublasZtrsmBatched, cuDoubleComplex)

#define DEFINE_GETRF_BATCHED(name, C)                                                                       \
    EXPORT cublasStatus_t name(cublasHandle_t handle, int n, C* const a[], int lda, int* pivots, int* info, \
                               int batch) {                                                                 \
        return getrf_batched(__func__, handle, n, a, lda, pivots, info, batch);                             \
    }
DEFINE_GETRF_BATCHED(cublasSgetrfBatched, float)
DEFINE_GETRF_BATCHED(cublasDgetrfBatched, double)
DEFINE_GETRF_BATCHED(cublasCgetrfBatched, cuComplex)
DEFINE_GETRF_BATCHED(cublasZgetrfBatched, cuDoubleComplex)

#define DEFINE_GETRI_BATCHED(name, C)                                                                        \
    EXPORT cublasStatus_t name(cublasHandle_t handle, int n, const C* const a[], int lda, const int* pivots, \
                               C* const c[], int ldc, int* info, int batch) {                                \
        return getri_batched(__func__, handle, n, a, lda, pivots, c, ldc, info, batch);                      \
    }
DEFINE_GETRI_BATCHED(cublasSgetriBatched, float)
DEFINE_GETRI_BATCHED(cublasDgetriBatched, double)
DEFINE_GETRI_BATCHED(cublasCgetriBatched, cuComplex)
DEFINE_GETRI_BATCHED(cublasZgetriBatched, cuDoubleComplex)

#define DEFINE_GETRS_BATCHED(name, C)                                                                            \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasOperation_t operation, int n, int n_columns,         \
                               const C* const a[], int lda, const int* pivots, C* const b[], int ldb, int* info, \
                               int batch) {                                                                      \
        return getrs_batched(__func__, handle, operation, n, n_columns, a, lda, pivots, b, ldb, info, batch);    \
    }
DEFINE_GETRS_BATCHED(cublasSgetrsBatched, float)
DEFINE_GETRS_BATCHED(cublasDgetrsBatched, double)
DEFINE_GETRS_BATCHED(cublasCgetrsBatched, cuComplex)
DEFINE_GETRS_BATCHED(cublasZgetrsBatched, cuDoubleComplex)
