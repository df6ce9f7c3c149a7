// Runs an operation graph, one operation after another, in float or double. Values are dense arrays in the order of
// their dimensions, rounded to the types of their tensors.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "../libraries/product.h"
#include "graph.h"

namespace cuda_on_cpu {

extern template void multiply<float>(int64_t, int64_t, int64_t, const Operand&, const Operand&, Rounding, float*);
extern template void multiply<double>(int64_t, int64_t, int64_t, const Operand&, const Operand&, Rounding, double*);

namespace cudnn {

// of a dense array with these dimensions; where `broadcast` is given, 0 along axes that are 1 here and not there
Sizes dense_strides(const Sizes& dims, const Sizes* broadcast = nullptr);

// Goes through the indices of some dimensions, the last one fastest, with offsets by several lists of strides.
class Walk {
public:
    Walk(Sizes dims, std::vector<Sizes> strides)
        : index(dims.size(), 0), offsets(strides.size(), 0), dims_(std::move(dims)), strides_(std::move(strides)) {}
    void next() {
        for (size_t axis = dims_.size(); axis-- > 0;) {
            index[axis]++;
            for (size_t i = 0; i < offsets.size(); i++)
                offsets[i] += strides_[i][axis];
            if (index[axis] < dims_[axis]) return;
            for (size_t i = 0; i < offsets.size(); i++)
                offsets[i] -= strides_[i][axis] * dims_[axis];
            index[axis] = 0;
        }
    }

    Sizes index, offsets;

private:
    Sizes dims_;
    std::vector<Sizes> strides_;
};

template <class T>
void round_to(int data_type, T* x, int64_t n);

template <class T>
class Interpreter {
public:
    Interpreter(const Graph& graph, const Launch& launch) : graph_(graph), launch_(launch) {}
    void run();

private:
    using Array = std::vector<T>;
    static constexpr int type = std::is_same<T, double>::value ? CUDA_R_64F : CUDA_R_32F;
    // a matrix of dense rows, or its transpose, as BLAS has them
    static Operand rows(const T* data, int64_t n_columns) { return {data, type, n_columns, 1, false}; }
    static Operand columns(const T* data, int64_t n_rows) { return {data, type, 1, n_rows, false}; }

    const Array& value(const TensorPtr& tensor);
    const Array& input(const Operation& operation, const char* name) { return value(operation.inputs.at(name)); }
    void set(const TensorPtr& tensor, Array x);
    void set_output(const Operation& operation, Array x) { set(operation.outputs.at("y"), std::move(x)); }
    // of n entries, which may share one; `most` where there is no such tensor
    Sizes lengths(const Operation& operation, const char* name, int64_t n, int64_t most);
    Rounding rounding() const;

    void run(const Operation& operation);
    void convolution(const Operation& operation);
    void backward_data(const Operation& operation);
    void pointwise(const Operation& operation);
    template <class F>
    void unary(const Operation& operation, F f);
    template <class F>
    void elementwise(const Operation& operation, F f);
    void generate_index(const Operation& operation);
    void matmul(const Operation& operation);
    void reduction(const Operation& operation);
    void softmax(const Operation& operation);
    void band_mask(const Operation& operation);
    void attention(const Operation& operation);
    Array attention_scores(const Operation& operation);

    const Graph& graph_;
    const Launch& launch_;
    std::map<int64_t, Array> values_;
};

}  // namespace cudnn
}  // namespace cuda_on_cpu
