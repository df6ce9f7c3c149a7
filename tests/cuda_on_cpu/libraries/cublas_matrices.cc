// cuBLAS, levels 2 and 3 but for the products of cublas_gemm.cc and the solutions of cublas_solve.cc: products with a
// vector, updates, sums of matrices.
#include "cublas_handle.h"
#include "product.h"

using namespace cuda_on_cpu;

namespace {

// y = alpha · sums + beta · y, which isn't read where beta is 0
template <class T>
void accumulate(const T* sums, T alpha, T beta, T* y, int n, int step) {
    for (int i = 0; i < n; i++) {
        T& to = element(y, i, n, step);
        to = beta == T(0) ? alpha * sums[i] : alpha * sums[i] + beta * to;
    }
}

template <class C>
cublasStatus_t gemv(const char* function, cublasHandle_t handle, int operation, int m, int n, const C* alpha,
                    const C* a, int lda, const C* x, int step_x, const C* beta, C* y, int step_y) {
    using T = Number<C>;
    Call call(handle, function);
    call.needs(m >= 0 && n >= 0, "m and n aren't negative").needs(lda >= std::max(1, m), "lda is at least m");
    call.needs(step_x && step_y, "steps aren't 0").needs(alpha && beta, "alpha and beta aren't null");
    if (!call.ok()) return call.status();
    auto alpha_of = scalar(handle, alpha);
    auto beta_of = scalar(handle, beta);
    return queue(handle, [=] {
        int n_rows = operation ? n : m;
        int n_columns = operation ? m : n;
        auto sums = room<T>(n_rows);
        std::fill(sums.get(), sums.get() + n_rows, T(0));
        // always along the columns in memory
        if (operation) {
            for (int i = 0; i < n_rows; i++) {
                const T* column = numbers(a) + static_cast<int64_t>(i) * lda;
                for (int k = 0; k < n_columns; k++) {
                    T value = conjugate_if(column[k], operation == CUBLAS_OP_C);
                    sums[i] += value * element(numbers(x), k, n_columns, step_x);
                }
            }
        } else {
            for (int k = 0; k < n_columns; k++) {
                const T* column = numbers(a) + static_cast<int64_t>(k) * lda;
                T scale = element(numbers(x), k, n_columns, step_x);
                for (int i = 0; i < n_rows; i++)
                    sums[i] += column[i] * scale;
            }
        }
        accumulate(sums.get(), alpha_of.get(), beta_of.get(), numbers(y), n_rows, step_y);
    });
}

template <class C>
cublasStatus_t ger(const char* function, cublasHandle_t handle, int m, int n, const C* alpha, const C* x, int step_x,
                   const C* y, int step_y, C* a, int lda, bool conjugated) {
    using T = Number<C>;
    Call call(handle, function);
    call.needs(lda >= std::max(1, m), "lda is at least m").needs(step_x && step_y, "steps aren't 0");
    if (!call.ok()) return call.status();
    auto alpha_of = scalar(handle, alpha);
    return queue(handle, [=] {
        T scale = alpha_of.get();
        for (int j = 0; j < n; j++) {
            T* column = numbers(a) + static_cast<int64_t>(j) * lda;
            T other = conjugate_if(element(numbers(y), j, n, step_y), conjugated);
            for (int i = 0; i < m; i++)
                column[i] += scale * element(numbers(x), i, m, step_x) * other;
        }
    });
}

// Of a symmetric band matrix with k diagonals beside the main one
template <class T>
cublasStatus_t sbmv(const char* function, cublasHandle_t handle, int fill, int n, int k, const T* alpha, const T* a,
                    int lda, const T* x, int step_x, const T* beta, T* y, int step_y) {
    Call call(handle, function);
    if (!call.needs(lda >= k + 1, "lda is at least k + 1").ok()) return call.status();
    auto alpha_of = scalar(handle, alpha);
    auto beta_of = scalar(handle, beta);
    return queue(handle, [=] {
        auto sums = room<T>(n);
        for (int i = 0; i < n; i++) {
            sums[i] = 0;
            for (int j = std::max(0, i - k); j <= std::min(n - 1, i + k); j++) {
                int64_t low = std::min(i, j);
                int64_t high = std::max(i, j);
                bool lower = fill == CUBLAS_FILL_MODE_LOWER;
                T value = lower ? a[low * lda + high - low] : a[high * lda + k + low - high];
                sums[i] += value * element(x, j, n, step_x);
            }
        }
        accumulate(sums.get(), alpha_of.get(), beta_of.get(), y, n, step_y);
    });
}

// Element (i, j) of op(matrix), in the columns of a matrix
template <class T>
T element_of(const T* matrix, int64_t ld, int operation, int64_t i, int64_t j) {
    return conjugate_if(operation ? matrix[i * ld + j] : matrix[j * ld + i], operation == CUBLAS_OP_C);
}

template <class C>
cublasStatus_t geam(const char* function, cublasHandle_t handle, int operation_a, int operation_b, int m, int n,
                    const C* alpha, const C* a, int lda, const C* beta, const C* b, int ldb, C* c, int ldc) {
    using T = Number<C>;
    Call call(handle, function);
    call.needs(ldc >= std::max(1, m), "ldc is at least m");
    call.needs(lda >= std::max(1, operation_a ? n : m), "lda is at least the rows of A");
    call.needs(ldb >= std::max(1, operation_b ? n : m), "ldb is at least the rows of B");
    // documentation of cublas<t>geam(), "in-place mode"
    call.needs(c != a || (!operation_a && lda == ldc), "where C is A, op(A) is A and ldc is lda");
    call.needs(c != b || (!operation_b && ldb == ldc), "where C is B, op(B) is B and ldc is ldb");
    if (!call.ok()) return call.status();
    auto alpha_of = scalar(handle, alpha);
    auto beta_of = scalar(handle, beta);
    return queue(handle, [=] {
        T scale_a = alpha_of.get();
        T scale_b = beta_of.get();
        for (int64_t j = 0; j < n; j++) {
            for (int64_t i = 0; i < m; i++) {
                T sum(0);
                if (scale_a != T(0)) sum = scale_a * element_of(numbers(a), lda, operation_a, i, j);
                if (scale_b != T(0)) sum += scale_b * element_of(numbers(b), ldb, operation_b, i, j);
                numbers(c)[j * ldc + i] = sum;
            }
        }
    });
}

// A product with a diagonal matrix, given as a vector
template <class C>
cublasStatus_t dgmm(const char* function, cublasHandle_t handle, int side, int m, int n, const C* a, int lda,
                    const C* x, int step, C* c, int ldc) {
    Call call(handle, function);
    call.needs(lda >= std::max(1, m) && ldc >= std::max(1, m), "lda and ldc are at least m");
    if (!call.ok()) return call.status();
    return queue(handle, [=] {
        bool left = side == CUBLAS_SIDE_LEFT;
        for (int j = 0; j < n; j++) {
            const auto* from = numbers(a) + static_cast<int64_t>(j) * lda;
            auto* to = numbers(c) + static_cast<int64_t>(j) * ldc;
            for (int i = 0; i < m; i++)
                to[i] = from[i] * element(numbers(x), left ? i : j, left ? m : n, step);
        }
    });
}

// A product with its own transpose, of which one triangle is written
template <class C>
cublasStatus_t syrk(const char* function, cublasHandle_t handle, int fill, int operation, int n, int k, const C* alpha,
                    const C* a, int lda, const C* beta, C* c, int ldc) {
    using T = Number<C>;
    Call call(handle, function);
    call.needs(lda >= std::max(1, operation ? k : n), "lda is at least the rows of A");
    call.needs(ldc >= std::max(1, n), "ldc is at least n");
    if (!call.ok()) return call.status();
    auto alpha_of = scalar(handle, alpha);
    auto beta_of = scalar(handle, beta);
    return queue(handle, [=] {
        T scale = alpha_of.get();
        T kept = beta_of.get();
        auto sums = room<T>(static_cast<int64_t>(n) * n);
        int transposed = operation ? CUBLAS_OP_T : CUBLAS_OP_N;
        Operand left = Operand::of_columns(a, type_of<T>, lda, transposed);
        Operand right = Operand::of_columns(a, type_of<T>, lda, CUBLAS_OP_T - transposed);
        multiply<T>(n, n, k, left, right, Rounding::NONE, sums.get());
        for (int64_t j = 0; j < n; j++) {
            bool lower = fill == CUBLAS_FILL_MODE_LOWER;
            int64_t first = lower ? j : 0;
            int64_t stop = lower ? n : j + 1;
            T* column = numbers(c) + j * ldc;
            accumulate(sums.get() + j * n + first, scale, kept, column + first, static_cast<int>(stop - first), 1);
        }
    });
}

// Calls f with the number in the columns of a matrix, and the number among the packed ones, of each in a triangle.
template <class F>
void each_of_triangle(int fill, int64_t n, int64_t ld, F f) {
    int64_t packed = 0;
    for (int64_t j = 0; j < n; j++) {
        bool lower = fill == CUBLAS_FILL_MODE_LOWER;
        for (int64_t i = lower ? j : 0; i < (lower ? n : j + 1); i++)
            f(j * ld + i, packed++);
    }
}

template <class T>
cublasStatus_t tpttr(const char* function, cublasHandle_t handle, int fill, int n, const T* packed, T* a, int lda) {
    Call call(handle, function);
    if (!call.ok()) return call.status();
    return queue(handle, [=] { each_of_triangle(fill, n, lda, [=](int64_t i, int64_t at) { a[i] = packed[at]; }); });
}

template <class T>
cublasStatus_t trttp(const char* function, cublasHandle_t handle, int fill, int n, const T* a, int lda, T* packed) {
    Call call(handle, function);
    if (!call.ok()) return call.status();
    return queue(handle, [=] { each_of_triangle(fill, n, lda, [=](int64_t i, int64_t at) { packed[at] = a[i]; }); });
}

}  // namespace

#define DEFINE_GEMV(name, C)                                                                                     \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasOperation_t operation, int m, int n, const C* alpha, \
                               const C* a, int lda, const C* x, int step_x, const C* beta, C* y, int step_y) {   \
        return gemv(__func__, handle, operation, m, n, alpha, a, lda, x, step_x, beta, y, step_y);               \
    }
DEFINE_GEMV(cublasSgemv_v2, float)
DEFINE_GEMV(cublasDgemv_v2, double)
DEFINE_GEMV(cublasCgemv_v2, cuComplex)
DEFINE_GEMV(cublasZgemv_v2, cuDoubleComplex)

#define DEFINE_GER(name, C, conjugated)                                                                     \
    EXPORT cublasStatus_t name(cublasHandle_t handle, int m, int n, const C* alpha, const C* x, int step_x, \
                               const C* y, int step_y, C* a, int lda) {                                     \
        return ger(__func__, handle, m, n, alpha, x, step_x, y, step_y, a, lda, conjugated);                \
    }
DEFINE_GER(cublasSger_v2, float, false)
DEFINE_GER(cublasDger_v2, double, false)
DEFINE_GER(cublasCgeru_v2, cuComplex, false)
DEFINE_GER(cublasCgerc_v2, cuComplex, true)
DEFINE_GER(cublasZgeru_v2, cuDoubleComplex, false)
DEFINE_GER(cublasZgerc_v2, cuDoubleComplex, true)

#define DEFINE_SBMV(name, T)                                                                                           \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasFillMode_t fill, int n, int k, const T* alpha, const T* a, \
                               int lda, const T* x, int step_x, const T* beta, T* y, int step_y) {                     \
        return sbmv(__func__, handle, fill, n, k, alpha, a, lda, x, step_x, beta, y, step_y);                          \
    }
DEFINE_SBMV(cublasSsbmv_v2, float)
DEFINE_SBMV(cublasDsbmv_v2, double)

#define DEFINE_GEAM(name, C)                                                                                          \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasOperation_t operation_a, cublasOperation_t operation_b,   \
                               int m, int n, const C* alpha, const C* a, int lda, const C* beta, const C* b, int ldb, \
                               C* c, int ldc) {                                                                       \
        return geam(__func__, handle, operation_a, operation_b, m, n, alpha, a, lda, beta, b, ldb, c, ldc);           \
    }
DEFINE_GEAM(cublasSgeam, float)
DEFINE_GEAM(cublasDgeam, double)
DEFINE_GEAM(cublasCgeam, cuComplex)
DEFINE_GEAM(cublasZgeam, cuDoubleComplex)

#define DEFINE_DGMM(name, C)                                                                                    \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasSideMode_t side, int m, int n, const C* a, int lda, \
                               const C* x, int step, C* c, int ldc) {                                           \
        return dgmm(__func__, handle, side, m, n, a, lda, x, step, c, ldc);                                     \
    }
DEFINE_DGMM(cublasSdgmm, float)
DEFINE_DGMM(cublasDdgmm, double)
DEFINE_DGMM(cublasCdgmm, cuComplex)
DEFINE_DGMM(cublasZdgmm, cuDoubleComplex)

#define DEFINE_SYRK(name, C)                                                                                     \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasFillMode_t fill, cublasOperation_t operation, int n, \
                               int k, const C* alpha, const C* a, int lda, const C* beta, C* c, int ldc) {       \
        return syrk(__func__, handle, fill, operation, n, k, alpha, a, lda, beta, c, ldc);                       \
    }
DEFINE_SYRK(cublasSsyrk_v2, float)
DEFINE_SYRK(cublasDsyrk_v2, double)
DEFINE_SYRK(cublasCsyrk_v2, cuComplex)
DEFINE_SYRK(cublasZsyrk_v2, cuDoubleComplex)

#define DEFINE_TPTTR(name, T)                                                                                         \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasFillMode_t fill, int n, const T* packed, T* a, int lda) { \
        return tpttr(__func__, handle, fill, n, packed, a, lda);                                                      \
    }
DEFINE_TPTTR(cublasStpttr, float)
DEFINE_TPTTR(cublasDtpttr, double)

#define DEFINE_TRTTP(name, T)                                                                                         \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasFillMode_t fill, int n, const T* a, int lda, T* packed) { \
        return trttp(__func__, handle, fill, n, a, lda, packed);                                                      \
    }
DEFINE_TRTTP(cublasStrttp, float)
DEFINE_TRTTP(cublasDtrttp, double)
