// Products of matrices, in batches that are broadcast, and reductions.
#include <cmath>
#include <limits>

#include "interpreter.h"

namespace cuda_on_cpu::cudnn {

namespace {

template <class T>
T start_of(int mode) {
    switch (mode) {
        case CUDNN_REDUCE_TENSOR_MUL:
        case CUDNN_REDUCE_TENSOR_MUL_NO_ZEROS: return 1;
        case CUDNN_REDUCE_TENSOR_MIN: return std::numeric_limits<T>::infinity();
        case CUDNN_REDUCE_TENSOR_MAX: return -std::numeric_limits<T>::infinity();
    }
    return 0;
}

template <class T>
T reduced(int mode, T so_far, T x) {
    switch (mode) {
        case CUDNN_REDUCE_TENSOR_ADD:
        case CUDNN_REDUCE_TENSOR_AVG: return so_far + x;
        case CUDNN_REDUCE_TENSOR_MUL: return so_far * x;
        case CUDNN_REDUCE_TENSOR_MUL_NO_ZEROS: return x != 0 ? so_far * x : so_far;
        case CUDNN_REDUCE_TENSOR_MIN: return std::isnan(x) || x < so_far ? x : so_far;
        case CUDNN_REDUCE_TENSOR_MAX: return std::isnan(x) || x > so_far ? x : so_far;
        case CUDNN_REDUCE_TENSOR_AMAX: return std::max(so_far, std::fabs(x));
        case CUDNN_REDUCE_TENSOR_NORM1: return so_far + std::fabs(x);
        case CUDNN_REDUCE_TENSOR_NORM2: return so_far + x * x;
    }
    return so_far;
}

}  // namespace

// The operands' dimensions of a batch divide the result's: consecutive entries share one. Beyond the lengths there are
// paddings, and zeros where a sum has a length.
template <class T>
void Interpreter<T>::matmul(const Operation& operation) {
    const Sizes& a_dims = operation.inputs.at("a")->dims;
    const Sizes& b_dims = operation.inputs.at("b")->dims;
    const Tensor& result = *operation.outputs.at("y");
    const Array& a = input(operation, "a");
    const Array& b = input(operation, "b");
    size_t n_batch_axes = result.dims.size() - 2;
    int64_t m = result.dims[n_batch_axes];
    int64_t n = result.dims[n_batch_axes + 1];
    int64_t k = a_dims[n_batch_axes + 1];
    Array c(result.size(), static_cast<T>(operation.padding));
    Array out(m * n);
    int64_t n_entries = n_batch_axes ? result.dims[0] : 1;
    const Sizes m_lengths = lengths(operation, "m_lengths", n_entries, m);
    const Sizes n_lengths = lengths(operation, "n_lengths", n_entries, n);
    const Sizes k_lengths = lengths(operation, "k_lengths", n_entries, k);
    Walk walk(Sizes(result.dims.begin(), result.dims.end() - 2), {});
    for (int64_t i = 0; i < result.size() / (m * n); i++, walk.next()) {
        int64_t of_a = 0;
        int64_t of_b = 0;
        for (size_t axis = 0; axis < n_batch_axes; axis++) {
            of_a = of_a * a_dims[axis] + walk.index[axis] / (result.dims[axis] / a_dims[axis]);
            of_b = of_b * b_dims[axis] + walk.index[axis] / (result.dims[axis] / b_dims[axis]);
        }
        int64_t entry = n_batch_axes ? walk.index[0] : 0;
        // by rows: the transpose of b's product with a's
        multiply<T>(n, m, k_lengths[entry], columns(b.data() + of_b * k * n, n), columns(a.data() + of_a * m * k, k),
                    rounding(), out.data());
        T* to = c.data() + i * m * n;
        for (int64_t row = 0; row < m_lengths[entry]; row++) {
            for (int64_t column = 0; column < n_lengths[entry]; column++)
                to[row * n + column] = out[row * n + column];
        }
        if (operation.has("k_lengths")) std::fill(to + m_lengths[entry] * n, to + m * n, T(0));
    }
    set_output(operation, std::move(c));
}

template <class T>
void Interpreter<T>::reduction(const Operation& operation) {
    const Sizes& dims = operation.inputs.at("x")->dims;
    const Tensor& result = *operation.outputs.at("y");
    const Array& x = input(operation, "x");
    Array y(result.size(), start_of<T>(operation.mode));
    Walk walk(dims, {dense_strides(result.dims, &dims)});
    for (size_t i = 0; i < x.size(); i++, walk.next()) {
        T& to = y[walk.offsets[0]];
        to = reduced(operation.mode, to, x[i]);
    }
    for (T& v : y) {
        if (operation.mode == CUDNN_REDUCE_TENSOR_AVG) v /= static_cast<T>(x.size() / y.size());
        if (operation.mode == CUDNN_REDUCE_TENSOR_NORM2) v = std::sqrt(v);
    }
    set_output(operation, std::move(y));
}

template void Interpreter<float>::matmul(const Operation&);
template void Interpreter<double>::matmul(const Operation&);
template void Interpreter<float>::reduction(const Operation&);
template void Interpreter<double>::reduction(const Operation&);

}  // namespace cuda_on_cpu::cudnn
