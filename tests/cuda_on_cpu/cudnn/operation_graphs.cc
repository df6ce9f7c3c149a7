// Operation graphs: that one operation gives each virtual tensor, that each tensor is the same wherever it is used,
// that all of it hangs together. Its operations are put in an order in which they can be run.
#include <numeric>
#include <utility>

#include "descriptors.h"
#include "report.h"

namespace cuda_on_cpu::cudnn {

namespace {

constexpr const char* where = "finalize of a graph";

cudnnStatus_t note(Graph& graph, const TensorPtr& tensor) {
    TensorPtr& known = graph.tensors[tensor->uid];
    if (known && !(*known == *tensor)) return bad(where, *tensor, " is also ", *known);
    known = tensor;
    return CUDNN_STATUS_SUCCESS;
}

// The graph's tensors and kind; `produced` are the uids of all results.
cudnnStatus_t collect(Graph& graph, const std::vector<OperationPtr>& operations, std::set<int64_t>& produced) {
    int n_products = 0;
    for (const OperationPtr& operation : operations) {
        for (auto& [name, input] : operation->inputs) {
            if (cudnnStatus_t status = note(graph, input)) return status;
        }
        for (auto& [name, output] : operation->outputs) {
            if (cudnnStatus_t status = note(graph, output)) return status;
            if (output->is_by_value) return bad(where, "a result by value: ", *output);
            if (!produced.insert(output->uid).second) return bad(where, "two operations give ", *output);
            if (!output->is_virtual) graph.written.insert(output->uid);
        }
        if (operation->score_graph) {
            for (auto& [uid, tensor] : operation->score_graph->tensors) {
                if (tensor->is_virtual) continue;
                if (cudnnStatus_t status = note(graph, tensor)) return status;
            }
        }
        n_products += operation->type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR;
        graph.is_attention |= operation->type == CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR;
        graph.is_convolution |= operation->is_convolution();
        graph.is_double |= operation->compute_type == CUDNN_DATA_DOUBLE;
    }
    graph.is_attention |= n_products == 2;  // as the frontend builds it of single operations
    return CUDNN_STATUS_SUCCESS;
}

// A graph of an attention's scores has no handle. One of its virtual tensors, the scores, comes from outside.
cudnnStatus_t check_producers(Graph& graph, const std::set<int64_t>& produced) {
    bool is_of_scores = !graph.handle;
    int n_lacking = 0;
    for (auto& [uid, tensor] : graph.tensors) {
        graph.is_double |= tensor->data_type == CUDNN_DATA_DOUBLE;
        if (!tensor->is_virtual) {
            if (!tensor->is_constant) graph.needed.insert(uid);
        } else if (!produced.count(uid)) {
            if (!is_of_scores) return bad(where, "nothing gives ", *tensor);
            n_lacking++;
        }
    }
    if (n_lacking > 1) return bad(where, "nothing gives ", n_lacking, " virtual tensors of a graph without a handle");
    if (graph.written.empty() && !is_of_scores) return bad(where, "it has no result");
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t sort(Graph& graph, std::vector<OperationPtr> waiting, const std::set<int64_t>& produced) {
    std::set<int64_t> ready;
    while (!waiting.empty()) {
        std::vector<OperationPtr> still;
        for (const OperationPtr& operation : waiting) {
            bool can_run = true;
            for (auto& [name, input] : operation->inputs)
                can_run &= !produced.count(input->uid) || ready.count(input->uid);
            if (!can_run) {
                still.push_back(operation);
                continue;
            }
            for (auto& [name, output] : operation->outputs)
                ready.insert(output->uid);
            graph.operations.push_back(operation);
        }
        if (still.size() == waiting.size()) return bad(where, "operations wait for each other");
        waiting = std::move(still);
    }
    return CUDNN_STATUS_SUCCESS;
}

// Operations that share a tensor are of one piece.
bool is_in_one_piece(const Graph& graph) {
    std::vector<size_t> parents(graph.operations.size());
    std::iota(parents.begin(), parents.end(), 0);
    auto root = [&](size_t i) {
        while (parents[i] != i)
            i = parents[i];
        return i;
    };
    std::map<int64_t, size_t> user;  // of a tensor
    for (size_t i = 0; i < parents.size(); i++) {
        for (auto* tensors : {&graph.operations[i]->inputs, &graph.operations[i]->outputs}) {
            for (auto& [name, tensor] : *tensors) {
                if (tensor->is_by_value) continue;
                auto [found, is_new] = user.emplace(tensor->uid, i);
                if (!is_new) parents[root(i)] = root(found->second);
            }
        }
    }
    for (size_t i = 1; i < parents.size(); i++) {
        if (root(i) != root(0)) return false;
    }
    return true;
}

}  // namespace

cudnnStatus_t finalize_operation_graph(Descriptor& descriptor) {
    if (!descriptor.has(CUDNN_ATTR_OPERATIONGRAPH_OPS)) return bad(where, "it has no operations");
    if (descriptor.get<bool>(CUDNN_ATTR_OPERATIONGRAPH_IS_DYNAMIC_SHAPE_ENABLED) ||
        descriptor.get<bool>(CUDNN_ATTR_OPERATIONGRAPH_IS_OVERRIDE_SHAPE_ENABLED))
        return decline(CUDNN_STATUS_NOT_SUPPORTED, where, "dynamic shapes aren't done here");
    auto graph = std::make_shared<Graph>();
    graph->handle = descriptor.get<void*>(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, nullptr);
    // since 9.8 a graph may be built for a device's properties instead
    if (!graph->handle && version() < 90800) return bad(where, "it has no handle");
    std::vector<OperationPtr> operations;
    for (const DescriptorPtr& given : descriptor.attributes.at(CUDNN_ATTR_OPERATIONGRAPH_OPS).descriptors) {
        if (!given->operation || !given->operation->type)
            return bad(where, "a descriptor of type ", given->type, " is no operation");
        operations.push_back(given->operation);
    }
    std::set<int64_t> produced;
    if (cudnnStatus_t status = collect(*graph, operations, produced)) return status;
    if (cudnnStatus_t status = check_producers(*graph, produced)) return status;
    if (cudnnStatus_t status = sort(*graph, operations, produced)) return status;
    if (!is_in_one_piece(*graph)) return bad(where, "it falls into pieces");
    const Operation& first = *graph->operations[0];
    for (const char* name : {"q", "x", "a"}) {
        if (first.has(name)) graph->data_type = first.inputs.at(name)->data_type;
    }
    descriptor.graph = graph;
    return CUDNN_STATUS_SUCCESS;
}

}  // namespace cuda_on_cpu::cudnn
