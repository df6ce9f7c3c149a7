// Tensors: numbers of elements, how they are written in messages, and what their descriptors must say.
#include <algorithm>
#include <utility>

#include "../libraries/numbers.h"
#include "descriptors.h"
#include "report.h"

namespace cuda_on_cpu::cudnn {

namespace {

const char* type_name(int data_type) {
    switch (data_type) {
        case CUDNN_DATA_FLOAT: return "FLOAT";
        case CUDNN_DATA_INT32: return "INT32";
        case CUDNN_DATA_DOUBLE: return "DOUBLE";
        case CUDNN_DATA_INT64: return "INT64";
        case CUDNN_DATA_HALF: return "HALF";
        case CUDNN_DATA_BFLOAT16: return "BFLOAT16";
        case CUDNN_DATA_INT8: return "INT8";
        case CUDNN_DATA_UINT8: return "UINT8";
        case CUDNN_DATA_BOOLEAN: return "BOOLEAN";
    }
    return "a type that isn't done here";
}

// Whether two elements have one address.
bool overlaps_itself(const Tensor& tensor) {
    std::vector<std::pair<int64_t, int64_t>> axes;  // stride, dimension
    for (size_t i = 0; i < tensor.dims.size(); i++) {
        if (tensor.dims[i] > 1) axes.emplace_back(tensor.strides[i], tensor.dims[i]);
    }
    std::sort(axes.begin(), axes.end());
    int64_t last = 0;
    for (auto [stride, dim] : axes) {
        if (stride <= last) return true;
        last += stride * (dim - 1);
    }
    return false;
}

}  // namespace

std::ostream& operator<<(std::ostream& stream, const Sizes& sizes) {
    stream << "[";
    for (size_t i = 0; i < sizes.size(); i++)
        stream << (i ? "," : "") << sizes[i];
    return stream << "]";
}

std::ostream& operator<<(std::ostream& stream, const Tensor& tensor) {
    const char* kind = tensor.is_virtual ? "virtual " : tensor.is_by_value ? "by value " : "";
    return stream << "tensor " << tensor.uid << " (" << kind << type_name(tensor.data_type) << " " << tensor.dims
                  << ", strides " << tensor.strides << ")";
}

int element_nbytes(int data_type) {
    switch (data_type) {
        case CUDNN_DATA_INT8:
        case CUDNN_DATA_UINT8:
        case CUDNN_DATA_BOOLEAN: return 1;
        case CUDNN_DATA_HALF:
        case CUDNN_DATA_BFLOAT16: return 2;
        case CUDNN_DATA_FLOAT:
        case CUDNN_DATA_INT32: return 4;
        case CUDNN_DATA_DOUBLE:
        case CUDNN_DATA_INT64: return 8;
    }
    return 0;
}

double scalar_at(int data_type, const void* at) {
    switch (data_type) {
        case CUDNN_DATA_FLOAT: return *static_cast<const float*>(at);
        case CUDNN_DATA_DOUBLE: return *static_cast<const double*>(at);
        case CUDNN_DATA_INT32: return *static_cast<const int32_t*>(at);
        case CUDNN_DATA_INT64: return static_cast<double>(*static_cast<const int64_t*>(at));
        case CUDNN_DATA_HALF: return static_cast<double>(*static_cast<const _Float16*>(at));
        case CUDNN_DATA_BFLOAT16: return static_cast<float>(*static_cast<const BFloat16*>(at));
    }
    return 0;
}

bool is_integer(int data_type) {
    return data_type == CUDNN_DATA_INT32 || data_type == CUDNN_DATA_INT64;
}

int64_t Tensor::size() const {
    int64_t n = 1;
    for (int64_t dim : dims)
        n *= dim;
    return n;
}

int64_t Tensor::span() const {
    int64_t n = 1;
    for (size_t i = 0; i < dims.size(); i++)
        n += (dims[i] - 1) * strides[i];
    return n;
}

bool Tensor::lies_as(const Tensor& other) const {
    return data_type == other.data_type && dims == other.dims && strides == other.strides;
}

bool Tensor::operator==(const Tensor& other) const {
    return uid == other.uid && lies_as(other) && is_virtual == other.is_virtual && is_by_value == other.is_by_value &&
           alignment == other.alignment;
}

cudnnStatus_t finalize_tensor(Descriptor& descriptor) {
    const char* where = "finalize of a tensor";
    auto lacking =
        descriptor.lacking({CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT,
                            CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_ATTR_TENSOR_STRIDES});
    if (lacking) return bad(where, "attribute ", *lacking, " isn't set");
    auto made = std::make_shared<Tensor>();
    Tensor& tensor = *made;
    tensor.uid = descriptor.get<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
    tensor.data_type = descriptor.get<int>(CUDNN_ATTR_TENSOR_DATA_TYPE);
    tensor.alignment = descriptor.get<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
    tensor.dims = descriptor.list(CUDNN_ATTR_TENSOR_DIMENSIONS);
    tensor.strides = descriptor.list(CUDNN_ATTR_TENSOR_STRIDES);
    tensor.is_virtual = descriptor.get<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL);
    tensor.is_by_value = descriptor.get<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE);

    int nbytes = element_nbytes(tensor.data_type);
    if (!nbytes) return decline(CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, where, tensor, ": data type ", tensor.data_type);
    bool is_reordered = descriptor.get<int>(CUDNN_ATTR_TENSOR_REORDERING_MODE) != CUDNN_TENSOR_REORDERING_NONE;
    if (descriptor.has(CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC) || is_reordered)
        return decline(CUDNN_STATUS_NOT_SUPPORTED, where, tensor, ": ragged and reordered tensors aren't done here");
    if (tensor.dims.size() != tensor.strides.size())
        return bad(where, tensor, ": dimensions and strides differ in number");
    bool is_power_of_two = tensor.alignment > 0 && !(tensor.alignment & (tensor.alignment - 1));
    if (!is_power_of_two || tensor.alignment % nbytes) return bad(where, tensor, ": alignment ", tensor.alignment);
    if (tensor.is_virtual && tensor.is_by_value) return bad(where, tensor, " is virtual and by value");
    for (size_t i = 0; i < tensor.dims.size(); i++) {
        if (tensor.dims[i] < 1) return bad(where, tensor, ": a dimension below 1");
        if (tensor.strides[i] < 0) return bad(where, tensor, ": a negative stride");
        if (tensor.dims[i] > 1 && !tensor.strides[i]) return bad(where, tensor, ": stride 0 of a dimension above 1");
    }
    if (overlaps_itself(tensor)) return bad(where, tensor, ": elements lie on each other");
    if (tensor.is_by_value && tensor.size() != 1) return bad(where, tensor, ": more than one element by value");
    if (descriptor.has(CUDNN_ATTR_TENSOR_CONSTANT_VALUE)) {
        if (!tensor.is_by_value) return bad(where, tensor, ": a constant that isn't by value");
        tensor.is_constant = true;
        tensor.constant = descriptor.get<double>(CUDNN_ATTR_TENSOR_CONSTANT_VALUE);
    }
    descriptor.tensor = made;
    return CUDNN_STATUS_SUCCESS;
}

}  // namespace cuda_on_cpu::cudnn
