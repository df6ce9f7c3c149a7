// cuBLAS: products of matrices, one or many, of one type or of the mixtures of cublasGemmEx().
#include "cublas_handle.h"
#include "product.h"

using namespace cuda_on_cpu;

namespace {

// Columns are `ld` apart. Of a batch, `data` is the first of matrices `stride` apart, or an array of their addresses.
struct Matrix {
    const void* data;
    int type;
    int64_t ld;
    int64_t stride = 0;

    int64_t nbytes_to(int64_t number) const { return number * stride * item_nbytes(type); }
    bool is_aligned_to(int nbytes) const { return reinterpret_cast<uintptr_t>(data) % nbytes == 0; }
};

struct Shape {
    int operation_a;
    int operation_b;
    int64_t m;
    int64_t n;
    int64_t k;
};

struct Gemm : Shape {
    Matrix a;
    Matrix b;
    Matrix c;
    int64_t batch = 1;
    bool by_addresses = false;
    Rounding rounding = Rounding::NONE;
};

struct Operands {
    const char* a;
    const char* b;
    char* c;
};

Operands operands(const Gemm& g, int64_t number) {
    if (g.by_addresses) {
        return Operands{static_cast<const char* const*>(g.a.data)[number],
                        static_cast<const char* const*>(g.b.data)[number], static_cast<char* const*>(g.c.data)[number]};
    }
    return Operands{static_cast<const char*>(g.a.data) + g.a.nbytes_to(number),
                    static_cast<const char*>(g.b.data) + g.b.nbytes_to(number),
                    static_cast<char*>(const_cast<void*>(g.c.data)) + g.c.nbytes_to(number)};
}

// Neither A and B are read where alpha is 0, nor C where beta is 0.
template <class T>
void run(const Gemm& g, T alpha, T beta) {
    auto sums = room<T>(g.m * g.n);
    auto line = room<T>(g.m);
    for (int64_t number = 0; number < g.batch; number++) {
        Operands of = operands(g, number);
        if (alpha != T(0)) {
            Operand a = Operand::of_columns(of.a, g.a.type, g.a.ld, g.operation_a);
            Operand b = Operand::of_columns(of.b, g.b.type, g.b.ld, g.operation_b);
            multiply<T>(g.m, g.n, g.k, a, b, g.rounding, sums.get());
        } else {
            std::fill(sums.get(), sums.get() + g.m * g.n, T(0));
        }
        for (int64_t j = 0; j < g.n; j++) {
            T* x = sums.get() + j * g.m;
            if (alpha != T(1)) {
                for (int64_t i = 0; i < g.m; i++)
                    x[i] *= alpha;
            }
            if (beta != T(0)) {
                load_line<T>(g.c.type, of.c, j * g.c.ld, 1, g.m, line.get());
                for (int64_t i = 0; i < g.m; i++)
                    x[i] += beta * line[i];
            }
            store_line<T>(g.c.type, of.c, j * g.c.ld, 1, g.m, x);
        }
    }
}

// What is wrong with it, or null
const char* fault(const Gemm& g, const void* alpha, const void* beta) {
    if (g.operation_a < 0 || g.operation_a > 2 || g.operation_b < 0 || g.operation_b > 2) return "no such operation";
    if (g.m < 0 || g.n < 0 || g.k < 0 || g.batch < 0) return "a negative size";
    if (g.a.ld < std::max<int64_t>(1, g.operation_a ? g.k : g.m)) return "lda is too small";
    if (g.b.ld < std::max<int64_t>(1, g.operation_b ? g.n : g.k)) return "ldb is too small";
    if (g.c.ld < std::max<int64_t>(1, g.m)) return "ldc is too small";
    if (!alpha || !beta) return "alpha or beta is null";
    if (!g.m || !g.n || !g.batch) return nullptr;
    if (!g.c.data || (g.k && (!g.a.data || !g.b.data))) return "a matrix is null";
    if (!g.by_addresses) {
        for (const Matrix* matrix : {&g.a, &g.b, &g.c}) {
            if (!matrix->is_aligned_to(item_nbytes(matrix->type))) return "a matrix is not aligned to its type";
        }
        if (g.batch > 1 && g.c.stride == 0) return "results of the batch overlap";
    }
    // documentation of cublasGemmEx()
    bool aligned = g.a.ld % 4 == 0 && g.b.ld % 4 == 0 && g.a.is_aligned_to(4) && g.b.is_aligned_to(4);
    if (g.a.type == CUDA_R_8I && !aligned) return "int8: lda, ldb and addresses are to be multiples of 4";
    return nullptr;
}

template <class T>
cublasStatus_t gemm(const char* function, cublasHandle_t handle, const Gemm& g, const void* alpha, const void* beta,
                    int scale_type) {
    Call call(handle, function);
    if (!call.ok()) return call.status();
    if (const char* what = fault(g, alpha, beta)) {
        report("cublas", function, "%s (m %ld n %ld k %ld lda %ld ldb %ld ldc %ld batch %ld)", what, g.m, g.n, g.k,
               g.a.ld, g.b.ld, g.c.ld, g.batch);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (!g.m || !g.n || !g.batch) return CUBLAS_STATUS_SUCCESS;
    Scalar<T> alpha_of(handle, alpha, scale_type);
    Scalar<T> beta_of(handle, beta, scale_type);
    return queue(handle, [=] { run<T>(g, alpha_of.get(), beta_of.get()); });
}

Rounding default_rounding(cublasHandle_t handle) {
    bool tf32 = handle && (handle->math_mode & 15) == CUBLAS_TF32_TENSOR_OP_MATH;
    return tf32 ? Rounding::TF32 : Rounding::NONE;
}

// All operands and the scalars are of one type.
template <class C>
cublasStatus_t gemm_of_one_type(const char* function, cublasHandle_t handle, Gemm g, const C* alpha, const C* beta) {
    constexpr int type = type_of<Number<C>>;
    if (type == CUDA_R_32F || type == CUDA_C_32F) g.rounding = default_rounding(handle);
    return gemm<Number<C>>(function, handle, g, alpha, beta, type);
}

bool has(const Gemm& g, int operands_type, int result_type) {
    return g.a.type == operands_type && g.b.type == operands_type && g.c.type == result_type;
}

// sums of floats whose operands are as narrow or narrower
bool is_single(const Gemm& g) {
    return has(g, CUDA_R_32F, CUDA_R_32F) || has(g, CUDA_R_16F, CUDA_R_16F) || has(g, CUDA_R_16F, CUDA_R_32F) ||
           has(g, CUDA_R_16BF, CUDA_R_16BF) || has(g, CUDA_R_16BF, CUDA_R_32F) || has(g, CUDA_R_8I, CUDA_R_32F);
}

// The table of the documentation of cublasGemmEx()
cublasStatus_t gemm_ex(const char* function, cublasHandle_t handle, Gemm g, const void* alpha, const void* beta,
                       int compute) {
    switch (compute) {
        case CUBLAS_COMPUTE_16F:
        case CUBLAS_COMPUTE_16F_PEDANTIC:
            if (has(g, CUDA_R_16F, CUDA_R_16F)) return gemm<float>(function, handle, g, alpha, beta, CUDA_R_16F);
            break;
        case CUBLAS_COMPUTE_32I:
        case CUBLAS_COMPUTE_32I_PEDANTIC:
            if (has(g, CUDA_R_8I, CUDA_R_32I)) return gemm<int32_t>(function, handle, g, alpha, beta, CUDA_R_32I);
            break;
        case CUBLAS_COMPUTE_32F:
            if (g.a.type == CUDA_R_32F) g.rounding = default_rounding(handle);
            [[fallthrough]];
        case CUBLAS_COMPUTE_32F_PEDANTIC:
            if (is_single(g)) return gemm<float>(function, handle, g, alpha, beta, CUDA_R_32F);
            if (has(g, CUDA_C_32F, CUDA_C_32F)) return gemm<complex64>(function, handle, g, alpha, beta, CUDA_C_32F);
            break;
        case CUBLAS_COMPUTE_32F_FAST_16F:
        case CUBLAS_COMPUTE_32F_FAST_16BF:
        case CUBLAS_COMPUTE_32F_FAST_TF32:
            g.rounding = compute == CUBLAS_COMPUTE_32F_FAST_16F    ? Rounding::HALF
                         : compute == CUBLAS_COMPUTE_32F_FAST_16BF ? Rounding::BFLOAT16
                                                                   : Rounding::TF32;
            if (has(g, CUDA_R_32F, CUDA_R_32F)) return gemm<float>(function, handle, g, alpha, beta, CUDA_R_32F);
            if (has(g, CUDA_C_32F, CUDA_C_32F)) return gemm<complex64>(function, handle, g, alpha, beta, CUDA_C_32F);
            break;
        case CUBLAS_COMPUTE_64F:
        case CUBLAS_COMPUTE_64F_PEDANTIC:
            if (has(g, CUDA_R_64F, CUDA_R_64F)) return gemm<double>(function, handle, g, alpha, beta, CUDA_R_64F);
            if (has(g, CUDA_C_64F, CUDA_C_64F)) return gemm<complex128>(function, handle, g, alpha, beta, CUDA_C_64F);
            break;
    }
    report("cublas", function, "no product of %s and %s is stored as %s with compute type %d", type_name(g.a.type),
           type_name(g.b.type), type_name(g.c.type), compute);
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

}  // namespace

#define DEFINE_GEMM(name, C)                                                                                        \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasOperation_t operation_a, cublasOperation_t operation_b, \
                               int m, int n, int k, const C* alpha, const C* a, int lda, const C* b, int ldb,       \
                               const C* beta, C* c, int ldc) {                                                      \
        constexpr int type = type_of<Number<C>>;                                                                    \
        Gemm g{{operation_a, operation_b, m, n, k}, {a, type, lda}, {b, type, ldb}, {c, type, ldc}};                \
        return gemm_of_one_type(__func__, handle, g, alpha, beta);                                                  \
    }
DEFINE_GEMM(cublasSgemm_v2, float)
DEFINE_GEMM(cublasDgemm_v2, double)
DEFINE_GEMM(cublasCgemm_v2, cuComplex)
DEFINE_GEMM(cublasZgemm_v2, cuDoubleComplex)

#define DEFINE_GEMM_STRIDED(name, C)                                                                                \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasOperation_t operation_a, cublasOperation_t operation_b, \
                               int m, int n, int k, const C* alpha, const C* a, int lda, long long stride_a,        \
                               const C* b, int ldb, long long stride_b, const C* beta, C* c, int ldc,               \
                               long long stride_c, int batch) {                                                     \
        constexpr int type = type_of<Number<C>>;                                                                    \
        Gemm g{{operation_a, operation_b, m, n, k},                                                                 \
               {a, type, lda, stride_a},                                                                            \
               {b, type, ldb, stride_b},                                                                            \
               {c, type, ldc, stride_c}};                                                                           \
        g.batch = batch;                                                                                            \
        return gemm_of_one_type(__func__, handle, g, alpha, beta);                                                  \
    }
DEFINE_GEMM_STRIDED(cublasSgemmStridedBatched, float)
DEFINE_GEMM_STRIDED(cublasDgemmStridedBatched, double)
DEFINE_GEMM_STRIDED(cublasCgemmStridedBatched, cuComplex)
DEFINE_GEMM_STRIDED(cublasZgemmStridedBatched, cuDoubleComplex)

#define DEFINE_GEMM_BATCHED(name, C)                                                                                 \
    EXPORT cublasStatus_t name(cublasHandle_t handle, cublasOperation_t operation_a, cublasOperation_t operation_b,  \
                               int m, int n, int k, const C* alpha, const C* const a[], int lda, const C* const b[], \
                               int ldb, const C* beta, C* const c[], int ldc, int batch) {                           \
        constexpr int type = type_of<Number<C>>;                                                                     \
        Gemm g{{operation_a, operation_b, m, n, k}, {a, type, lda}, {b, type, ldb}, {c, type, ldc}};                 \
        g.batch = batch;                                                                                             \
        g.by_addresses = true;                                                                                       \
        return gemm_of_one_type(__func__, handle, g, alpha, beta);                                                   \
    }
DEFINE_GEMM_BATCHED(cublasSgemmBatched, float)
DEFINE_GEMM_BATCHED(cublasDgemmBatched, double)
DEFINE_GEMM_BATCHED(cublasCgemmBatched, cuComplex)
DEFINE_GEMM_BATCHED(cublasZgemmBatched, cuDoubleComplex)

EXPORT cublasStatus_t cublasSgemmEx(cublasHandle_t handle, cublasOperation_t operation_a, cublasOperation_t operation_b,
                                    int m, int n, int k, const float* alpha, const void* a, cudaDataType type_a,
                                    int lda, const void* b, cudaDataType type_b, int ldb, const float* beta, void* c,
                                    cudaDataType type_c, int ldc) {
    Gemm g{{operation_a, operation_b, m, n, k}, {a, type_a, lda}, {b, type_b, ldb}, {c, type_c, ldc}};
    g.rounding = default_rounding(handle);
    if (!is_single(g)) {
        report("cublas", __func__, "no product of %s and %s is stored as %s", type_name(type_a), type_name(type_b),
               type_name(type_c));
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    return gemm<float>(__func__, handle, g, alpha, beta, CUDA_R_32F);
}

EXPORT cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t operation_a, cublasOperation_t operation_b,
                                   int m, int n, int k, const void* alpha, const void* a, cudaDataType type_a, int lda,
                                   const void* b, cudaDataType type_b, int ldb, const void* beta, void* c,
                                   cudaDataType type_c, int ldc, cublasComputeType_t compute, cublasGemmAlgo_t) {
    Gemm g{{operation_a, operation_b, m, n, k}, {a, type_a, lda}, {b, type_b, ldb}, {c, type_c, ldc}};
    return gemm_ex(__func__, handle, g, alpha, beta, compute);
}

EXPORT cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t operation_a,
                                                 cublasOperation_t operation_b, int m, int n, int k, const void* alpha,
                                                 const void* a, cudaDataType type_a, int lda, long long stride_a,
                                                 const void* b, cudaDataType type_b, int ldb, long long stride_b,
                                                 const void* beta, void* c, cudaDataType type_c, int ldc,
                                                 long long stride_c, int batch, cublasComputeType_t compute,
                                                 cublasGemmAlgo_t) {
    Gemm g{{operation_a, operation_b, m, n, k},
           {a, type_a, lda, stride_a},
           {b, type_b, ldb, stride_b},
           {c, type_c, ldc, stride_c}};
    g.batch = batch;
    return gemm_ex(__func__, handle, g, alpha, beta, compute);
}
