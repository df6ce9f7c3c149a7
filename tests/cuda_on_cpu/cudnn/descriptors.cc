// cudnnBackend…Descriptor, …SetAttribute, …GetAttribute, …Finalize.
#include "descriptors.h"

#include <algorithm>
#include <mutex>
#include <set>

#include "report.h"

namespace cuda_on_cpu::cudnn {

namespace {

std::mutex lock;
std::set<const void*> references;

// the newest of descriptors that the headers name
constexpr int LAST_TYPE = CUDNN_BACKEND_OPERATION_ROPE_BWD_DESCRIPTOR;

int since(int type) {
    switch (type) {
        case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR: return 90800;
        case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR: return 91300;
        case CUDNN_BACKEND_OPERATION_DIAGONAL_BAND_MASK_DESCRIPTOR:
        case CUDNN_BACKEND_OPERATION_SOFTMAX_DESCRIPTOR: return 92000;
    }
    return 0;
}

int64_t nbytes_of_type(int type) {
    switch (type) {
        case CUDNN_TYPE_BOOLEAN:
        case CUDNN_TYPE_CHAR: return 1;
        case CUDNN_TYPE_HANDLE:
        case CUDNN_TYPE_INT64:
        case CUDNN_TYPE_DOUBLE:
        case CUDNN_TYPE_VOID_PTR:
        case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        case CUDNN_TYPE_FRACTION: return 8;
    }
    return 4;
}

void* pointer_at(const void* values, int64_t i) {
    return static_cast<void* const*>(values)[i];
}

cudnnStatus_t finalize(Descriptor& descriptor) {
    switch (descriptor.type) {
        case CUDNN_BACKEND_TENSOR_DESCRIPTOR: return finalize_tensor(descriptor);
        case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR: return finalize_convolution(descriptor);
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
            return finalize_convolution_operation(descriptor);
        case CUDNN_BACKEND_POINTWISE_DESCRIPTOR: return finalize_pointwise(descriptor);
        case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR: return finalize_pointwise_operation(descriptor);
        case CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR: return finalize_matmul_operation(descriptor);
        case CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR: return finalize_reduction_operation(descriptor);
        case CUDNN_BACKEND_OPERATION_SOFTMAX_DESCRIPTOR: return finalize_softmax_operation(descriptor);
        case CUDNN_BACKEND_OPERATION_DIAGONAL_BAND_MASK_DESCRIPTOR: return finalize_band_mask_operation(descriptor);
        case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR: return finalize_attention_operation(descriptor);
        case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR: return finalize_operation_graph(descriptor);
        case CUDNN_BACKEND_ENGINE_DESCRIPTOR: return finalize_engine(descriptor);
        case CUDNN_BACKEND_ENGINECFG_DESCRIPTOR: return finalize_engine_configuration(descriptor);
        case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR: return finalize_heuristics(descriptor);
        case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: return finalize_plan(descriptor);
        case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR: return finalize_variant_pack(descriptor);
        case CUDNN_BACKEND_MATMUL_DESCRIPTOR:
        case CUDNN_BACKEND_REDUCTION_DESCRIPTOR:
        case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR:
        case CUDNN_BACKEND_KERNEL_CACHE_DESCRIPTOR:
        case CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR: return CUDNN_STATUS_SUCCESS;
    }
    return decline(CUDNN_STATUS_NOT_SUPPORTED, "finalize", "descriptors of type ", descriptor.type,
                   " aren't done here");
}

// The answer to one call of cudnnBackendGetAttribute.
struct Query {
    int attribute, type;
    int64_t n_requested;
    int64_t* count;
    void* values;

    cudnnStatus_t numbers(int wanted_type, const Sizes& found) const {
        if (type != wanted_type)
            return misuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "get", "attribute ", attribute, " is of type ",
                          wanted_type, ", not ", type);
        int64_t n = static_cast<int64_t>(found.size());
        if (count) *count = n;
        for (int64_t i = 0; values && i < std::min(n, n_requested); i++) {
            if (nbytes_of_type(type) == 8) {
                static_cast<int64_t*>(values)[i] = found[i];
            } else {
                static_cast<int32_t*>(values)[i] = static_cast<int32_t>(found[i]);
            }
        }
        return CUDNN_STATUS_SUCCESS;
    }

    // `values` are descriptors of the caller's, of the same type, which become these.
    cudnnStatus_t descriptors(const std::vector<DescriptorPtr>& found) const {
        if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR)
            return misuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "get", "attribute ", attribute, " is of descriptors");
        int64_t n = static_cast<int64_t>(found.size());
        if (values) n = std::min(n, n_requested);
        if (count) *count = n;
        for (int64_t i = 0; values && i < n; i++) {
            void* pointer = pointer_at(values, i);
            Reference* into = reference_of(pointer);
            if (!into) return bad("get", "attribute ", attribute, ": ", pointer, " is no descriptor");
            if (into->descriptor->type != found[i]->type)
                return misuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, "get", "attribute ", attribute,
                              " into a descriptor of type ", into->descriptor->type);
            into->descriptor = found[i];
        }
        return CUDNN_STATUS_SUCCESS;
    }

    cudnnStatus_t answer(const Descriptor& of) const {
        switch (attribute) {
            case CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT: return numbers(CUDNN_TYPE_INT64, {N_ENGINES});
            case CUDNN_ATTR_ENGINEHEUR_RESULTS: return descriptors(of.results);
            case CUDNN_ATTR_ENGINECFG_ENGINE:
            case CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG: return descriptors({of.descriptor(attribute)});
            case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES:
            case CUDNN_ATTR_ENGINE_KNOB_INFO: return descriptors({});
            case CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE: return numbers(CUDNN_TYPE_INT64, {workspace_nbytes(*of.engine)});
            case CUDNN_ATTR_ENGINECFG_SHARED_MEMORY_USED: return numbers(CUDNN_TYPE_INT32, {48 << 10});
            case CUDNN_ATTR_ENGINE_GLOBAL_INDEX: return numbers(CUDNN_TYPE_INT64, {of.engine->index});
            case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
                return numbers(CUDNN_TYPE_NUMERICAL_NOTE, numerical_notes(*of.engine));
            case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE:
                if (of.engine->index != TENSOR_CORES) return numbers(CUDNN_TYPE_BEHAVIOR_NOTE, {});
                return numbers(CUDNN_TYPE_BEHAVIOR_NOTE, {CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION});
            case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
                return numbers(CUDNN_TYPE_INT64, {of.plan->workspace_nbytes});
        }
        return refuse(of);
    }

    cudnnStatus_t refuse(const Descriptor& of) const {
        return decline(CUDNN_STATUS_NOT_SUPPORTED, "get", "attribute ", attribute, " of a descriptor of type ",
                       of.type);
    }
};

// Whose attribute of those that can be asked for it is.
int owner_of(int attribute) {
    switch (attribute) {
        case CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT: return CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR;
        case CUDNN_ATTR_ENGINEHEUR_RESULTS: return CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR;
        case CUDNN_ATTR_ENGINECFG_ENGINE:
        case CUDNN_ATTR_ENGINECFG_KNOB_CHOICES:
        case CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE:
        case CUDNN_ATTR_ENGINECFG_SHARED_MEMORY_USED: return CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
        case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
        case CUDNN_ATTR_ENGINE_KNOB_INFO:
        case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE: return CUDNN_BACKEND_ENGINE_DESCRIPTOR;
        case CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG:
        case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE: return CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR;
    }
    return ANY;
}

}  // namespace

Reference* reference_of(const void* pointer) {
    std::lock_guard<std::mutex> guard(lock);
    return references.count(pointer) ? static_cast<Reference*>(const_cast<void*>(pointer)) : nullptr;
}

std::optional<int> Descriptor::lacking(std::initializer_list<int> required) const {
    for (int attribute : required) {
        if (!has(attribute)) return attribute;
    }
    return std::nullopt;
}

Sizes Descriptor::list(int attribute) const {
    auto found = attributes.find(attribute);
    if (found == attributes.end()) return {};
    Sizes all(found->second.count);
    memcpy(all.data(), found->second.bytes.data(), sizeof(int64_t) * all.size());
    return all;
}

double Descriptor::number(int attribute, double otherwise) const {
    auto found = attributes.find(attribute);
    if (found == attributes.end()) return otherwise;
    return found->second.type == CUDNN_TYPE_FLOAT ? get<float>(attribute) : get<double>(attribute);
}

DescriptorPtr Descriptor::descriptor(int attribute) const {
    auto found = attributes.find(attribute);
    return found == attributes.end() ? nullptr : found->second.descriptors.at(0);
}

TensorPtr Descriptor::tensor_of(int attribute) const {
    DescriptorPtr found = descriptor(attribute);
    return found ? found->tensor : nullptr;
}

cudnnStatus_t finalize_variant_pack(Descriptor& descriptor) {
    const char* where = "finalize of a variant pack";
    auto lacking = descriptor.lacking(
        {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_ATTR_VARIANT_PACK_WORKSPACE});
    if (lacking) return bad(where, "uids, pointers or the workspace isn't set");
    Sizes uids = descriptor.list(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    if (uids.size() != descriptor.list(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS).size())
        return bad(where, "uids and pointers differ in number");
    if (std::set<int64_t>(uids.begin(), uids.end()).size() != uids.size()) return bad(where, "a uid twice");
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                                  cudnnBackendDescriptor_t* pointer) {
    if (!pointer) return misuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "create", "no place for the descriptor");
    if (static_cast<int>(type) < 0 || type > LAST_TYPE || since(type) > version())
        return misuse(CUDNN_STATUS_NOT_SUPPORTED, "create", "there are no descriptors of type ", static_cast<int>(type),
                      " in version ", version());
    auto* made = new Reference{std::make_shared<Descriptor>()};
    made->descriptor->type = type;
    *pointer = made;
    std::lock_guard<std::mutex> guard(lock);
    references.insert(made);
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t pointer) {
    Reference* reference = reference_of(pointer);
    if (!reference) return bad("destroy", pointer, " is no descriptor");
    if (reference->descriptor->plan && reference->descriptor.use_count() == 1)
        reference->descriptor->plan->is_alive = false;
    {
        std::lock_guard<std::mutex> guard(lock);
        references.erase(reference);
    }
    delete reference;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t pointer, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t count, const void* values) {
    const char* where = "set";
    const int attribute = name;
    Reference* reference = reference_of(pointer);
    if (!reference) return bad(where, pointer, " is no descriptor");
    Descriptor& descriptor = *reference->descriptor;
    if (descriptor.is_finalized)
        return misuse(CUDNN_STATUS_NOT_INITIALIZED, where, "attribute ", attribute,
                      " of a finalized descriptor of type ", descriptor.type);
    auto rules = attribute_rules().find(descriptor.type);
    if (rules == attribute_rules().end())
        return decline(CUDNN_STATUS_NOT_SUPPORTED, where, "descriptors of type ", descriptor.type, " aren't done here");
    auto found = rules->second.find(attribute);
    if (found == rules->second.end())
        return bad(where, "a descriptor of type ", descriptor.type, " has no attribute ", attribute,
                   " (or it isn't done here)");
    const Rule& rule = found->second;
    if (rule.since > version())
        return misuse(CUDNN_STATUS_NOT_SUPPORTED, where, "attribute ", attribute, " is since ", rule.since);
    if (type != rule.type && type != rule.other_type)
        return misuse(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, where, "attribute ", attribute, " is of type ", rule.type,
                      ", not ", static_cast<int>(type));
    if (count < rule.least_count || count > rule.most_count)
        return bad(where, "attribute ", attribute, " with ", count, " elements");
    if (!values && count)
        return misuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, where, "attribute ", attribute, " without values");

    Value value;
    value.type = type;
    value.count = count;
    const char* bytes = static_cast<const char*>(values);
    value.bytes.assign(bytes, bytes + count * nbytes_of_type(type));
    for (int64_t i = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < count; i++) {
        Reference* given = reference_of(pointer_at(values, i));
        if (!given) return bad(where, "attribute ", attribute, ": ", pointer_at(values, i), " is no descriptor");
        int given_type = given->descriptor->type;
        if (!given->descriptor->is_finalized)
            return misuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, where, "attribute ", attribute,
                          ": a descriptor of type ", given_type, " that isn't finalized");
        if (rule.descriptor_type != ANY && given_type != rule.descriptor_type)
            return misuse(CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE, where, "attribute ", attribute,
                          ": a descriptor of type ", given_type, ", not ", rule.descriptor_type);
        value.descriptors.push_back(given->descriptor);
    }
    if (type == CUDNN_TYPE_HANDLE && !is_handle(pointer_at(values, 0)))
        return bad(where, "attribute ", attribute, ": ", pointer_at(values, 0), " is no handle");
    if (attribute == CUDNN_ATTR_TENSOR_CONSTANT_VALUE) {
        // the address of a number, which is kept instead
        if (!descriptor.has(CUDNN_ATTR_TENSOR_DATA_TYPE)) return bad(where, "a constant before its data type");
        double number = scalar_at(descriptor.get<int>(CUDNN_ATTR_TENSOR_DATA_TYPE), pointer_at(values, 0));
        memcpy(value.bytes.data(), &number, sizeof number);
    }
    descriptor.attributes[attribute] = value;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t pointer) {
    Reference* reference = reference_of(pointer);
    if (!reference) return bad("finalize", pointer, " is no descriptor");
    Descriptor& descriptor = *reference->descriptor;
    if (descriptor.is_finalized) return bad("finalize", "a second time, of type ", descriptor.type);
    cudnnStatus_t status = finalize(descriptor);
    descriptor.is_finalized = status == CUDNN_STATUS_SUCCESS;
    return status;
}

EXPORT cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const pointer, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t n_requested, int64_t* count,
                                              void* values) {
    Reference* reference = reference_of(pointer);
    if (!reference) return bad("get", pointer, " is no descriptor");
    const Descriptor& descriptor = *reference->descriptor;
    if (!descriptor.is_finalized)
        return misuse(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "get", "attribute ", static_cast<int>(name),
                      " of a descriptor of type ", descriptor.type, " that isn't finalized");
    Query query{name, type, n_requested, count, values};
    return owner_of(name) == descriptor.type ? query.answer(descriptor) : query.refuse(descriptor);
}

}  // namespace cuda_on_cpu::cudnn
