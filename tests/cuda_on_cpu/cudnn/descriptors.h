// Descriptors of the backend API: attributes that are checked when they are set, and what finalizing makes of them.
#pragma once

#include <cuda_runtime_api.h>
#include <cudnn_graph.h>

#include <cstring>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "graph.h"

struct cudnnContext {
    cudaStream_t stream;
    int device;
};

namespace cuda_on_cpu::cudnn {

struct Descriptor;
using DescriptorPtr = std::shared_ptr<Descriptor>;

struct Value {
    int type = -1;
    int64_t count = 0;
    std::vector<char> bytes;
    std::vector<DescriptorPtr> descriptors;  // of type CUDNN_TYPE_BACKEND_DESCRIPTOR
};

struct Descriptor {
    int type = 0;
    bool is_finalized = false;
    std::map<int, Value> attributes;
    // what it is once it is finalized, by its type
    TensorPtr tensor;
    OperationPtr operation;
    GraphPtr graph;
    std::optional<Engine> engine;
    PlanPtr plan;
    std::vector<DescriptorPtr> results;  // of heuristics

    bool has(int attribute) const { return attributes.count(attribute) > 0; }
    // the first of these that isn't set
    std::optional<int> lacking(std::initializer_list<int> required) const;
    Sizes list(int attribute) const;
    // a float or a double
    double number(int attribute, double otherwise) const;
    DescriptorPtr descriptor(int attribute) const;
    TensorPtr tensor_of(int attribute) const;

    template <class T>
    T get(int attribute, T otherwise = T()) const {
        auto found = attributes.find(attribute);
        if (found == attributes.end()) return otherwise;
        T value;
        memcpy(&value, found->second.bytes.data(), sizeof value);
        return value;
    }
};

// What a cudnnBackendDescriptor_t points to. Queries make it another descriptor.
struct Reference {
    DescriptorPtr descriptor;
};
// null where it is no descriptor
Reference* reference_of(const void* pointer);
bool is_handle(const void* pointer);

// Which values an attribute takes.
struct Rule {
    int type, other_type;
    int64_t least_count, most_count;
    int since;            // version
    int descriptor_type;  // or ANY
};
constexpr int ANY = -1;
using Rules = std::map<int, Rule>;
// by types of descriptors, those that are done here
const std::map<int, Rules>& attribute_rules();

cudnnStatus_t finalize_tensor(Descriptor& descriptor);
cudnnStatus_t finalize_convolution(Descriptor& descriptor);
cudnnStatus_t finalize_convolution_operation(Descriptor& descriptor);
cudnnStatus_t finalize_pointwise(Descriptor& descriptor);
cudnnStatus_t finalize_pointwise_operation(Descriptor& descriptor);
cudnnStatus_t finalize_matmul_operation(Descriptor& descriptor);
cudnnStatus_t finalize_reduction_operation(Descriptor& descriptor);
cudnnStatus_t finalize_softmax_operation(Descriptor& descriptor);
cudnnStatus_t finalize_band_mask_operation(Descriptor& descriptor);
cudnnStatus_t finalize_attention_operation(Descriptor& descriptor);
cudnnStatus_t finalize_operation_graph(Descriptor& descriptor);
cudnnStatus_t finalize_engine(Descriptor& descriptor);
cudnnStatus_t finalize_engine_configuration(Descriptor& descriptor);
cudnnStatus_t finalize_heuristics(Descriptor& descriptor);
cudnnStatus_t finalize_plan(Descriptor& descriptor);
cudnnStatus_t finalize_variant_pack(Descriptor& descriptor);

}  // namespace cuda_on_cpu::cudnn
