// The interpreter's values: read from memory, rounded, written to memory; and which operation is run by what.
#include "interpreter.h"

#include <cmath>
#include <cstring>

#include "report.h"

namespace cuda_on_cpu {

template void multiply<float>(int64_t, int64_t, int64_t, const Operand&, const Operand&, Rounding, float*);
template void multiply<double>(int64_t, int64_t, int64_t, const Operand&, const Operand&, Rounding, double*);

namespace cudnn {

namespace {

// CUDA_R_… of a type but INT64
int cuda_type(int data_type) {
    switch (data_type) {
        case CUDNN_DATA_FLOAT: return CUDA_R_32F;
        case CUDNN_DATA_DOUBLE: return CUDA_R_64F;
        case CUDNN_DATA_HALF: return CUDA_R_16F;
        case CUDNN_DATA_BFLOAT16: return CUDA_R_16BF;
        case CUDNN_DATA_INT8: return CUDA_R_8I;
        case CUDNN_DATA_UINT8:
        case CUDNN_DATA_BOOLEAN: return CUDA_R_8U;
        case CUDNN_DATA_INT32: return CUDA_R_32I;
    }
    return -1;
}

// f(offset in elements, number of the line) for each line along the last axis
template <class F>
void for_each_line(const Tensor& tensor, F f) {
    Sizes dims(tensor.dims.begin(), tensor.dims.end() - 1);
    Sizes strides(tensor.strides.begin(), tensor.strides.end() - 1);
    int64_t n_lines = tensor.size() / tensor.dims.back();
    Walk walk(dims, {strides});
    for (int64_t line = 0; line < n_lines; line++, walk.next())
        f(walk.offsets[0], line);
}

template <class T>
std::vector<T> load(const Tensor& tensor, const void* from) {
    std::vector<T> x(tensor.size());
    int64_t n = tensor.dims.back();
    int64_t stride = tensor.strides.back();
    for_each_line(tensor, [&](int64_t offset, int64_t line) {
        T* into = x.data() + line * n;
        if (tensor.data_type == CUDNN_DATA_INT64) {
            const int64_t* first = static_cast<const int64_t*>(from) + offset;
            for (int64_t i = 0; i < n; i++)
                into[i] = static_cast<T>(first[i * stride]);
        } else {
            load_line<T>(cuda_type(tensor.data_type), from, offset, stride, n, into);
        }
    });
    return x;
}

template <class T>
void store(const Tensor& tensor, void* into, const std::vector<T>& x) {
    int64_t n = tensor.dims.back();
    int64_t stride = tensor.strides.back();
    for_each_line(tensor, [&](int64_t offset, int64_t line) {
        const T* from = x.data() + line * n;
        if (tensor.data_type == CUDNN_DATA_INT64) {
            int64_t* first = static_cast<int64_t*>(into) + offset;
            for (int64_t i = 0; i < n; i++)
                first[i * stride] = convert<int64_t>(from[i]);
        } else {
            store_line<T>(cuda_type(tensor.data_type), into, offset, stride, n, from);
        }
    });
}

template <class T, class F>
void replace(T* x, int64_t n, F f) {
    for (int64_t i = 0; i < n; i++)
        x[i] = static_cast<T>(f(x[i]));
}

}  // namespace

Sizes dense_strides(const Sizes& dims, const Sizes* broadcast) {
    Sizes strides(dims.size());
    int64_t n = 1;
    for (size_t i = dims.size(); i-- > 0;) {
        bool is_repeated = broadcast && dims[i] == 1 && (*broadcast)[i] != 1;
        strides[i] = is_repeated ? 0 : n;
        n *= dims[i];
    }
    return strides;
}

template <class T>
void round_to(int data_type, T* x, int64_t n) {
    switch (data_type) {
        case CUDNN_DATA_HALF: return replace(x, n, [](T v) { return static_cast<_Float16>(static_cast<float>(v)); });
        case CUDNN_DATA_BFLOAT16:
            return replace(x, n, [](T v) { return static_cast<float>(BFloat16(static_cast<float>(v))); });
        case CUDNN_DATA_FLOAT: return replace(x, n, [](T v) { return static_cast<float>(v); });
        case CUDNN_DATA_BOOLEAN: return replace(x, n, [](T v) { return v != 0; });
        case CUDNN_DATA_INT32:
        case CUDNN_DATA_INT64: return replace(x, n, [](T v) { return std::trunc(v); });
        case CUDNN_DATA_INT8: return replace(x, n, [](T v) { return convert<int8_t>(v); });
        case CUDNN_DATA_UINT8: return replace(x, n, [](T v) { return convert<uint8_t>(v); });
    }
}
template void round_to<float>(int, float*, int64_t);
template void round_to<double>(int, double*, int64_t);

template <class T>
const std::vector<T>& Interpreter<T>::value(const TensorPtr& tensor) {
    auto [found, is_new] = values_.try_emplace(tensor->uid);
    if (!is_new) return found->second;
    if (tensor->is_constant) {
        found->second = {static_cast<T>(tensor->constant)};
    } else if (tensor->is_by_value) {
        found->second = {static_cast<T>(launch_.scalars.at(tensor->uid))};
    } else {
        found->second = load<T>(*tensor, launch_.pointers.at(tensor->uid));
    }
    return found->second;
}

template <class T>
void Interpreter<T>::set(const TensorPtr& tensor, Array x) {
    round_to(tensor->data_type, x.data(), static_cast<int64_t>(x.size()));
    if (!tensor->is_virtual) store(*tensor, launch_.pointers.at(tensor->uid), x);
    values_[tensor->uid] = std::move(x);
}

template <class T>
Sizes Interpreter<T>::lengths(const Operation& operation, const char* name, int64_t n, int64_t most) {
    Sizes all(n, most);
    if (!operation.has(name)) return all;
    const Array& given = input(operation, name);
    for (int64_t i = 0; i < n; i++) {
        all[i] = static_cast<int64_t>(given[given.size() == 1 ? 0 : i]);
        if (all[i] >= 0 && all[i] <= most) continue;
        remark("run", "a length ", all[i], ", where there are ", most);
        all[i] = all[i] < 0 ? 0 : most;
    }
    return all;
}

template <class T>
Rounding Interpreter<T>::rounding() const {
    if (graph_.data_type != CUDNN_DATA_FLOAT || graph_.is_double) return Rounding::NONE;
    switch (launch_.plan->engine.index) {
        case TENSOR_CORES: return Rounding::TF32;
        case CONVERTING: return Rounding::BFLOAT16;
    }
    return Rounding::NONE;
}

template <class T>
void Interpreter<T>::run() {
    for (const OperationPtr& operation : graph_.operations)
        run(*operation);
}

template <class T>
void Interpreter<T>::run(const Operation& operation) {
    switch (operation.type) {
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR: return convolution(operation);
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR: return backward_data(operation);
        case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: return pointwise(operation);
        case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR: return matmul(operation);
        case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR: return reduction(operation);
        case CUDNN_BACKEND_OPERATION_SOFTMAX_DESCRIPTOR: return softmax(operation);
        case CUDNN_BACKEND_OPERATION_DIAGONAL_BAND_MASK_DESCRIPTOR: return band_mask(operation);
        case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR: return attention(operation);
    }
}

template class Interpreter<float>;
template class Interpreter<double>;

void run(const Launch& launch) {
    const Plan& plan = *launch.plan;
    const Graph& graph = *plan.engine.graph;
    // since 9.28 graphs keep what they need of a plan (cudnnCudaGraphRetention_t in cudnn_graph.h)
    if (launch.is_captured && !plan.is_alive && version() < 92800)
        remark("run", "a CUDA graph replays ", plan.name, ", whose plan was destroyed");
    auto spoil_workspace = [&] {
        if (plan.workspace_nbytes) memset(launch.workspace, 0xA5, plan.workspace_nbytes);
    };
    spoil_workspace();
    if (graph.is_double) {
        Interpreter<double>(graph, launch).run();
    } else {
        Interpreter<float>(graph, launch).run();
    }
    spoil_workspace();
}

}  // namespace cudnn
}  // namespace cuda_on_cpu
