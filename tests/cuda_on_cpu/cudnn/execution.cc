// cudnnBackendExecute: a variant pack is held against what the plan's graph needs, and the work is put on the handle's
// stream.
#include <atomic>

#include "descriptors.h"
#include "report.h"

namespace cuda_on_cpu::cudnn {

namespace {

constexpr const char* where = "execute";

std::atomic<int64_t> n_executions[N_ENGINES];

// Memory that an execution touches: a tensor's, or the workspace.
struct Range {
    char* begin;
    char* end;
    const Tensor* tensor;  // null: the workspace
    bool is_written;
};

std::ostream& operator<<(std::ostream& stream, const Range& range) {
    return range.tensor ? stream << *range.tensor : stream << "the workspace";
}

bool is_on_device(const void* address, int device) {
    auto* ask = driver_function<cudaError_t(cudaPointerAttributes*, const void*)>("cudaPointerGetAttributes");
    cudaPointerAttributes found{};
    if (!ask || ask(&found, address)) return false;
    return (found.type == cudaMemoryTypeDevice || found.type == cudaMemoryTypeManaged) && found.device == device;
}

bool is_on_device(const Range& range, int device) {
    return is_on_device(range.begin, device) && is_on_device(range.end - 1, device);
}

bool is_aligned(const void* address, int64_t alignment) {
    return reinterpret_cast<uintptr_t>(address) % alignment == 0;
}

cudnnStatus_t add_tensors(const Graph& graph, const Descriptor& pack, int device, Launch& launch,
                          std::vector<Range>& ranges) {
    Sizes uids = pack.list(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    Sizes addresses = pack.list(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    std::map<int64_t, void*> given;
    for (size_t i = 0; i < uids.size(); i++)
        given[uids[i]] = reinterpret_cast<void*>(addresses[i]);
    for (int64_t uid : graph.needed) {
        const Tensor& tensor = *graph.tensors.at(uid);
        auto found = given.find(uid);
        if (found == given.end()) return bad(where, "no pointer for ", tensor);
        void* address = found->second;
        if (!address) return misuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, where, "a null pointer for ", tensor);
        if (tensor.is_by_value) {
            launch.scalars[uid] = scalar_at(tensor.data_type, address);
            continue;
        }
        if (!is_aligned(address, tensor.alignment))
            return misuse(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, where, address, " isn't aligned to ",
                          tensor.alignment, " bytes: ", tensor);
        int64_t nbytes = tensor.span() * element_nbytes(tensor.data_type);
        char* begin = static_cast<char*>(address);
        Range range{begin, begin + nbytes, &tensor, graph.written.count(uid) > 0};
        if (!is_on_device(range, device))
            return bad(where, nbytes, " bytes at ", address, " aren't allocated on device ", device, ": ", tensor);
        launch.pointers[uid] = address;
        ranges.push_back(range);
    }
    for (auto& [uid, address] : given) {
        if (!graph.needed.count(uid)) remark(where, "uid ", uid, " isn't in the graph");
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t add_workspace(int64_t nbytes, int device, Launch& launch, std::vector<Range>& ranges) {
    if (!nbytes) return CUDNN_STATUS_SUCCESS;
    void* address = launch.workspace;
    if (!address)
        return misuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, where, "no workspace, where ", nbytes, " bytes are needed");
    if (!is_aligned(address, 16))
        return misuse(CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, where, "a workspace at ", address);
    if (!is_aligned(address, 128)) remark(where, "a workspace at ", address, ": not aligned to 128 bytes");
    char* begin = static_cast<char*>(address);
    Range range{begin, begin + nbytes, nullptr, true};
    if (!is_on_device(range, device))
        return bad(where, "a workspace of ", nbytes, " bytes at ", address, " isn't allocated on device ", device);
    ranges.push_back(range);
    return CUDNN_STATUS_SUCCESS;
}

// A result may lie on an operand where both lie alike: each element is read before it is written.
cudnnStatus_t check_overlaps(const std::vector<Range>& ranges) {
    for (const Range& result : ranges) {
        for (const Range& other : ranges) {
            bool overlap = &result != &other && result.begin < other.end && other.begin < result.end;
            if (!result.is_written || !overlap) continue;
            bool is_in_place =
                result.begin == other.begin && result.tensor && other.tensor && result.tensor->lies_as(*other.tensor);
            if (!is_in_place) return bad(where, result, " lies on ", other);
            if (logs()) remark(where, "in place: ", result, " and ", other);
        }
    }
    return CUDNN_STATUS_SUCCESS;
}

bool is_capturing(cudaStream_t stream) {
    auto* ask = driver_function<cudaError_t(cudaStream_t, cudaStreamCaptureStatus*)>("cudaStreamIsCapturing");
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    return ask && !ask(stream, &status) && status == cudaStreamCaptureStatusActive;
}

}  // namespace

// Of one engine by its index, or of all (-1): for tests.
EXPORT int64_t cuda_on_cpu_cudnn_executions(int engine) {
    int64_t n = 0;
    for (int i = 0; i < N_ENGINES; i++)
        n += engine < 0 || engine == i ? n_executions[i].load() : 0;
    return n;
}

EXPORT cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan_pointer,
                                         cudnnBackendDescriptor_t pack_pointer) {
    if (!is_handle(handle)) return bad(where, handle, " is no handle");
    Reference* plan_reference = reference_of(plan_pointer);
    Reference* pack_reference = reference_of(pack_pointer);
    if (!plan_reference || !plan_reference->descriptor->plan) return bad(where, plan_pointer, " is no plan");
    if (!pack_reference || pack_reference->descriptor->type != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR ||
        !pack_reference->descriptor->is_finalized)
        return bad(where, pack_pointer, " is no variant pack");
    const PlanPtr& plan = plan_reference->descriptor->plan;
    const Descriptor& pack = *pack_reference->descriptor;
    if (!is_of_current_device("cudnn", where, handle->device)) {
        last_error() = "another device is current";
        return CUDNN_STATUS_BAD_PARAM;
    }
    int index = plan->engine.index;
    if (is_declined("execute") || (is_declined("execute0") && index == TENSOR_CORES))
        return decline(CUDNN_STATUS_EXECUTION_FAILED, where, "declined: execute");

    auto launch = std::make_unique<Launch>();
    launch->plan = plan;
    launch->workspace = pack.get<void*>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    std::vector<Range> ranges;
    cudnnStatus_t status = add_tensors(*plan->engine.graph, pack, handle->device, *launch, ranges);
    if (!status) status = add_workspace(plan->workspace_nbytes, handle->device, *launch, ranges);
    if (!status) status = check_overlaps(ranges);
    if (status) return status;
    launch->is_captured = is_capturing(handle->stream);
    if (logs()) remark(where, plan->name, " on stream ", handle->stream, launch->is_captured ? ", captured" : "");
    n_executions[index]++;
    // a CUDA graph may run it again, so then it stays
    Launch* queued = launch.release();
    auto work = [queued] {
        run(*queued);
        if (!queued->is_captured) delete queued;
    };
    if (enqueue(handle->stream, work)) return misuse(CUDNN_STATUS_EXECUTION_FAILED, where, "the stream takes no work");
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnGetExecutionPlanWorkspaceSize(cudnnHandle_t, cudnnBackendDescriptor_t pointer,
                                                        cudnnBackendDescriptor_t, size_t* nbytes) {
    Reference* reference = reference_of(pointer);
    if (!reference || !reference->descriptor->plan || !nbytes) return bad("workspace size", "no plan");
    *nbytes = reference->descriptor->plan->workspace_nbytes;
    return CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendPopulateCudaGraph(cudnnHandle_t, cudnnBackendDescriptor_t, cudnnBackendDescriptor_t,
                                                   cudaGraph_t) {
    return misuse(CUDNN_STATUS_NOT_SUPPORTED, "populate", "CUDA graphs by nodes aren't done here");
}

EXPORT cudnnStatus_t cudnnBackendUpdateCudaGraph(cudnnHandle_t, cudnnBackendDescriptor_t, cudnnBackendDescriptor_t,
                                                 cudaGraph_t) {
    return misuse(CUDNN_STATUS_NOT_SUPPORTED, "update", "CUDA graphs by nodes aren't done here");
}

}  // namespace cuda_on_cpu::cudnn
