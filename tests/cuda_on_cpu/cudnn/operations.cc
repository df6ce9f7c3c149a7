// Convolutions, pointwise operations, products and reductions: what their descriptors must say, and that their tensors
// fit each other.
#include <algorithm>
#include <limits>

#include "descriptors.h"
#include "report.h"

namespace cuda_on_cpu::cudnn {

namespace {

struct ConvolutionAttributes {
    int alpha, beta, parameters, weights, image, result;
};
constexpr ConvolutionAttributes FORWARD = {
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
};
constexpr ConvolutionAttributes BACKWARD_DATA = {
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
};

// image [N, C·groups, …] and weights [K, C, …] give result [N, K, …]
bool is_convolution_of(const Operation& operation, const Sizes& image, const Sizes& weights, const Sizes& result) {
    if (image[0] != result[0] || weights[0] != result[1] || image[1] % weights[1]) return false;
    int64_t n_groups = image[1] / weights[1];
    if (weights[0] % n_groups) return false;
    for (size_t i = 2; i < image.size(); i++) {
        int64_t window = (weights[i] - 1) * operation.dilations[i - 2] + 1;
        int64_t padded = image[i] + operation.pads_before[i - 2] + operation.pads_after[i - 2];
        if (padded < window || (padded - window) / operation.steps[i - 2] + 1 != result[i]) return false;
    }
    return true;
}

int n_operands(int mode) {
    switch (mode) {
        case CUDNN_POINTWISE_BINARY_SELECT: return 3;
        case CUDNN_POINTWISE_ADD:
        case CUDNN_POINTWISE_ADD_SQUARE:
        case CUDNN_POINTWISE_DIV:
        case CUDNN_POINTWISE_MAX:
        case CUDNN_POINTWISE_MIN:
        case CUDNN_POINTWISE_MOD:
        case CUDNN_POINTWISE_MUL:
        case CUDNN_POINTWISE_POW:
        case CUDNN_POINTWISE_SUB:
        case CUDNN_POINTWISE_ATAN2:
        case CUDNN_POINTWISE_FLOOR_MOD:
        case CUDNN_POINTWISE_CMP_EQ:
        case CUDNN_POINTWISE_CMP_NEQ:
        case CUDNN_POINTWISE_CMP_GT:
        case CUDNN_POINTWISE_CMP_GE:
        case CUDNN_POINTWISE_CMP_LT:
        case CUDNN_POINTWISE_CMP_LE:
        case CUDNN_POINTWISE_LOGICAL_AND:
        case CUDNN_POINTWISE_LOGICAL_OR: return 2;
    }
    return 1;
}

bool is_backward(int mode) {
    return mode >= CUDNN_POINTWISE_RELU_BWD && mode < CUDNN_POINTWISE_CMP_EQ;
}

}  // namespace

bool Operation::is_convolution() const {
    return type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR ||
           type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR;
}

cudnnStatus_t finalize_convolution(Descriptor& descriptor) {
    const char* where = "finalize of a convolution's parameters";
    auto lacking = descriptor.lacking({CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_ATTR_CONVOLUTION_CONV_MODE,
                                       CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES,
                                       CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS,
                                       CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS});
    if (lacking) return bad(where, "attribute ", *lacking, " isn't set");
    int64_t n = descriptor.get<int64_t>(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS);
    if (n < 1 || n > 3) return decline(CUDNN_STATUS_NOT_SUPPORTED, where, n, " spatial dimensions");
    auto operation = std::make_shared<Operation>();
    operation->steps = descriptor.list(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    operation->dilations = descriptor.list(CUDNN_ATTR_CONVOLUTION_DILATIONS);
    operation->pads_before = descriptor.list(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    operation->pads_after = descriptor.list(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    for (const Sizes* sizes :
         {&operation->steps, &operation->dilations, &operation->pads_before, &operation->pads_after}) {
        bool are_positive = sizes == &operation->steps || sizes == &operation->dilations;
        if (static_cast<int64_t>(sizes->size()) != n)
            return bad(where, sizes->size(), " numbers where there are ", n, " spatial dimensions");
        if (*std::min_element(sizes->begin(), sizes->end()) < (are_positive ? 1 : 0))
            return bad(where, "strides ", operation->steps, ", dilations ", operation->dilations, ", pads ",
                       operation->pads_before, " and ", operation->pads_after);
    }
    operation->is_flipped = descriptor.get<int>(CUDNN_ATTR_CONVOLUTION_CONV_MODE) == CUDNN_CONVOLUTION;
    operation->compute_type = descriptor.get<int>(CUDNN_ATTR_CONVOLUTION_COMP_TYPE);
    descriptor.operation = operation;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_convolution_operation(Descriptor& descriptor) {
    bool is_forward = descriptor.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR;
    const char* where = is_forward ? "finalize of a convolution" : "finalize of a convolution backward data";
    const ConvolutionAttributes& attributes = is_forward ? FORWARD : BACKWARD_DATA;
    auto lacking = descriptor.lacking({attributes.alpha, attributes.beta, attributes.parameters, attributes.weights,
                                       attributes.image, attributes.result});
    if (lacking) return bad(where, "attribute ", *lacking, " isn't set");
    auto operation = std::make_shared<Operation>(*descriptor.descriptor(attributes.parameters)->operation);
    operation->type = descriptor.type;
    operation->alpha = descriptor.number(attributes.alpha, 1);
    double beta = descriptor.number(attributes.beta, 0);
    if (beta != 0) return decline(CUDNN_STATUS_NOT_SUPPORTED, where, "beta ", beta);
    TensorPtr weights = descriptor.tensor_of(attributes.weights);
    TensorPtr image = descriptor.tensor_of(attributes.image);
    TensorPtr result = descriptor.tensor_of(attributes.result);
    size_t rank = operation->steps.size() + 2;
    if (image->dims.size() != rank || weights->dims.size() != rank || result->dims.size() != rank)
        return bad(where, *image, ", ", *weights, " and ", *result, " where there are ", rank - 2,
                   " spatial dimensions");
    if (!is_convolution_of(*operation, image->dims, weights->dims, result->dims))
        return bad(where, "no convolution: ", *image, " with ", *weights, " to ", *result, ", strides ",
                   operation->steps, ", dilations ", operation->dilations, ", pads ", operation->pads_before, " and ",
                   operation->pads_after);
    operation->inputs = {{"w", weights}, {"x", is_forward ? image : result}};
    operation->outputs = {{"y", is_forward ? result : image}};
    descriptor.operation = operation;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_pointwise(Descriptor& descriptor) {
    const char* where = "finalize of a pointwise operation's parameters";
    if (descriptor.lacking({CUDNN_ATTR_POINTWISE_MODE, CUDNN_ATTR_POINTWISE_MATH_PREC}))
        return bad(where, "mode or math precision isn't set");
    auto operation = std::make_shared<Operation>();
    operation->mode = descriptor.get<int>(CUDNN_ATTR_POINTWISE_MODE);
    operation->compute_type = descriptor.get<int>(CUDNN_ATTR_POINTWISE_MATH_PREC);
    double largest = operation->compute_type == CUDNN_DATA_DOUBLE ? std::numeric_limits<double>::max()
                                                                  : std::numeric_limits<float>::max();
    operation->lower_clip = descriptor.number(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP, 0);
    operation->lower_clip_slope = descriptor.number(CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, 0);
    operation->upper_clip = descriptor.number(CUDNN_ATTR_POINTWISE_RELU_UPPER_CLIP, largest);
    operation->elu_alpha = descriptor.number(CUDNN_ATTR_POINTWISE_ELU_ALPHA, 1);
    operation->softplus_beta = descriptor.number(CUDNN_ATTR_POINTWISE_SOFTPLUS_BETA, 1);
    operation->swish_beta = descriptor.number(CUDNN_ATTR_POINTWISE_SWISH_BETA, 1);
    operation->axis = descriptor.get<int64_t>(CUDNN_ATTR_POINTWISE_AXIS, -1);
    if (!(operation->lower_clip <= operation->upper_clip))  // NaN neither
        return bad(where, "clips ", operation->lower_clip, " and ", operation->upper_clip);
    descriptor.operation = operation;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_pointwise_operation(Descriptor& descriptor) {
    const char* where = "finalize of a pointwise operation";
    if (!descriptor.has(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)) return bad(where, "its parameters aren't set");
    auto operation =
        std::make_shared<Operation>(*descriptor.descriptor(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)->operation);
    operation->type = descriptor.type;
    if (is_backward(operation->mode))
        return decline(CUDNN_STATUS_NOT_SUPPORTED, where, "mode ", operation->mode, ", backward");
    int n = n_operands(operation->mode);
    TensorPtr x = descriptor.tensor_of(CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
    TensorPtr b = descriptor.tensor_of(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    TensorPtr t = descriptor.tensor_of(CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
    TensorPtr y = descriptor.tensor_of(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    if (!x || !y || (n > 1) != bool(b) || (n > 2) != bool(t))
        return bad(where, "mode ", operation->mode, " has ", n, " operands; x ", bool(x), ", b ", bool(b), ", t ",
                   bool(t), ", y ", bool(y), " are set");
    if (descriptor.has(CUDNN_ATTR_OPERATION_POINTWISE_DXDESC) || descriptor.has(CUDNN_ATTR_OPERATION_POINTWISE_DYDESC))
        return bad(where, "dx or dy of a forward mode");
    operation->alpha = descriptor.number(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, 1);
    operation->alpha2 = descriptor.number(CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, 1);
    operation->inputs["x"] = x;
    if (b) operation->inputs["b"] = b;
    if (t) operation->inputs["t"] = t;
    operation->outputs["y"] = y;

    int64_t rank = static_cast<int64_t>(y->dims.size());
    Sizes largest(rank, 1);
    for (auto& [name, input] : operation->inputs) {
        if (input->dims.size() != y->dims.size()) return bad(where, "ranks differ: ", *input, " and ", *y);
        for (int64_t axis = 0; axis < rank; axis++) {
            if (input->dims[axis] != 1 && input->dims[axis] != y->dims[axis])
                return bad(where, *input, " doesn't fit ", *y);
            largest[axis] = std::max(largest[axis], input->dims[axis]);
        }
    }
    if (operation->mode == CUDNN_POINTWISE_GEN_INDEX) {
        if (operation->axis < 0 || operation->axis >= rank) return bad(where, "axis ", operation->axis, " of ", rank);
    } else if (largest != y->dims) {
        return bad(where, "the result ", *y, " is larger than its operands");
    }
    descriptor.operation = operation;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_matmul_operation(Descriptor& descriptor) {
    const char* where = "finalize of a matmul";
    auto lacking = descriptor.lacking({CUDNN_ATTR_OPERATION_MATMUL_ADESC, CUDNN_ATTR_OPERATION_MATMUL_BDESC,
                                       CUDNN_ATTR_OPERATION_MATMUL_CDESC, CUDNN_ATTR_OPERATION_MATMUL_DESC});
    if (lacking) return bad(where, "attribute ", *lacking, " isn't set");
    auto operation = std::make_shared<Operation>();
    operation->type = descriptor.type;
    DescriptorPtr parameters = descriptor.descriptor(CUDNN_ATTR_OPERATION_MATMUL_DESC);
    if (!parameters->has(CUDNN_ATTR_MATMUL_COMP_TYPE)) return bad(where, "its compute type isn't set");
    operation->compute_type = parameters->get<int>(CUDNN_ATTR_MATMUL_COMP_TYPE);
    operation->padding = parameters->number(CUDNN_ATTR_MATMUL_PADDING_VALUE, 0);
    TensorPtr a = descriptor.tensor_of(CUDNN_ATTR_OPERATION_MATMUL_ADESC);
    TensorPtr b = descriptor.tensor_of(CUDNN_ATTR_OPERATION_MATMUL_BDESC);
    TensorPtr c = descriptor.tensor_of(CUDNN_ATTR_OPERATION_MATMUL_CDESC);
    size_t rank = c->dims.size();
    bool fits = rank >= 2 && a->dims.size() == rank && b->dims.size() == rank &&
                a->dims[rank - 2] == c->dims[rank - 2] && a->dims[rank - 1] == b->dims[rank - 2] &&
                b->dims[rank - 1] == c->dims[rank - 1];
    for (size_t i = 0; fits && i + 2 < rank; i++)
        fits = c->dims[i] % a->dims[i] == 0 && c->dims[i] % b->dims[i] == 0;
    if (!fits) return bad(where, "no product: ", *a, " by ", *b, " as ", *c);
    operation->inputs = {{"a", a}, {"b", b}};
    operation->outputs = {{"y", c}};
    const std::pair<const char*, int> lengths[] = {
        {"m_lengths", CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC},
        {"n_lengths", CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC},
        {"k_lengths", CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC},
    };
    for (auto [name, attribute] : lengths) {
        TensorPtr found = descriptor.tensor_of(attribute);
        if (!found) continue;
        if (!is_integer(found->data_type) || found->size() != c->dims[0] || found->dims[0] != c->dims[0])
            return bad(where, "lengths ", *found, " for ", *c);
        operation->inputs[name] = found;
    }
    descriptor.operation = operation;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_reduction_operation(Descriptor& descriptor) {
    const char* where = "finalize of a reduction";
    auto lacking = descriptor.lacking({CUDNN_ATTR_OPERATION_REDUCTION_XDESC, CUDNN_ATTR_OPERATION_REDUCTION_YDESC,
                                       CUDNN_ATTR_OPERATION_REDUCTION_DESC});
    if (lacking) return bad(where, "attribute ", *lacking, " isn't set");
    DescriptorPtr parameters = descriptor.descriptor(CUDNN_ATTR_OPERATION_REDUCTION_DESC);
    if (parameters->lacking({CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_ATTR_REDUCTION_COMP_TYPE}))
        return bad(where, "operator or compute type isn't set");
    auto operation = std::make_shared<Operation>();
    operation->type = descriptor.type;
    operation->mode = parameters->get<int>(CUDNN_ATTR_REDUCTION_OPERATOR);
    operation->compute_type = parameters->get<int>(CUDNN_ATTR_REDUCTION_COMP_TYPE);
    TensorPtr x = descriptor.tensor_of(CUDNN_ATTR_OPERATION_REDUCTION_XDESC);
    TensorPtr y = descriptor.tensor_of(CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
    bool fits = x->dims.size() == y->dims.size();
    for (size_t i = 0; fits && i < x->dims.size(); i++)
        fits = y->dims[i] == 1 || y->dims[i] == x->dims[i];
    if (!fits) return bad(where, *x, " to ", *y);
    operation->inputs = {{"x", x}};
    operation->outputs = {{"y", y}};
    descriptor.operation = operation;
    return CUDNN_STATUS_SUCCESS;
}

}  // namespace cuda_on_cpu::cudnn
