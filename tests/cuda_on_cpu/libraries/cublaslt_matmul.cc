// cuBLASLt: algorithms for a problem, and the product itself, which takes an algorithm for no other problem, and no
// addresses that are less aligned than the algorithm was asked for, or overlap.
#include <cstring>
#include <utility>
#include <vector>

#include "cublaslt_problem.h"
#include "product.h"

using namespace cuda_on_cpu;

namespace {

constexpr cublasStatus_t INVALID = CUBLAS_STATUS_INVALID_VALUE;
constexpr cublasStatus_t UNSUPPORTED = CUBLAS_STATUS_NOT_SUPPORTED;
constexpr const char* NAMES = "ABCD";
constexpr int N_ALGORITHMS = 3;  // of each problem; all do the same

// So that callers are tested for it, the first algorithm for a longer sum wants room for a part of it.
uint64_t workspace_nbytes(const Problem& p, int number) {
    if (number != 0 || p.k < 16) return 0;
    uint64_t nbytes = static_cast<uint64_t>(p.m * p.n * p.batch * 4 + 255) / 256 * 256;
    return std::min<uint64_t>(std::max<uint64_t>(4096, nbytes), 1 << 20);
}

uint32_t greatest_power_in(uint64_t value, uint32_t most) {
    return value ? static_cast<uint32_t>(std::min<uint64_t>(most, value & -value)) : most;
}

bool is_aligned(const void* address, uint32_t nbytes) {
    return reinterpret_cast<uintptr_t>(address) % nbytes == 0;
}

cublasStatus_t check_preference(Refusal& refusal, const Preference& preference, const Problem& p) {
    if (preference.search_mode != CUBLASLT_SEARCH_BEST_FIT) {
        return refuse(refusal, UNSUPPORTED, "search mode %u", preference.search_mode);
    }
    int types[] = {p.a.type, p.b.type, p.c.type, p.d.type};
    for (int i = 0; i < 4; i++) {
        uint32_t nbytes = preference.alignments[i];
        uint32_t least = static_cast<uint32_t>(item_nbytes(types[i]));
        if (p.a.type == CUDA_R_8I) least = 4;
        if (is_float8(p.a.type)) least = 16;
        if (!nbytes || (nbytes & (nbytes - 1))) {
            return refuse(refusal, INVALID, "alignment %u of %c is no power of two", nbytes, NAMES[i]);
        }
        if (nbytes < least) {
            return refuse(refusal, UNSUPPORTED, "alignment %u of %c, at least %u is wanted", nbytes, NAMES[i], least);
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

// The arguments of a product
struct Arguments {
    const void* alpha;
    const void* beta;
    const void* a;
    const void* b;
    const void* c;
    void* d;
    void* workspace;
    size_t workspace_nbytes;
    bool beta_is_zero;
};

// First and last + 1 byte
using Range = std::pair<intptr_t, intptr_t>;

Range bytes_of(const void* data, const Layout& layout) {
    int64_t last = layout.batch > 1 ? (layout.batch - 1) * layout.stride : 0;
    int64_t first = std::min<int64_t>(0, last);
    int64_t stop = std::max<int64_t>(0, last) + layout.n_elements();
    intptr_t address = reinterpret_cast<intptr_t>(data);
    return {address + first * item_nbytes(layout.type), address + stop * item_nbytes(layout.type)};
}

std::vector<Range> lines_of(const void* data, const Layout& layout) {
    std::vector<Range> lines;
    int64_t nbytes = layout.line_length() * item_nbytes(layout.type);
    for (int64_t number = 0; number < layout.batch; number++) {
        for (int64_t i = 0; i < layout.n_lines(); i++) {
            intptr_t start = reinterpret_cast<intptr_t>(data);
            start += (number * layout.stride + i * layout.ld) * item_nbytes(layout.type);
            lines.push_back({start, start + nbytes});
        }
    }
    std::sort(lines.begin(), lines.end());
    return lines;
}

// Whether they share bytes; lines of one may lie between those of the other.
bool overlap(const void* data, const Layout& layout, const void* other_data, const Layout& other_layout) {
    Range whole = bytes_of(data, layout);
    Range other_whole = bytes_of(other_data, other_layout);
    if (whole.second <= other_whole.first || other_whole.second <= whole.first) return false;
    std::vector<Range> others = lines_of(other_data, other_layout);
    size_t at = 0;
    for (const Range& line : lines_of(data, layout)) {
        while (at < others.size() && others[at].second <= line.first)
            at++;
        if (at < others.size() && others[at].first < line.second) return true;
    }
    return false;
}

// What no library refuses, but what gives wrong numbers
cublasStatus_t check_overlaps(Refusal& refusal, const Problem& p, const Arguments& with) {
    if (with.c == with.d && !with.beta_is_zero) {
        bool same_stride = p.batch <= 1 || p.c.stride == p.d.stride;
        bool same = p.c.ld == p.d.ld && p.c.order == p.d.order && p.c.type == p.d.type && same_stride;
        if (!same) return refuse(refusal, INVALID, "C is D, but their layouts differ");
    } else if (!with.beta_is_zero && overlap(with.c, p.c, with.d, p.d)) {
        return refuse(refusal, INVALID, "C %p and D %p overlap, and aren't the same", with.c, with.d);
    }
    if (overlap(with.a, p.a, with.d, p.d)) return refuse(refusal, INVALID, "A %p and D %p overlap", with.a, with.d);
    if (overlap(with.b, p.b, with.d, p.d)) return refuse(refusal, INVALID, "B %p and D %p overlap", with.b, with.d);
    const MatmulDescriptor& it = p.descriptor;
    if (it.has_bias()) {
        Layout bias(p.bias_type, static_cast<uint64_t>(p.m), 1, p.m);
        bias.batch = p.d.batch;
        bias.stride = it.bias_stride;
        if (overlap(it.bias, bias, with.d, p.d)) {
            return refuse(refusal, INVALID, "bias %p and D %p overlap", it.bias, with.d);
        }
    }
    if (with.workspace && with.workspace_nbytes) {
        Layout bytes(CUDA_R_8I, with.workspace_nbytes, 1, static_cast<int64_t>(with.workspace_nbytes));
        bool overlaps = overlap(with.workspace, bytes, with.d, p.d) || overlap(with.workspace, bytes, with.a, p.a) ||
                        overlap(with.workspace, bytes, with.b, p.b) ||
                        (!with.beta_is_zero && overlap(with.workspace, bytes, with.c, p.c));
        if (overlaps) {
            return refuse(refusal, INVALID, "the workspace %p of %zu bytes overlaps a matrix", with.workspace,
                          with.workspace_nbytes);
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_arguments(Refusal& refusal, const Problem& p, const Arguments& with) {
    const MatmulDescriptor& it = p.descriptor;
    bool needs_beta = it.pointer_mode != CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_ZERO;
    if (!with.alpha || (!with.beta && needs_beta)) {
        return refuse(refusal, INVALID, "alpha %p or beta %p is null", with.alpha, with.beta);
    }
    if (!with.a || !with.b || !with.d) {
        return refuse(refusal, INVALID, "a matrix is null: A %p B %p D %p", with.a, with.b, with.d);
    }
    if (it.pointer_mode == CUBLASLT_POINTER_MODE_DEVICE_VECTOR) {
        return refuse(refusal, UNSUPPORTED, "pointer mode %d is not there", it.pointer_mode);
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_algorithm(Refusal& refusal, const Problem& p, const Arguments& with, const Algorithm& algorithm) {
    if (algorithm.problem != identity(p)) {
        return refuse(refusal, INVALID, "the algorithm was found for another problem");
    }
    if (algorithm.workspace_nbytes > with.workspace_nbytes) {
        return refuse(refusal, INVALID, "the algorithm wants a workspace of %lu bytes, there are %zu",
                      algorithm.workspace_nbytes, with.workspace_nbytes);
    }
    const void* addresses[] = {with.a, with.b, with.c, with.d};
    for (int i = 0; i < 4; i++) {
        if (!is_aligned(addresses[i], algorithm.alignments[i])) {
            return refuse(refusal, INVALID, "%c at %p is less aligned than the algorithm was found for: %u bytes",
                          NAMES[i], addresses[i], algorithm.alignments[i]);
        }
    }
    const MatmulDescriptor& it = p.descriptor;
    if (it.has_bias() && !is_aligned(it.bias, algorithm.bias_alignment)) {
        return refuse(refusal, INVALID, "bias at %p is less aligned than when the algorithm was looked for: %u bytes",
                      it.bias, algorithm.bias_alignment);
    }
    if (algorithm.workspace_nbytes && !with.workspace) return refuse(refusal, INVALID, "the workspace is null");
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_type_alignments(Refusal& refusal, const Problem& p, const Arguments& with) {
    const Layout* layouts[] = {&p.a, &p.b, &p.c, &p.d};
    const void* addresses[] = {with.a, with.b, with.c, with.d};
    for (int i = 0; i < 4; i++) {
        if (!is_aligned(addresses[i], static_cast<uint32_t>(item_nbytes(layouts[i]->type)))) {
            return refuse(refusal, INVALID, "%c isn't aligned to its type", NAMES[i]);
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

// A product in the type T, as it is queued: scalars of the host were read before.
template <class T>
struct Product {
    Problem p;
    Arguments with;
    T alpha;
    T beta;
    uint64_t scratch_nbytes;

    void operator()() const {
        // whoever keeps something in the workspace is to notice
        if (scratch_nbytes) memset(with.workspace, 0xa5, scratch_nbytes);
        const MatmulDescriptor& it = p.descriptor;
        Scales scales = read_scales();
        auto sums = room<T>(p.m * p.n);
        Lines lines{room<T>(p.m), room<T>(p.m), room<T>(p.m)};
        float greatest = 0;
        for (int64_t number = 0; number < p.batch; number++) {
            multiply<T>(p.m, p.n, p.k, operand(with.a, p.a, it.operation_a, number),
                        operand(with.b, p.b, it.operation_b, number), rounding(), sums.get());
            if (it.has_bias()) {
                load_line<T>(p.bias_type, it.bias, number * it.bias_stride, 1, p.m, lines.bias.get());
            }
            if (alpha_is_vector()) {
                load_line<T>(it.scale, with.alpha, number * it.alpha_stride, 1, p.m, lines.alphas.get());
            }
            for (int64_t j = 0; j < p.n; j++) {
                T* x = sums.get() + j * p.m;
                finish_column(number, j, scales, lines, x, greatest);
                store_line<T>(p.d.type, with.d, number * p.d.stride + j * p.d.column_stride(), p.d.row_stride(), p.m,
                              x);
            }
        }
        if (it.amax_d) *static_cast<float*>(it.amax_d) = greatest;
    }

private:
    struct Scales {
        T alpha;
        T beta;
        float product = 1;
        float c = 1;
        float d = 1;
    };
    struct Lines {
        Room<T> c;
        Room<T> bias;
        Room<T> alphas;
    };

    bool alpha_is_vector() const {
        return p.descriptor.pointer_mode == CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_ZERO ||
               p.descriptor.pointer_mode == CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST;
    }

    Scales read_scales() const {
        const MatmulDescriptor& it = p.descriptor;
        Scales scales{alpha, beta};
        if (it.pointer_mode == CUBLASLT_POINTER_MODE_DEVICE) {
            scales.alpha = load_one<T>(it.scale, with.alpha);
            scales.beta = load_one<T>(it.scale, with.beta);
        }
        if (is_float8(p.a.type)) {
            auto read = [](const void* scale) { return scale ? *static_cast<const float*>(scale) : 1.0f; };
            scales.product = read(it.a_scale) * read(it.b_scale);
            scales.c = is_float8(p.c.type) ? read(it.c_scale) : 1;
            scales.d = read(it.d_scale);
        }
        return scales;
    }

    Rounding rounding() const {
        switch (p.descriptor.compute) {
            case CUBLAS_COMPUTE_32F_FAST_TF32: return Rounding::TF32;
            case CUBLAS_COMPUTE_32F_FAST_16F: return Rounding::HALF;
            case CUBLAS_COMPUTE_32F_FAST_16BF: return Rounding::BFLOAT16;
        }
        return Rounding::NONE;
    }

    static Operand operand(const void* data, const Layout& layout, int operation, int64_t number) {
        const char* first = static_cast<const char*>(data) + number * layout.stride * item_nbytes(layout.type);
        Operand it{first, layout.type, layout.row_stride(), layout.column_stride(), operation == CUBLAS_OP_C};
        if (operation) std::swap(it.row_stride, it.column_stride);
        return it;
    }

    // x: m sums of column j of a matrix of the batch, which become what is stored
    void finish_column(int64_t number, int64_t j, const Scales& scales, const Lines& lines, T* x,
                       float& greatest) const {
        const MatmulDescriptor& it = p.descriptor;
        if (scales.product != 1) {
            for (int64_t i = 0; i < p.m; i++)
                x[i] *= T(scales.product);
        }
        if (alpha_is_vector()) {
            for (int64_t i = 0; i < p.m; i++)
                x[i] *= lines.alphas[i];
        } else if (scales.alpha != T(1)) {
            for (int64_t i = 0; i < p.m; i++)
                x[i] *= scales.alpha;
        }
        if (scales.beta != T(0)) {
            int64_t start = number * p.c.stride + j * p.c.column_stride();
            load_line<T>(p.c.type, with.c, start, p.c.row_stride(), p.m, lines.c.get());
            for (int64_t i = 0; i < p.m; i++)
                x[i] += scales.beta * T(scales.c) * lines.c[i];
        }
        if (it.has_bias()) {
            for (int64_t i = 0; i < p.m; i++)
                x[i] += lines.bias[i];
        }
        if constexpr (!is_complex<T>::value && !std::is_integral<T>::value) {
            if (it.has_aux()) store_aux(number * it.aux_stride + j * it.aux_ld, x);
            activate(x);
            if (it.amax_d) {
                for (int64_t i = 0; i < p.m; i++)
                    greatest = std::max(greatest, static_cast<float>(std::fabs(x[i])));
            }
            if (scales.d != 1) {
                for (int64_t i = 0; i < p.m; i++)
                    x[i] *= T(scales.d);
            }
        }
    }

    // What a gradient wants later: signs as bits for ReLU, what GELU begins with
    void store_aux(int64_t start, const T* x) const {
        const MatmulDescriptor& it = p.descriptor;
        if (!it.has_relu()) {
            store_line<T>(p.aux_type, it.aux, start, 1, p.m, x);
            return;
        }
        uint8_t* bits = static_cast<uint8_t*>(it.aux) + start / 8;
        for (int64_t i = 0; i < p.m; i++) {
            int others = bits[i / 8] & ~(1 << i % 8);
            bits[i / 8] = static_cast<uint8_t>(others | (x[i] > 0) << i % 8);
        }
    }

    void activate(T* x) const {
        if (p.descriptor.has_relu()) {
            for (int64_t i = 0; i < p.m; i++)
                x[i] = x[i] < 0 ? T(0) : x[i];  // NaN stays
        }
        if (p.descriptor.has_gelu()) {
            for (int64_t i = 0; i < p.m; i++) {
                T inner = T(0.7978845608028654) * (x[i] + T(0.044715) * x[i] * x[i] * x[i]);
                x[i] = T(0.5) * x[i] * (T(1) + std::tanh(inner));
            }
        }
    }
};

template <class T>
int enqueue_product(void* stream, const Problem& p, const Arguments& with, uint64_t scratch_nbytes) {
    const MatmulDescriptor& it = p.descriptor;
    Product<T> product{p, with, T(1), T(0), scratch_nbytes};
    if (it.pointer_mode == CUBLASLT_POINTER_MODE_HOST) product.alpha = load_one<T>(it.scale, with.alpha);
    if (it.pointer_mode == CUBLASLT_POINTER_MODE_HOST ||
        it.pointer_mode == CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST) {
        product.beta = load_one<T>(it.scale, with.beta);
    }
    return enqueue(stream, product);
}

int enqueue_product(void* stream, const Problem& p, const Arguments& with, uint64_t scratch_nbytes) {
    switch (p.a.type) {
        case CUDA_R_64F: return enqueue_product<double>(stream, p, with, scratch_nbytes);
        case CUDA_C_32F: return enqueue_product<complex64>(stream, p, with, scratch_nbytes);
        case CUDA_C_64F: return enqueue_product<complex128>(stream, p, with, scratch_nbytes);
        case CUDA_R_8I:
            if (p.d.type == CUDA_R_32I) return enqueue_product<int32_t>(stream, p, with, scratch_nbytes);
            break;
    }
    return enqueue_product<float>(stream, p, with, scratch_nbytes);
}

bool is_zero_on_host(const Problem& p, const void* beta) {
    switch (p.descriptor.pointer_mode) {
        case CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_ZERO: return true;
        case CUBLASLT_POINTER_MODE_HOST:
        case CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST:
            return load_one<complex128>(p.descriptor.scale, beta) == complex128(0);
    }
    return false;
}

}  // namespace

EXPORT cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t descriptor,
                                                     cublasLtMatrixLayout_t layout_a, cublasLtMatrixLayout_t layout_b,
                                                     cublasLtMatrixLayout_t layout_c, cublasLtMatrixLayout_t layout_d,
                                                     cublasLtMatmulPreference_t opaque_preference, int n_requested,
                                                     cublasLtMatmulHeuristicResult_t results[], int* n_returned) {
    if (n_returned) *n_returned = 0;
    if (!usable(handle, __func__)) return CUBLAS_STATUS_NOT_INITIALIZED;
    const auto* preference = recognized<Preference>(opaque_preference);
    if (!preference) {
        report("cublasLt", __func__, "no such preference %p", static_cast<void*>(opaque_preference));
        return INVALID;
    }
    if (n_requested < 1 || !results || !n_returned) {
        report("cublasLt", __func__, "%d algorithms are asked for", n_requested);
        return INVALID;
    }
    Problem p;
    Refusal refusal;
    if (understand(refusal, descriptor, {layout_a, layout_b, layout_c, layout_d}, p) ||
        check_preference(refusal, *preference, p)) {
        return report_refusal(__func__, refusal, p);
    }
    memset(static_cast<void*>(results), 0, sizeof *results * static_cast<size_t>(n_requested));
    for (int number = 0; number < N_ALGORITHMS && *n_returned < n_requested; number++) {
        Algorithm algorithm;
        algorithm.problem = identity(p);
        algorithm.number = static_cast<uint32_t>(number);
        algorithm.workspace_nbytes = workspace_nbytes(p, number);
        if (algorithm.workspace_nbytes > preference->workspace_nbytes) continue;
        for (int i = 0; i < 4; i++)
            algorithm.alignments[i] = std::min(256u, preference->alignments[i]);
        if (p.descriptor.has_bias()) {
            // no kernel reads more than 16 bytes of bias at once
            uintptr_t bias = reinterpret_cast<uintptr_t>(p.descriptor.bias);
            algorithm.bias_alignment = greatest_power_in(bias, 16);
        }
        cublasLtMatmulHeuristicResult_t& result = results[(*n_returned)++];
        memcpy(result.algo.data, &algorithm, sizeof algorithm);
        result.workspaceSize = algorithm.workspace_nbytes;
        result.state = CUBLAS_STATUS_SUCCESS;
        result.wavesCount = 1.0f + static_cast<float>(number);
    }
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t descriptor, const void* alpha,
                                     const void* a, cublasLtMatrixLayout_t layout_a, const void* b,
                                     cublasLtMatrixLayout_t layout_b, const void* beta, const void* c,
                                     cublasLtMatrixLayout_t layout_c, void* d, cublasLtMatrixLayout_t layout_d,
                                     const cublasLtMatmulAlgo_t* opaque_algorithm, void* workspace,
                                     size_t workspace_size, cudaStream_t stream) {
    if (!usable(handle, __func__)) return CUBLAS_STATUS_NOT_INITIALIZED;
    Problem p;
    Refusal refusal;
    Arguments with{alpha, beta, a, b, c, d, workspace, workspace_size, false};
    if (understand(refusal, descriptor, {layout_a, layout_b, layout_c, layout_d}, p) ||
        check_arguments(refusal, p, with)) {
        return report_refusal(__func__, refusal, p);
    }
    with.beta_is_zero = is_zero_on_host(p, beta);
    if (!c && !with.beta_is_zero) {
        refuse(refusal, INVALID, "C is null, beta isn't 0");
        return report_refusal(__func__, refusal, p);
    }
    const Algorithm* algorithm = recognized(opaque_algorithm);
    if (opaque_algorithm && !algorithm) {
        refuse(refusal, INVALID, "that is no algorithm");
        return report_refusal(__func__, refusal, p);
    }
    if (algorithm ? check_algorithm(refusal, p, with, *algorithm) : check_type_alignments(refusal, p, with)) {
        return report_refusal(__func__, refusal, p);
    }
    if (!is_aligned(workspace, 16)) {
        refuse(refusal, INVALID, "the workspace %p is not aligned to 16 bytes", workspace);
        return report_refusal(__func__, refusal, p);
    }
    if (check_overlaps(refusal, p, with)) return report_refusal(__func__, refusal, p);
    int status = enqueue_product(stream, p, with, algorithm ? algorithm->workspace_nbytes : 0);
    if (status) {
        refuse(refusal, CUBLAS_STATUS_EXECUTION_FAILED, "the driver took no work: %d", status);
        return report_refusal(__func__, refusal, p);
    }
    return CUBLAS_STATUS_SUCCESS;
}
