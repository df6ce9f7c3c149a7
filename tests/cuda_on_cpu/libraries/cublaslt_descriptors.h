// The descriptors of cuBLASLt. They lie inside of the header's opaque structs, and are recognized by a tag.
#pragma once

#include <cublasLt.h>

#include <cstdint>

#include "driver.h"

struct cublasLtContext {
    static constexpr uint64_t ALIVE = 0xab1a51;

    uint64_t state = ALIVE;  // 0 when destroyed
    int device = cuda_on_cpu::current_device();
};

namespace cuda_on_cpu {

// Members have the types, and the sizes, of the attributes in cublasLt.h.
struct MatmulDescriptor {
    static constexpr uint64_t TAG = 0xde5c0001;
    static constexpr const char* NAME = "matmul descriptor";
    using Opaque = cublasLtMatmulDescOpaque_t;

    uint64_t tag = TAG;
    int32_t compute;
    int32_t scale;
    int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
    int32_t operation_a = CUBLAS_OP_N;
    int32_t operation_b = CUBLAS_OP_N;
    int32_t operation_c = CUBLAS_OP_N;
    int32_t fill = CUBLAS_FILL_MODE_FULL;
    uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void* bias = nullptr;
    int64_t bias_stride = 0;
    void* aux = nullptr;
    int64_t aux_ld = 0;
    int64_t aux_stride = 0;
    int64_t alpha_stride = 0;
    int32_t sm_count = 0;
    int32_t bias_type = -1;
    int32_t aux_type = -1;
    const void* a_scale = nullptr;
    const void* b_scale = nullptr;
    const void* c_scale = nullptr;
    const void* d_scale = nullptr;
    void* amax_d = nullptr;
    const void* aux_scale = nullptr;
    void* aux_amax = nullptr;
    int8_t fast_accumulation = 0;
    int32_t chunks_rows = 0;
    int32_t chunks_columns = 0;
    void* in_counters = nullptr;
    void* out_counters = nullptr;
    int32_t scale_modes[6] = {};  // of A, B, C, D, the auxiliary output, and the output scale of D
    void* d_out_scale = nullptr;

    MatmulDescriptor() = default;
    MatmulDescriptor(int compute_type, int scale_type) : compute(compute_type), scale(scale_type) {}

    bool has_bias() const { return epilogue & CUBLASLT_EPILOGUE_BIAS; }
    bool has_relu() const { return epilogue & CUBLASLT_EPILOGUE_RELU; }
    bool has_gelu() const { return epilogue & CUBLASLT_EPILOGUE_GELU; }
    bool has_aux() const { return epilogue & 128; }  // the bit of the header's …_AUX
};

struct Layout {
    static constexpr uint64_t TAG = 0x1a500001;
    static constexpr const char* NAME = "layout";
    using Opaque = cublasLtMatrixLayoutOpaque_t;

    uint64_t tag = TAG;
    uint64_t rows = 0;
    uint64_t columns = 0;
    int64_t ld = 0;
    int64_t stride = 0;
    int64_t plane = 0;
    int32_t type = 0;
    int32_t order = CUBLASLT_ORDER_COL;
    int32_t batch = 1;
    uint32_t batch_mode = CUBLASLT_BATCH_MODE_STRIDED;

    Layout() = default;
    Layout(int number_type, uint64_t n_rows, uint64_t n_columns, int64_t leading_dimension)
        : rows(n_rows), columns(n_columns), ld(leading_dimension), type(number_type) {}

    bool by_rows() const { return order != CUBLASLT_ORDER_COL; }
    int64_t n_lines() const { return static_cast<int64_t>(by_rows() ? rows : columns); }
    int64_t line_length() const { return static_cast<int64_t>(by_rows() ? columns : rows); }
    // from the first to one past the last
    int64_t n_elements() const { return (n_lines() - 1) * ld + line_length(); }
    int64_t row_stride() const { return by_rows() ? ld : 1; }
    int64_t column_stride() const { return by_rows() ? 1 : ld; }
};

struct Preference {
    static constexpr uint64_t TAG = 0x93ef0001;
    static constexpr const char* NAME = "preference";
    using Opaque = cublasLtMatmulPreferenceOpaque_t;

    uint64_t tag = TAG;
    uint64_t workspace_nbytes = 0;
    uint64_t implementations = ~uint64_t{0};
    uint32_t search_mode = CUBLASLT_SEARCH_BEST_FIT;
    uint32_t reduction_schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
    uint32_t alignments[4] = {256, 256, 256, 256};  // of A, B, C and D
    float waves = 0;
};

// What lies in the opaque cublasLtMatmulAlgo_t: for which problem and alignments it was found.
struct Algorithm {
    static constexpr uint64_t TAG = 0xa1900001;

    uint64_t tag = TAG;
    uint64_t problem = 0;
    uint64_t workspace_nbytes = 0;
    uint32_t number = 0;
    uint32_t bias_alignment = 1;
    uint32_t alignments[4] = {1, 1, 1, 1};
};

static_assert(sizeof(MatmulDescriptor) <= sizeof(MatmulDescriptor::Opaque), "");
static_assert(sizeof(Layout) <= sizeof(Layout::Opaque), "");
static_assert(sizeof(Preference) <= sizeof(Preference::Opaque), "");
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t), "");

// Null where it is none, or was destroyed
template <class T>
T* recognized(void* opaque) {
    T* it = static_cast<T*>(opaque);
    bool aligned = reinterpret_cast<uintptr_t>(opaque) % alignof(T) == 0;
    return it && aligned && it->tag == T::TAG ? it : nullptr;
}

inline const Algorithm* recognized(const cublasLtMatmulAlgo_t* opaque) {
    const Algorithm* it = reinterpret_cast<const Algorithm*>(opaque);
    return it && it->tag == Algorithm::TAG ? it : nullptr;
}

bool usable(cublasLtHandle_t handle, const char* function);

}  // namespace cuda_on_cpu
