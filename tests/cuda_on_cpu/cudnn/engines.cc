// Engines, the heuristics that name them, and plans. What cuDNN's engines really do is its own secret: these differ in
// what a caller must be ready for (rounding, notes, workspaces, refusals), and refuse what the documentation says isn't
// supported.
#include "descriptors.h"
#include "report.h"

namespace cuda_on_cpu::cudnn {

namespace {

// [N, C, …], or [N, …, C], without gaps
bool is_packed(const Tensor& tensor) {
    size_t rank = tensor.dims.size();
    auto is_dense = [&](const std::vector<size_t>& axes) {  // from the innermost on
        int64_t stride = 1;
        for (size_t axis : axes) {
            if (tensor.dims[axis] != 1 && tensor.strides[axis] != stride) return false;
            stride *= tensor.dims[axis];
        }
        return true;
    };
    std::vector<size_t> channels_first, channels_last{1};
    for (size_t axis = rank; axis-- > 0;)
        channels_first.push_back(axis);
    for (size_t axis = rank; axis-- > 2;)
        channels_last.push_back(axis);
    channels_last.push_back(0);
    return is_dense(channels_first) || is_dense(channels_last);
}

std::string unsupported_convolution(const Graph& graph) {
    if (!graph.operations[0]->is_convolution()) return "the convolution isn't the first operation";
    if (graph.is_double && graph.operations.size() > 1) return "no operations after one of float64";
    for (auto& [uid, tensor] : graph.tensors) {
        bool is_image = !tensor->is_virtual && !tensor->is_by_value && tensor->dims.size() >= 4;
        if (is_image && !is_packed(*tensor))
            return text_of(*tensor, " is neither packed nor packed with channels last");
    }
    return "";
}

std::string unsupported_attention(const Graph& graph) {
    if (graph.data_type != CUDNN_DATA_HALF && graph.data_type != CUDNN_DATA_BFLOAT16)
        return "attention of float16 and bfloat16 alone";
    for (const OperationPtr& operation : graph.operations) {
        if (operation->type != CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR &&
            operation->type != CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR)
            continue;
        for (auto* tensors : {&operation->inputs, &operation->outputs}) {
            for (auto& [name, tensor] : *tensors) {
                if (tensor->is_virtual || tensor->data_type != graph.data_type) continue;
                for (size_t i = 0; i < tensor->dims.size(); i++) {
                    if (tensor->dims[i] > 1 && tensor->strides[i] != 1 && tensor->strides[i] % 8)
                        return text_of(*tensor, ": strides that aren't multiples of 16 bytes");
                }
                // a product's operands may be transposed
                bool is_by_heads = name != "a" && name != "b";
                if (is_by_heads && tensor->dims.back() % 8)
                    return text_of(*tensor, ": a head's size isn't a multiple of 8");
            }
        }
    }
    return "";
}

}  // namespace

int64_t workspace_nbytes(const Engine& engine) {
    int64_t n = 0;
    for (int64_t uid : engine.graph->written)
        n += engine.graph->tensors.at(uid)->size();
    switch (engine.index) {
        case TENSOR_CORES: return 4096 + n * 4;
        case PLAIN: return 512 + n;
        case CONVERTING: return 1024;
        case LARGE_WORKSPACE: return 40 << 20;
    }
    return 0;
}

std::vector<int64_t> numerical_notes(const Engine& engine) {
    switch (engine.index) {
        case TENSOR_CORES: return {CUDNN_NUMERICAL_NOTE_TENSOR_CORE};
        case CONVERTING: return {CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS};
        case LARGE_WORKSPACE: return {CUDNN_NUMERICAL_NOTE_FFT};
    }
    return {};
}

std::string unsupported(const Engine& engine) {
    const Graph& graph = *engine.graph;
    if (is_declined("all")) return "declined: all";
    if (graph.is_convolution && graph.operations.size() > 1 && is_declined("epilogue")) return "declined: epilogue";
    if (graph.is_convolution && is_declined("conv")) return "declined: conv";
    if (graph.is_attention && is_declined("attention")) return "declined: attention";
    bool is_converting = engine.index == CONVERTING;
    if (graph.is_double && (engine.index == TENSOR_CORES || is_converting)) return "no tensor cores for float64";
    if (is_converting && (graph.data_type != CUDNN_DATA_FLOAT || is_declined("convert"))) return "nothing to convert";
    if (engine.index == LARGE_WORKSPACE && !graph.is_convolution) return "convolutions alone";
    std::string why;
    if (graph.is_convolution) why = unsupported_convolution(graph);
    if (why.empty() && graph.is_attention) why = unsupported_attention(graph);
    return why;
}

cudnnStatus_t finalize_engine(Descriptor& descriptor) {
    const char* where = "finalize of an engine";
    if (descriptor.lacking({CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_ATTR_ENGINE_GLOBAL_INDEX}))
        return bad(where, "graph or index isn't set");
    Engine engine;
    engine.graph = descriptor.descriptor(CUDNN_ATTR_ENGINE_OPERATION_GRAPH)->graph;
    engine.index = static_cast<int>(descriptor.get<int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX));
    if (engine.index < 0 || engine.index >= N_ENGINES) return bad(where, "index ", engine.index);
    std::string why = unsupported(engine);
    if (!why.empty()) return decline(CUDNN_STATUS_NOT_SUPPORTED, where, "engine ", engine.index, ": ", why);
    descriptor.engine = engine;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_engine_configuration(Descriptor& descriptor) {
    if (!descriptor.has(CUDNN_ATTR_ENGINECFG_ENGINE))
        return bad("finalize of an engine's configuration", "its engine isn't set");
    descriptor.engine = descriptor.descriptor(CUDNN_ATTR_ENGINECFG_ENGINE)->engine;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_heuristics(Descriptor& descriptor) {
    const char* where = "finalize of heuristics";
    if (descriptor.lacking({CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_ATTR_ENGINEHEUR_MODE}))
        return bad(where, "graph or mode isn't set");
    GraphPtr graph = descriptor.descriptor(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)->graph;
    if (!graph->handle && !descriptor.has(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP))
        return bad(where, "neither a handle nor a device");
    int mode = descriptor.get<int>(CUDNN_ATTR_ENGINEHEUR_MODE);
    std::vector<int> order = {CONVERTING, TENSOR_CORES, LARGE_WORKSPACE, PLAIN};
    if (mode == CUDNN_HEUR_MODE_FALLBACK) {
        order = {NO_WORKSPACE, PLAIN};
    } else if (graph->data_type != CUDNN_DATA_FLOAT) {
        order = {TENSOR_CORES, LARGE_WORKSPACE, PLAIN};
    } else if (mode == CUDNN_HEUR_MODE_B) {
        order = {LARGE_WORKSPACE, TENSOR_CORES, CONVERTING, PLAIN};
    }
    std::string last;
    for (int index : order) {
        Engine engine{graph, index};
        std::string why = unsupported(engine);
        if (!why.empty()) {
            last = why;
            continue;
        }
        auto made = std::make_shared<Descriptor>();
        made->type = CUDNN_BACKEND_ENGINE_DESCRIPTOR;
        made->is_finalized = true;
        made->engine = engine;
        auto configuration = std::make_shared<Descriptor>();
        configuration->type = CUDNN_BACKEND_ENGINECFG_DESCRIPTOR;
        configuration->is_finalized = true;
        configuration->engine = engine;
        configuration->attributes[CUDNN_ATTR_ENGINECFG_ENGINE] = {CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, {}, {made}};
        descriptor.results.push_back(configuration);
    }
    if (descriptor.results.empty())
        return decline(CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN, where, "no engine: ", last);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t finalize_plan(Descriptor& descriptor) {
    const char* where = "finalize of a plan";
    if (!descriptor.has(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)) return bad(where, "its engine isn't set");
    auto plan = std::make_shared<Plan>();
    plan->engine = *descriptor.descriptor(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)->engine;
    if (is_declined("plans") || (is_declined("plan0") && plan->engine.index == TENSOR_CORES))
        return decline(CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED, where, "declined: plans");
    plan->workspace_nbytes = workspace_nbytes(plan->engine);
    plan->name = text_of("engine ", plan->engine.index, " for");
    for (const OperationPtr& operation : plan->engine.graph->operations)
        plan->name += text_of(" ", operation->type, "/", operation->mode);
    descriptor.plan = plan;
    return CUDNN_STATUS_SUCCESS;
}

}  // namespace cuda_on_cpu::cudnn
