// cuBLASLt: the rules of cublasLtMatmul(), of its documentation and of cublasLt.h, for compute capability 9.0.
#include "cublaslt_problem.h"

#include <cstring>
#include <vector>

namespace cuda_on_cpu {

cublasStatus_t refuse(Refusal& refusal, cublasStatus_t status, const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(refusal.text, sizeof refusal.text, format, arguments);
    va_end(arguments);
    refusal.status = status;
    return status;
}

namespace {

constexpr cublasStatus_t OK = CUBLAS_STATUS_SUCCESS;
constexpr cublasStatus_t INVALID = CUBLAS_STATUS_INVALID_VALUE;
constexpr cublasStatus_t UNSUPPORTED = CUBLAS_STATUS_NOT_SUPPORTED;
constexpr const char* NAMES = "ABCD";

struct Matrices {
    const Layout* all[4];
    explicit Matrices(const Problem& p) : all{&p.a, &p.b, &p.c, &p.d} {}
};

// A row of the table of types in the documentation of cublasLtMatmul()
struct Types {
    enum { ABSENT, NO_EPILOGUE, WITH_EPILOGUE } kind = ABSENT;
    int bias = -1;
};
Types with_bias(int type) {
    return Types{Types::WITH_EPILOGUE, type};
}
Types without_epilogue(bool found) {
    return Types{found ? Types::NO_EPILOGUE : Types::ABSENT, -1};
}

Types float8_types(int compute, int scale, int a, int b, int c, int d) {
    if (!is_float8(a) || !is_float8(b) || (a == CUDA_R_8F_E5M2 && b == CUDA_R_8F_E5M2)) return Types{};
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return Types{};
    if (c == CUDA_R_32F && d == CUDA_R_32F) return with_bias(CUDA_R_16BF);
    if (c != CUDA_R_16BF && c != CUDA_R_16F) return Types{};
    if (d == c || d == CUDA_R_8F_E4M3 || (d == CUDA_R_8F_E5M2 && a != b)) return with_bias(c);
    return Types{};
}

Types find_types(int compute, int scale, int a, int b, int c, int d) {
    if (is_float8(a) || is_float8(b)) return float8_types(compute, scale, a, b, c, d);
    if (a != b || c != d) return Types{};
    auto all_are = [&](int type) { return scale == type && a == type && c == type; };
    switch (compute) {
        case CUBLAS_COMPUTE_16F:
        case CUBLAS_COMPUTE_16F_PEDANTIC: return all_are(CUDA_R_16F) ? with_bias(CUDA_R_16F) : Types{};
        case CUBLAS_COMPUTE_32I:
        case CUBLAS_COMPUTE_32I_PEDANTIC: {
            bool as_sums = scale == CUDA_R_32I && c == CUDA_R_32I;
            bool scaled = scale == CUDA_R_32F && c == CUDA_R_8I;
            return without_epilogue(a == CUDA_R_8I && (as_sums || scaled));
        }
        case CUBLAS_COMPUTE_32F:
        case CUBLAS_COMPUTE_32F_PEDANTIC:
            if (scale == CUDA_R_32F) {
                if ((a == CUDA_R_16BF || a == CUDA_R_16F) && c == a) return with_bias(c);
                if (a == CUDA_R_8I && c == CUDA_R_32F) return without_epilogue(true);
                bool narrow = a == CUDA_R_16BF || a == CUDA_R_16F || a == CUDA_R_32F;
                if (narrow && c == CUDA_R_32F) return with_bias(CUDA_R_32F);
            }
            return without_epilogue(all_are(CUDA_C_32F));
        case CUBLAS_COMPUTE_32F_FAST_16F:
        case CUBLAS_COMPUTE_32F_FAST_16BF:
        case CUBLAS_COMPUTE_32F_FAST_TF32:
            return all_are(CUDA_R_32F) ? with_bias(CUDA_R_32F) : without_epilogue(all_are(CUDA_C_32F));
        case CUBLAS_COMPUTE_64F:
        case CUBLAS_COMPUTE_64F_PEDANTIC:
            return all_are(CUDA_R_64F) ? with_bias(CUDA_R_64F) : without_epilogue(all_are(CUDA_C_64F));
    }
    return Types{};
}

// Whether matrices of the batch share elements: lines of one may lie between those of another.
bool overlaps_itself(const Layout& layout) {
    if (layout.batch < 2) return false;
    int64_t stride = std::llabs(layout.stride);
    if (stride >= layout.n_elements()) return false;
    if (!stride) return true;
    std::vector<int64_t> starts;
    for (int64_t number = 0; number < layout.batch; number++) {
        for (int64_t i = 0; i < layout.n_lines(); i++)
            starts.push_back(number * stride + i * layout.ld);
    }
    std::sort(starts.begin(), starts.end());
    for (size_t i = 1; i < starts.size(); i++) {
        if (starts[i] - starts[i - 1] < layout.line_length()) return true;
    }
    return false;
}

cublasStatus_t check_layout(Refusal& refusal, char name, const Layout& layout, int batch) {
    if (!item_nbytes(layout.type)) return refuse(refusal, UNSUPPORTED, "%c has the unknown type %d", name, layout.type);
    if (layout.order < CUBLASLT_ORDER_COL || layout.order > CUBLASLT_ORDER_COL32_2R_4R4) {
        return refuse(refusal, INVALID, "%c has the unknown order %d", name, layout.order);
    }
    if (layout.order > CUBLASLT_ORDER_ROW) {
        return refuse(refusal, UNSUPPORTED, "%c has order %d, which is for Turing and Ampere", name, layout.order);
    }
    if (!layout.rows || !layout.columns) {
        return refuse(refusal, INVALID, "%c is empty: [%lu, %lu]", name, layout.rows, layout.columns);
    }
    if (layout.rows > INT32_MAX || layout.columns > INT32_MAX) {
        return refuse(refusal, UNSUPPORTED, "%c [%lu, %lu] has more than 2^31 - 1 rows or columns", name, layout.rows,
                      layout.columns);
    }
    if (layout.ld < layout.line_length()) {
        return refuse(refusal, INVALID, "%c [%lu, %lu]: leading dimension %ld is too small", name, layout.rows,
                      layout.columns, layout.ld);
    }
    if (layout.batch < 1) return refuse(refusal, INVALID, "%c has a batch of %d", name, layout.batch);
    if (layout.batch != batch)
        return refuse(refusal, INVALID, "%c has a batch of %d, D of %d", name, layout.batch, batch);
    if (layout.batch_mode != CUBLASLT_BATCH_MODE_STRIDED) {
        return refuse(refusal, UNSUPPORTED, "%c has batch mode %u", name, layout.batch_mode);
    }
    if (layout.plane) return refuse(refusal, UNSUPPORTED, "%c is planar", name);
    return OK;
}

cublasStatus_t check_shapes(Refusal& refusal, Problem& p) {
    const MatmulDescriptor& it = p.descriptor;
    p.m = static_cast<int64_t>(it.operation_a ? p.a.columns : p.a.rows);
    p.k = static_cast<int64_t>(it.operation_a ? p.a.rows : p.a.columns);
    p.n = static_cast<int64_t>(it.operation_b ? p.b.rows : p.b.columns);
    p.batch = p.d.batch;
    int64_t k_of_b = static_cast<int64_t>(it.operation_b ? p.b.columns : p.b.rows);
    if (p.k != k_of_b) return refuse(refusal, INVALID, "depths differ: %ld of op(A), %ld of op(B)", p.k, k_of_b);
    for (int i : {3, 2}) {
        const Layout& layout = *Matrices(p).all[i];
        if (static_cast<int64_t>(layout.rows) != p.m || static_cast<int64_t>(layout.columns) != p.n) {
            return refuse(refusal, INVALID, "%c is [%lu, %lu], the product [%ld, %ld]", NAMES[i], layout.rows,
                          layout.columns, p.m, p.n);
        }
    }
    if (overlaps_itself(p.d)) {
        return refuse(refusal, INVALID, "results of the batch overlap: stride %ld, a matrix has %ld elements",
                      p.d.stride, p.d.n_elements());
    }
    return OK;
}

cublasStatus_t check_bias(Refusal& refusal, const Problem& p) {
    const MatmulDescriptor& it = p.descriptor;
    if (!it.has_bias()) return it.bias_stride ? refuse(refusal, INVALID, "a batch stride of bias without bias") : OK;
    if (it.bias_type != -1 && it.bias_type != p.bias_type) {
        return refuse(refusal, UNSUPPORTED, "bias of type %s, the table has %s", type_name(it.bias_type),
                      type_name(p.bias_type));
    }
    if (it.bias_type == -1) {
        // cublasLt.h, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: as D, but for products of 8-bit floats
        int standard = p.d.type;
        if (is_float8(p.a.type) && p.d.type == CUDA_R_32F) standard = CUDA_R_16BF;
        if (is_float8(p.a.type) && is_float8(p.d.type)) standard = p.c.type;
        if (standard != p.bias_type) return refuse(refusal, UNSUPPORTED, "bias has no type given");
    }
    if (!it.bias) return refuse(refusal, INVALID, "epilogue %u without a bias pointer", it.epilogue);
    if (reinterpret_cast<uintptr_t>(it.bias) % item_nbytes(p.bias_type)) {
        return refuse(refusal, INVALID, "bias %p is not aligned to its type %s", it.bias, type_name(p.bias_type));
    }
    if (it.bias_stride && p.batch < 2) return refuse(refusal, INVALID, "a batch stride of bias without a batch");
    return OK;
}

cublasStatus_t check_aux(Refusal& refusal, Problem& p) {
    const MatmulDescriptor& it = p.descriptor;
    if (!it.has_aux()) return OK;
    // cublasLt.h, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: a mask of bits for ReLU, numbers for GELU
    int unit = it.has_relu() ? 128 : 8;
    if (!it.aux) return refuse(refusal, INVALID, "epilogue %u without an auxiliary pointer", it.epilogue);
    if (it.aux_ld % unit || it.aux_ld < p.m) {
        return refuse(refusal, INVALID,
                      "leading dimension %ld of the auxiliary output: at least %ld and a multiple of %d is wanted",
                      it.aux_ld, p.m, unit);
    }
    if (it.aux_stride % unit) {
        return refuse(refusal, INVALID, "batch stride %ld of the auxiliary output is no multiple of %d", it.aux_stride,
                      unit);
    }
    p.aux_type = it.aux_type == -1 ? p.d.type : it.aux_type;
    if (p.aux_type != p.d.type) {
        return refuse(refusal, UNSUPPORTED, "auxiliary output of type %s", type_name(p.aux_type));
    }
    return OK;
}

cublasStatus_t check_epilogue(Refusal& refusal, const Types& types, Problem& p) {
    const MatmulDescriptor& it = p.descriptor;
    switch (it.epilogue) {
        case CUBLASLT_EPILOGUE_DEFAULT:
        case CUBLASLT_EPILOGUE_RELU:
        case CUBLASLT_EPILOGUE_BIAS:
        case CUBLASLT_EPILOGUE_RELU_BIAS:
        case CUBLASLT_EPILOGUE_GELU:
        case CUBLASLT_EPILOGUE_GELU_BIAS:
        case CUBLASLT_EPILOGUE_RELU_AUX:
        case CUBLASLT_EPILOGUE_RELU_AUX_BIAS:
        case CUBLASLT_EPILOGUE_GELU_AUX:
        case CUBLASLT_EPILOGUE_GELU_AUX_BIAS: break;
        case CUBLASLT_EPILOGUE_DRELU:
        case CUBLASLT_EPILOGUE_DRELU_BGRAD:
        case CUBLASLT_EPILOGUE_DGELU:
        case CUBLASLT_EPILOGUE_DGELU_BGRAD:
        case CUBLASLT_EPILOGUE_BGRADA:
        case CUBLASLT_EPILOGUE_BGRADB:
            return refuse(refusal, UNSUPPORTED, "gradients (epilogue %u) are not there", it.epilogue);
        default: return refuse(refusal, INVALID, "no such epilogue %u", it.epilogue);
    }
    if (it.epilogue != CUBLASLT_EPILOGUE_DEFAULT) {
        if (types.kind == Types::NO_EPILOGUE) {
            return refuse(refusal, UNSUPPORTED, "no epilogue but the default one with these types (asked for %u)",
                          it.epilogue);
        }
        if (p.d.by_rows()) return refuse(refusal, UNSUPPORTED, "epilogue %u with D by rows", it.epilogue);
    }
    p.bias_type = types.bias;
    if (cublasStatus_t status = check_bias(refusal, p)) return status;
    return check_aux(refusal, p);
}

cublasStatus_t check_alignments(Refusal& refusal, const Problem& p, const char* what, int nbytes) {
    for (int i = 0; i < 4; i++) {
        const Layout& layout = *Matrices(p).all[i];
        if (p.batch > 1 && layout.stride * item_nbytes(layout.type) % nbytes) {
            return refuse(refusal, UNSUPPORTED,
                          "%s wants matrices of a batch to be aligned to %d bytes: %c has stride %ld", what, nbytes,
                          NAMES[i], layout.stride);
        }
    }
    return OK;
}

// "To use IMMA kernels" with the regular order of data
cublasStatus_t check_int8(Refusal& refusal, const Problem& p) {
    const MatmulDescriptor& it = p.descriptor;
    bool by_rows = p.a.by_rows() || p.b.by_rows() || p.c.by_rows() || p.d.by_rows();
    if (!it.operation_a || it.operation_b || by_rows) {
        return refuse(refusal, UNSUPPORTED, "int8 wants A transposed and B not (TN), and order by columns");
    }
    if (p.m % 4 || p.k % 4) {
        return refuse(refusal, UNSUPPORTED, "int8 wants m and k to be multiples of 4: m %ld k %ld", p.m, p.k);
    }
    for (int i = 0; i < 4; i++) {
        int64_t ld = Matrices(p).all[i]->ld;
        if (ld % 4) {
            return refuse(refusal, UNSUPPORTED, "int8 wants leading dimensions that are multiples of 4: %c has %ld",
                          NAMES[i], ld);
        }
    }
    if (cublasStatus_t status = check_alignments(refusal, p, "int8", 4)) return status;
    bool vector = it.pointer_mode == CUBLASLT_POINTER_MODE_DEVICE_VECTOR ||
                  it.pointer_mode == CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_ZERO;
    if (vector) return refuse(refusal, UNSUPPORTED, "int8 with pointer mode %d", it.pointer_mode);
    return OK;
}

// "To use FP8 kernels"
cublasStatus_t check_float8(Refusal& refusal, const Problem& p) {
    const MatmulDescriptor& it = p.descriptor;
    if (!it.operation_a || it.operation_b) {
        return refuse(refusal, UNSUPPORTED, "float8 wants A transposed and B not (TN)");
    }
    if (p.m % 16 || p.n % 16 || p.k % 16) {
        return refuse(refusal, UNSUPPORTED, "float8 wants m, n and k to be multiples of 16: %ld %ld %ld", p.m, p.n,
                      p.k);
    }
    for (int i = 0; i < 4; i++) {
        const Layout& layout = *Matrices(p).all[i];
        if (layout.ld * item_nbytes(layout.type) % 16) {
            return refuse(refusal, UNSUPPORTED, "float8 wants lines aligned to 16 bytes: %c has leading dimension %ld",
                          NAMES[i], layout.ld);
        }
    }
    if (cublasStatus_t status = check_alignments(refusal, p, "float8", 16)) return status;
    for (int mode : it.scale_modes) {
        if (mode) return refuse(refusal, UNSUPPORTED, "scale mode %d", mode);
    }
    if (it.d_scale && !is_float8(p.d.type)) {
        return refuse(refusal, INVALID, "a scale of D, which is %s", type_name(p.d.type));
    }
    return OK;
}

void describe(char* text, size_t nbytes, char name, const Layout& layout, int operation) {
    snprintf(text, nbytes, "%c%s %s [%lu x %lu] ld %ld%s batch %d stride %ld", name, operation ? "^T" : "",
             type_name(layout.type), layout.rows, layout.columns, layout.ld, layout.by_rows() ? " by rows" : "",
             layout.batch, layout.stride);
}

}  // namespace

cublasStatus_t understand(Refusal& refusal, cublasLtMatmulDesc_t descriptor, const cublasLtMatrixLayout_t (&layouts)[4],
                          Problem& p) {
    const auto* its_descriptor = recognized<MatmulDescriptor>(descriptor);
    if (!its_descriptor) {
        return refuse(refusal, INVALID, "no such matmul descriptor %p", static_cast<void*>(descriptor));
    }
    Layout* into[] = {&p.a, &p.b, &p.c, &p.d};
    for (int i = 0; i < 4; i++) {
        const auto* layout = recognized<Layout>(layouts[i]);
        if (!layout) {
            return refuse(refusal, INVALID, "no such layout of %c: %p", NAMES[i], static_cast<void*>(layouts[i]));
        }
        *into[i] = *layout;
    }
    p.descriptor = *its_descriptor;
    p.is_known = true;
    const MatmulDescriptor& it = p.descriptor;
    auto is_operation = [](int operation) { return operation >= CUBLAS_OP_N && operation <= CUBLAS_OP_C; };
    if (!is_operation(it.operation_a) || !is_operation(it.operation_b) || it.operation_c) {
        return refuse(refusal, INVALID, "operations A %d B %d C %d", it.operation_a, it.operation_b, it.operation_c);
    }
    if (it.fill != CUBLAS_FILL_MODE_FULL && it.fill != CUBLAS_FILL_MODE_LOWER) {
        return refuse(refusal, UNSUPPORTED, "fill mode %d", it.fill);
    }
    if (it.pointer_mode < 0 || it.pointer_mode > CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST) {
        return refuse(refusal, INVALID, "pointer mode %d", it.pointer_mode);
    }
    for (int i = 0; i < 4; i++) {
        if (cublasStatus_t status = check_layout(refusal, NAMES[i], *into[i], p.d.batch)) return status;
    }
    if (cublasStatus_t status = check_shapes(refusal, p)) return status;
    Types types = find_types(it.compute, it.scale, p.a.type, p.b.type, p.c.type, p.d.type);
    if (types.kind == Types::ABSENT) {
        return refuse(refusal, UNSUPPORTED, "this combination of types is not in the table");
    }
    if (cublasStatus_t status = check_epilogue(refusal, types, p)) return status;
    if (p.a.type == CUDA_R_8I) {
        if (cublasStatus_t status = check_int8(refusal, p)) return status;
    }
    if (is_float8(p.a.type)) {
        if (cublasStatus_t status = check_float8(refusal, p)) return status;
    } else if (it.a_scale || it.b_scale || it.c_scale || it.d_scale || it.amax_d) {
        return refuse(refusal, INVALID, "scales are set, but types are %s and %s", type_name(p.a.type),
                      type_name(p.d.type));
    }
    bool unknown = it.aux_scale || it.aux_amax || it.in_counters || it.out_counters || it.chunks_rows ||
                   it.chunks_columns || it.d_out_scale;
    if (unknown) return refuse(refusal, UNSUPPORTED, "an attribute that is not known here");
    return OK;
}

cublasStatus_t report_refusal(const char* function, const Refusal& refusal, const Problem& p) {
    static const char* setting = getenv("CUDA_ON_CPU_QUIET");
    bool asks = strcmp(function, "cublasLtMatmulAlgoGetHeuristic") == 0;
    if (asks && setting && *setting == '1') return refusal.status;
    if (!p.is_known) {
        report("cublasLt", function, "status %d: %s", refusal.status, refusal.text);
        return refusal.status;
    }
    const MatmulDescriptor& it = p.descriptor;
    char texts[4][150];
    int operations[] = {it.operation_a, it.operation_b, 0, 0};
    for (int i = 0; i < 4; i++)
        describe(texts[i], sizeof texts[i], NAMES[i], *Matrices(p).all[i], operations[i]);
    report("cublasLt", function, "status %d: %s; %s, %s, %s, %s, compute %d, scale %s, epilogue %u", refusal.status,
           refusal.text, texts[0], texts[1], texts[2], texts[3], it.compute, type_name(it.scale), it.epilogue);
    return refusal.status;
}

uint64_t identity(const Problem& p) {
    uint64_t hash = 1469598103934665603ull;  // FNV-1a
    auto add = [&](int64_t value) {
        for (int i = 0; i < 64; i += 8)
            hash = (hash ^ (static_cast<uint64_t>(value) >> i & 255)) * 1099511628211ull;
    };
    const MatmulDescriptor& it = p.descriptor;
    for (int64_t value : {p.m, p.n, p.k, p.batch})
        add(value);
    for (int value : {it.compute, it.scale, it.operation_a, it.operation_b, p.bias_type, it.pointer_mode})
        add(value);
    add(it.epilogue);
    for (const Layout* layout : Matrices(p).all) {
        add(layout->type);
        add(layout->order);
        add(layout->ld);
        add(layout->batch > 1 ? layout->stride : 0);
    }
    return hash;
}

}  // namespace cuda_on_cpu
