// cuBLASLt: handles, versions, and descriptors with their attributes, whose sizes are to be right to the byte.
#include "cublaslt_descriptors.h"

#include <cstring>

using namespace cuda_on_cpu;

bool cuda_on_cpu::usable(cublasLtHandle_t handle, const char* function) {
    if (!handle || handle->state != cublasLtContext::ALIVE) {
        report("cublasLt", function, "no such handle %p", static_cast<void*>(handle));
        return false;
    }
    return is_of_current_device("cublasLt", function, handle->device);
}

namespace {

template <class T, class... Values>
cublasStatus_t create(const char* function, typename T::Opaque** opaque, Values... values) {
    if (!opaque) {
        report("cublasLt", function, "where to put it is null");
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    *opaque = static_cast<typename T::Opaque*>(calloc(1, sizeof(typename T::Opaque)));
    new (*opaque) T(values...);
    return CUBLAS_STATUS_SUCCESS;
}

// The memory is kept, so that a use after this is noticed.
template <class T>
cublasStatus_t destroy(const char* function, void* opaque) {
    T* it = recognized<T>(opaque);
    if (!it) {
        report("cublasLt", function, "no such %s %p (destroyed twice?)", T::NAME, opaque);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    it->tag = 0;
    return CUBLAS_STATUS_SUCCESS;
}

struct Attribute {
    void* data = nullptr;
    size_t nbytes = 0;
};

template <class T>
Attribute member(T& value) {
    return Attribute{const_cast<std::remove_const_t<T>*>(&value), sizeof value};
}

Attribute attribute(MatmulDescriptor& it, int number) {
    switch (number) {
        case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE: return member(it.compute);
        case CUBLASLT_MATMUL_DESC_SCALE_TYPE: return member(it.scale);
        case CUBLASLT_MATMUL_DESC_POINTER_MODE: return member(it.pointer_mode);
        case CUBLASLT_MATMUL_DESC_TRANSA: return member(it.operation_a);
        case CUBLASLT_MATMUL_DESC_TRANSB: return member(it.operation_b);
        case CUBLASLT_MATMUL_DESC_TRANSC: return member(it.operation_c);
        case CUBLASLT_MATMUL_DESC_FILL_MODE: return member(it.fill);
        case CUBLASLT_MATMUL_DESC_EPILOGUE: return member(it.epilogue);
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return member(it.bias);
        case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE: return member(it.bias_stride);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return member(it.aux);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return member(it.aux_ld);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE: return member(it.aux_stride);
        case CUBLASLT_MATMUL_DESC_ALPHA_VECTOR_BATCH_STRIDE: return member(it.alpha_stride);
        case CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET: return member(it.sm_count);
        case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER: return member(it.a_scale);
        case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER: return member(it.b_scale);
        case CUBLASLT_MATMUL_DESC_C_SCALE_POINTER: return member(it.c_scale);
        case CUBLASLT_MATMUL_DESC_D_SCALE_POINTER: return member(it.d_scale);
        case CUBLASLT_MATMUL_DESC_AMAX_D_POINTER: return member(it.amax_d);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE: return member(it.aux_type);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_SCALE_POINTER: return member(it.aux_scale);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_AMAX_POINTER: return member(it.aux_amax);
        case CUBLASLT_MATMUL_DESC_FAST_ACCUM: return member(it.fast_accumulation);
        case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return member(it.bias_type);
        case CUBLASLT_MATMUL_DESC_ATOMIC_SYNC_NUM_CHUNKS_D_ROWS: return member(it.chunks_rows);
        case CUBLASLT_MATMUL_DESC_ATOMIC_SYNC_NUM_CHUNKS_D_COLS: return member(it.chunks_columns);
        case CUBLASLT_MATMUL_DESC_ATOMIC_SYNC_IN_COUNTERS_POINTER: return member(it.in_counters);
        case CUBLASLT_MATMUL_DESC_ATOMIC_SYNC_OUT_COUNTERS_POINTER: return member(it.out_counters);
        case CUBLASLT_MATMUL_DESC_A_SCALE_MODE: return member(it.scale_modes[0]);
        case CUBLASLT_MATMUL_DESC_B_SCALE_MODE: return member(it.scale_modes[1]);
        case CUBLASLT_MATMUL_DESC_C_SCALE_MODE: return member(it.scale_modes[2]);
        case CUBLASLT_MATMUL_DESC_D_SCALE_MODE: return member(it.scale_modes[3]);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_SCALE_MODE: return member(it.scale_modes[4]);
        case CUBLASLT_MATMUL_DESC_D_OUT_SCALE_POINTER: return member(it.d_out_scale);
        case CUBLASLT_MATMUL_DESC_D_OUT_SCALE_MODE: return member(it.scale_modes[5]);
    }
    return Attribute{};
}

Attribute attribute(Layout& it, int number) {
    switch (number) {
        case CUBLASLT_MATRIX_LAYOUT_TYPE: return member(it.type);
        case CUBLASLT_MATRIX_LAYOUT_ORDER: return member(it.order);
        case CUBLASLT_MATRIX_LAYOUT_ROWS: return member(it.rows);
        case CUBLASLT_MATRIX_LAYOUT_COLS: return member(it.columns);
        case CUBLASLT_MATRIX_LAYOUT_LD: return member(it.ld);
        case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return member(it.batch);
        case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return member(it.stride);
        case CUBLASLT_MATRIX_LAYOUT_PLANE_OFFSET: return member(it.plane);
        case CUBLASLT_MATRIX_LAYOUT_BATCH_MODE: return member(it.batch_mode);
    }
    return Attribute{};
}

Attribute attribute(Preference& it, int number) {
    switch (number) {
        case CUBLASLT_MATMUL_PREF_SEARCH_MODE: return member(it.search_mode);
        case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return member(it.workspace_nbytes);
        case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return member(it.reduction_schemes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return member(it.alignments[0]);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return member(it.alignments[1]);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return member(it.alignments[2]);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return member(it.alignments[3]);
        case CUBLASLT_MATMUL_PREF_MAX_WAVES_COUNT: return member(it.waves);
        case CUBLASLT_MATMUL_PREF_IMPL_MASK: return member(it.implementations);
    }
    return Attribute{};
}

// Without data where there is none, which is reported
template <class T>
Attribute find_attribute(const char* function, void* opaque, int number) {
    T* it = recognized<T>(opaque);
    if (!it) {
        report("cublasLt", function, "no such %s %p", T::NAME, opaque);
        return Attribute{};
    }
    Attribute found = attribute(*it, number);
    if (!found.data) report("cublasLt", function, "no such attribute %d", number);
    return found;
}

template <class T>
cublasStatus_t set_attribute(const char* function, void* opaque, int number, const void* from, size_t nbytes) {
    Attribute into = find_attribute<T>(function, opaque, number);
    if (!into.data) return CUBLAS_STATUS_INVALID_VALUE;
    if (!from || nbytes != into.nbytes) {
        report("cublasLt", function, "attribute %d has %zu bytes, %zu were given%s", number, into.nbytes, nbytes,
               from ? "" : ", by a null pointer");
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    memcpy(into.data, from, nbytes);
    return CUBLAS_STATUS_SUCCESS;
}

// Without a size it only tells the size (cublasLt.h, of sizeWritten).
template <class T>
cublasStatus_t get_attribute(const char* function, void* opaque, int number, void* into, size_t nbytes,
                             size_t* nbytes_written) {
    Attribute from = find_attribute<T>(function, opaque, number);
    if (!from.data) return CUBLAS_STATUS_INVALID_VALUE;
    if (!nbytes) {
        if (!nbytes_written) return CUBLAS_STATUS_INVALID_VALUE;
        *nbytes_written = from.nbytes;
        return CUBLAS_STATUS_SUCCESS;
    }
    if (!into || nbytes != from.nbytes) {
        report("cublasLt", function, "attribute %d has %zu bytes, %zu are wanted", number, from.nbytes, nbytes);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    memcpy(into, from.data, nbytes);
    if (nbytes_written) *nbytes_written = nbytes;
    return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

EXPORT cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    if (!handle) {
        report("cublasLt", __func__, "where to put it is null");
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    *handle = new cublasLtContext;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    if (!handle || handle->state != cublasLtContext::ALIVE) {
        report("cublasLt", __func__, "no such handle %p (destroyed twice?)", static_cast<void*>(handle));
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    handle->state = 0;  // and kept, so that a use after this is noticed
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT size_t cublasLtGetVersion() {
    return 120901;
}

EXPORT cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* descriptor, cublasComputeType_t compute,
                                               cudaDataType_t scale) {
    return create<MatmulDescriptor>(__func__, descriptor, compute, scale);
}

EXPORT cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t descriptor) {
    return destroy<MatmulDescriptor>(__func__, descriptor);
}

EXPORT cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t descriptor,
                                                     cublasLtMatmulDescAttributes_t number, const void* from,
                                                     size_t nbytes) {
    return set_attribute<MatmulDescriptor>(__func__, descriptor, number, from, nbytes);
}

EXPORT cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t descriptor,
                                                     cublasLtMatmulDescAttributes_t number, void* into, size_t nbytes,
                                                     size_t* nbytes_written) {
    return get_attribute<MatmulDescriptor>(__func__, descriptor, number, into, nbytes, nbytes_written);
}

EXPORT cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type, uint64_t rows,
                                                 uint64_t columns, int64_t ld) {
    return create<Layout>(__func__, layout, type, rows, columns, ld);
}

EXPORT cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    return destroy<Layout>(__func__, layout);
}

EXPORT cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                       cublasLtMatrixLayoutAttribute_t number, const void* from,
                                                       size_t nbytes) {
    return set_attribute<Layout>(__func__, layout, number, from, nbytes);
}

EXPORT cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t layout,
                                                       cublasLtMatrixLayoutAttribute_t number, void* into,
                                                       size_t nbytes, size_t* nbytes_written) {
    return get_attribute<Layout>(__func__, layout, number, into, nbytes, nbytes_written);
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
    return create<Preference>(__func__, preference);
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    return destroy<Preference>(__func__, preference);
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                           cublasLtMatmulPreferenceAttributes_t number,
                                                           const void* from, size_t nbytes) {
    return set_attribute<Preference>(__func__, preference, number, from, nbytes);
}

EXPORT cublasStatus_t cublasLtMatmulPreferenceGetAttribute(cublasLtMatmulPreference_t preference,
                                                           cublasLtMatmulPreferenceAttributes_t number, void* into,
                                                           size_t nbytes, size_t* nbytes_written) {
    return get_attribute<Preference>(__func__, preference, number, into, nbytes, nbytes_written);
}
