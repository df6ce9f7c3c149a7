// Captures of streams, and the graphs that they become. A graph's works are in the order in which they were captured,
// which is one that their edges allow.
#include "state.h"

namespace cuda_on_cpu {

std::set<Capture*> captures;
bool leave_capture(const std::shared_ptr<Capture>& capture);

// cudaThreadExchangeStreamCaptureMode's page: which captures a potentially unsafe call breaks.
cudaError_t forbid_in_capture(const char* name) {
    for (Capture* capture : captures) {
        const bool is_mine = capture->thread == this_thread();
        const bool forbids = capture->mode == cudaStreamCaptureModeGlobal ||
                             (capture->mode == cudaStreamCaptureModeThreadLocal && is_mine);
        if (!forbids) continue;
        complain("%s while a stream is captured", name);
        capture->is_invalid = true;
        return fail(cudaErrorStreamCaptureUnsupported, name);
    }
    return cudaSuccess;
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
    Guard guard(lock);
    CUstream_st* stream = stream_of(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle, "cudaStreamBeginCapture");
    if (is_legacy(stream)) return fail(cudaErrorStreamCaptureUnsupported, "the legacy stream can't be captured");
    if (stream->capture) return fail(cudaErrorInvalidValue, "the stream is captured already");
    stream->capture = std::make_shared<Capture>();
    stream->capture->mode = mode;
    stream->capture->origin = stream;
    stream->capture->thread = this_thread();
    captures.insert(stream->capture.get());
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
    Guard guard(lock);
    *graph = nullptr;
    CUstream_st* stream = stream_of(handle);
    if (!stream || !stream->capture || stream->capture->origin != stream)
        return fail(cudaErrorInvalidValue, "there is no capture to end");
    const std::shared_ptr<Capture> capture = stream->capture;
    const bool is_unjoined = leave_capture(capture);
    captures.erase(capture.get());
    if (capture->is_invalid) return fail(cudaErrorStreamCaptureInvalidated, "cudaStreamEndCapture");
    if (is_unjoined) return fail(cudaErrorStreamCaptureUnjoined, "cudaStreamEndCapture");
    *graph = new CUgraph_st{capture->works};
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
    Guard guard(lock);
    CUstream_st* stream = stream_of(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle, "cudaStreamIsCapturing");
    *status = !stream->capture              ? cudaStreamCaptureStatusNone
              : stream->capture->is_invalid ? cudaStreamCaptureStatusInvalidated
                                            : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

EXPORT cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}

EXPORT cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
    *made = new CUgraphExec_st{graph->works};
    return cudaSuccess;
}

EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long flags) {
    return cudaGraphInstantiate(made, graph, flags);
}

EXPORT cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    Guard guard(lock);
    drain_all();
    delete graph;
    return cudaSuccess;
}

EXPORT cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
    return cudaSuccess;
}

EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    Guard guard(lock);
    for (const Work& work : graph->works)
        if (auto error = put(stream, work.act, work.name.c_str(), work.device)) return error;
    return cudaSuccess;
}

EXPORT cudaError_t cudaGraphDebugDotPrint(cudaGraph_t, const char*, unsigned) {
    return cudaSuccess;
}
