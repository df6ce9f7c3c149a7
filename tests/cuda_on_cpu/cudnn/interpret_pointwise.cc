// Pointwise operations: formulas of cudnnPointwiseMode_t in cudnn_graph.h.
#include <cmath>
#include <cstdlib>

#include "interpreter.h"
#include "report.h"

namespace cuda_on_cpu::cudnn {

template <class T>
template <class F>
void Interpreter<T>::unary(const Operation& operation, F f) {
    Array x = input(operation, "x");
    T alpha = static_cast<T>(operation.alpha);
    for (T& v : x)
        v = f(alpha * v);
    set_output(operation, std::move(x));
}

// f(x, b, t), with their dimensions of 1 broadcast; x stands in for operands that there aren't.
template <class T>
template <class F>
void Interpreter<T>::elementwise(const Operation& operation, F f) {
    const Sizes& dims = operation.outputs.at("y")->dims;
    const Array* values[3];
    Sizes inner(3);
    std::vector<Sizes> outer;
    const char* names[3] = {"x", "b", "t"};
    for (int i = 0; i < 3; i++) {
        const TensorPtr& operand = operation.inputs.at(operation.has(names[i]) ? names[i] : "x");
        values[i] = &value(operand);
        Sizes strides = dense_strides(operand->dims, &dims);
        inner[i] = strides.back();
        strides.pop_back();
        outer.push_back(strides);
    }
    Array y(operation.outputs.at("y")->size());
    T alpha = static_cast<T>(operation.alpha);
    T alpha2 = static_cast<T>(operation.alpha2);
    int64_t n = dims.back();
    Walk walk(Sizes(dims.begin(), dims.end() - 1), outer);
    for (size_t first = 0; first < y.size(); first += n, walk.next()) {
        const T* x = values[0]->data() + walk.offsets[0];
        const T* b = values[1]->data() + walk.offsets[1];
        const T* t = values[2]->data() + walk.offsets[2];
        T* to = y.data() + first;
        for (int64_t i = 0; i < n; i++)
            to[i] = f(alpha * x[i * inner[0]], alpha2 * b[i * inner[1]], t[i * inner[2]]);
    }
    set_output(operation, std::move(y));
}

template <class T>
void Interpreter<T>::generate_index(const Operation& operation) {
    const Tensor& result = *operation.outputs.at("y");
    Array y(result.size());
    int64_t stride = dense_strides(result.dims)[operation.axis];
    int64_t dim = result.dims[operation.axis];
    for (int64_t i = 0; i < result.size(); i++)
        y[i] = static_cast<T>(i / stride % dim);
    set_output(operation, std::move(y));
}

template <class T>
void Interpreter<T>::pointwise(const Operation& operation) {
    const Operation& o = operation;
    const T lower = static_cast<T>(o.lower_clip);
    const T upper = static_cast<T>(o.upper_clip);
    const T slope = static_cast<T>(o.lower_clip_slope);
    const T elu_alpha = static_cast<T>(o.elu_alpha);
    const T softplus_beta = static_cast<T>(o.softplus_beta);
    const T swish_beta = static_cast<T>(o.swish_beta);
    switch (o.mode) {
        case CUDNN_POINTWISE_ADD: return elementwise(o, [](T x, T b, T) { return x + b; });
        case CUDNN_POINTWISE_SUB: return elementwise(o, [](T x, T b, T) { return x - b; });
        case CUDNN_POINTWISE_MUL: return elementwise(o, [](T x, T b, T) { return x * b; });
        case CUDNN_POINTWISE_DIV: return elementwise(o, [](T x, T b, T) { return x / b; });
        case CUDNN_POINTWISE_MAX:  // NaN where either is
            return elementwise(o, [](T x, T b, T) { return std::isnan(x) || x > b ? x : b; });
        case CUDNN_POINTWISE_MIN: return elementwise(o, [](T x, T b, T) { return std::isnan(x) || x < b ? x : b; });
        case CUDNN_POINTWISE_POW: return elementwise(o, [](T x, T b, T) { return std::pow(x, b); });
        case CUDNN_POINTWISE_MOD: return elementwise(o, [](T x, T b, T) { return std::fmod(x, b); });
        case CUDNN_POINTWISE_ADD_SQUARE: return elementwise(o, [](T x, T b, T) { return x + b * b; });
        case CUDNN_POINTWISE_CMP_EQ: return elementwise(o, [](T x, T b, T) { return T(x == b); });
        case CUDNN_POINTWISE_CMP_NEQ: return elementwise(o, [](T x, T b, T) { return T(x != b); });
        case CUDNN_POINTWISE_CMP_GT: return elementwise(o, [](T x, T b, T) { return T(x > b); });
        case CUDNN_POINTWISE_CMP_GE: return elementwise(o, [](T x, T b, T) { return T(x >= b); });
        case CUDNN_POINTWISE_CMP_LT: return elementwise(o, [](T x, T b, T) { return T(x < b); });
        case CUDNN_POINTWISE_CMP_LE: return elementwise(o, [](T x, T b, T) { return T(x <= b); });
        case CUDNN_POINTWISE_LOGICAL_AND: return elementwise(o, [](T x, T b, T) { return T(x != 0 && b != 0); });
        case CUDNN_POINTWISE_LOGICAL_OR: return elementwise(o, [](T x, T b, T) { return T(x != 0 || b != 0); });
        case CUDNN_POINTWISE_BINARY_SELECT: return elementwise(o, [](T x, T b, T t) { return t != 0 ? x : b; });
        case CUDNN_POINTWISE_GEN_INDEX: return generate_index(o);
        case CUDNN_POINTWISE_LOGICAL_NOT: return unary(o, [](T x) { return T(x == 0); });
        case CUDNN_POINTWISE_ABS: return unary(o, [](T x) { return std::fabs(x); });
        case CUDNN_POINTWISE_CEIL: return unary(o, [](T x) { return std::ceil(x); });
        case CUDNN_POINTWISE_FLOOR: return unary(o, [](T x) { return std::floor(x); });
        case CUDNN_POINTWISE_COS: return unary(o, [](T x) { return std::cos(x); });
        case CUDNN_POINTWISE_SIN: return unary(o, [](T x) { return std::sin(x); });
        case CUDNN_POINTWISE_TAN: return unary(o, [](T x) { return std::tan(x); });
        case CUDNN_POINTWISE_EXP: return unary(o, [](T x) { return std::exp(x); });
        case CUDNN_POINTWISE_LOG: return unary(o, [](T x) { return std::log(x); });
        case CUDNN_POINTWISE_NEG: return unary(o, [](T x) { return -x; });
        case CUDNN_POINTWISE_SQRT: return unary(o, [](T x) { return std::sqrt(x); });
        case CUDNN_POINTWISE_RSQRT: return unary(o, [](T x) { return 1 / std::sqrt(x); });
        case CUDNN_POINTWISE_ERF: return unary(o, [](T x) { return std::erf(x); });
        case CUDNN_POINTWISE_IDENTITY: return unary(o, [](T x) { return x; });
        case CUDNN_POINTWISE_RECIPROCAL: return unary(o, [](T x) { return 1 / x; });
        case CUDNN_POINTWISE_RELU_FWD:
            return unary(o, [=](T x) { return x < lower ? lower + slope * (x - lower) : x > upper ? upper : x; });
        case CUDNN_POINTWISE_TANH_FWD: return unary(o, [](T x) { return std::tanh(x); });
        case CUDNN_POINTWISE_SIGMOID_FWD: return unary(o, [](T x) { return 1 / (1 + std::exp(-x)); });
        case CUDNN_POINTWISE_ELU_FWD: return unary(o, [=](T x) { return x < 0 ? elu_alpha * (std::exp(x) - 1) : x; });
        case CUDNN_POINTWISE_GELU_FWD:
            return unary(o, [](T x) { return x * T(0.5) * (1 + std::erf(x * T(M_SQRT1_2))); });
        case CUDNN_POINTWISE_GELU_APPROX_TANH_FWD:
            return unary(o, [](T x) {
                const T factor = T(0.7978845608028654);  // sqrt(2 / π)
                return T(0.5) * x * (1 + std::tanh(factor * (x + T(0.044715) * x * x * x)));
            });
        case CUDNN_POINTWISE_SOFTPLUS_FWD:
            return unary(o, [=](T x) { return std::log1p(std::exp(softplus_beta * x)) / softplus_beta; });
        case CUDNN_POINTWISE_SWISH_FWD: return unary(o, [=](T x) { return x / (1 + std::exp(-swish_beta * x)); });
    }
    remark("run", "pointwise mode ", o.mode, " isn't done here");
    abort();
}

template void Interpreter<float>::pointwise(const Operation&);
template void Interpreter<double>::pointwise(const Operation&);

}  // namespace cuda_on_cpu::cudnn
