// Streams and events. Work is done as late as CUDA's order allows, when somebody waits for it: who reads too early sees
// what was there before. CUDA_ON_CPU_EAGER=1 does it at once.
#include <pthread.h>

#include <chrono>

#include "state.h"

namespace cuda_on_cpu {

namespace {

std::set<CUstream_st*> streams;
std::set<CUevent_st*> events;
CUstream_st legacy[MOST_DEVICES], per_thread[MOST_DEVICES];

double now_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool is_blocking(const CUstream_st* stream) {
    return !(stream->flags & cudaStreamNonBlocking);
}

// The legacy default stream and blocking streams of a device wait for each other.
void meet_legacy(CUstream_st* stream) {
    if (!is_legacy(stream)) {
        if (is_blocking(stream)) drain(&legacy[stream->device]);
        return;
    }
    for (CUstream_st* other : streams)
        if (other->device == stream->device && is_blocking(other)) drain(other);
}

void push(CUstream_st* stream, Work work) {
    stream->queue.emplace_back(++stream->last_ticket, std::move(work));
    static const bool is_eager = setting("CUDA_ON_CPU_EAGER", 0);
    if (is_eager) drain(stream);
}

// What a query sees as not done yet is done after some: who only polls comes to an end, too.
bool is_patient() {
    static unsigned long n_asked = 0;
    return ++n_asked % 3 != 0;
}

}  // namespace

unsigned long this_thread() {
    return (unsigned long)pthread_self();
}

CUstream_st* stream_of(cudaStream_t handle) {
    if (handle != nullptr && handle != cudaStreamLegacy && handle != cudaStreamPerThread)
        return streams.count(handle) ? handle : nullptr;
    device_of(current_device);
    CUstream_st* found = handle == cudaStreamPerThread ? &per_thread[current_device] : &legacy[current_device];
    found->device = current_device;
    return found;
}

bool is_legacy(const CUstream_st* stream) {
    return stream >= legacy && stream < legacy + MOST_DEVICES;
}

void drain(CUstream_st* stream, unsigned long ticket) {
    while (!stream->queue.empty() && stream->done_ticket < ticket) {
        auto [number, work] = std::move(stream->queue.front());
        stream->queue.pop_front();
        log("%s", work.name.c_str());
        if (work.device == NO_DEVICE) {
            work.act();
        } else {
            Touching touching(work.device);
            work.act();
        }
        stream->done_ticket = number;
    }
}

void drain(CUstream_st* stream) {
    drain(stream, stream->last_ticket);
}

cudaError_t drain_device(int device) {
    for (CUstream_st* stream : streams) {
        if (stream->device != device) continue;
        if (stream->capture) {
            stream->capture->is_invalid = true;
            return fail(cudaErrorStreamCaptureUnsupported, "a device is waited for while a stream of it is captured");
        }
        drain(stream);
    }
    drain(&legacy[device]);
    drain(&per_thread[device]);
    return cudaSuccess;
}

void drain_all() {
    for (int device = 0; device < n_devices(); ++device)
        drain_device(device);
}

cudaError_t put(cudaStream_t handle, std::function<void()> act, const char* name, int device) {
    CUstream_st* stream = stream_of(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle, name);
    Work work{device, std::move(act), name};
    if (stream->capture) {
        if (stream->capture->is_invalid) return fail(cudaErrorStreamCaptureInvalidated, name);
        stream->capture->works.push_back(std::move(work));
        stream->is_unjoined = stream != stream->capture->origin;
        return cudaSuccess;
    }
    if (is_legacy(stream)) {
        for (Capture* capture : captures) {
            if (capture->origin->device != stream->device || !is_blocking(capture->origin)) continue;
            capture->is_invalid = true;
            return fail(cudaErrorStreamCaptureImplicit, name);
        }
    }
    meet_legacy(stream);
    push(stream, std::move(work));
    return cudaSuccess;
}

cudaError_t put(cudaStream_t handle, std::function<void()> act, const char* name) {
    CUstream_st* stream = stream_of(handle);
    return put(handle, std::move(act), name, stream ? stream->device : NO_DEVICE);
}

// Called by cudaStreamEndCapture: streams that joined the capture leave it. Whether one of them has work that the
// origin doesn't wait for.
bool leave_capture(const std::shared_ptr<Capture>& capture) {
    bool is_unjoined = false;
    for (CUstream_st* stream : streams) {
        if (stream->capture != capture) continue;
        is_unjoined |= stream->is_unjoined;
        stream->capture = nullptr;
        stream->is_unjoined = false;
    }
    return is_unjoined;
}

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;

// For libraries beside this one: work of theirs on a stream, which alone may touch memory of devices. A captured graph
// calls it again, so `data` must stay.
EXPORT int cuda_on_cpu_enqueue(void* stream, void (*work)(void*), void* data) {
    Guard guard(lock);
    return put((cudaStream_t)stream, [=] { work(data); }, "work of a library");
}

EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned flags, int priority) {
    Guard guard(lock);
    device_of(current_device);
    auto* stream = new CUstream_st();
    stream->device = current_device;
    stream->flags = flags;
    stream->priority = priority;
    streams.insert(stream);
    *handle = stream;
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
    return cudaStreamCreateWithPriority(handle, flags, 0);
}

EXPORT cudaError_t cudaStreamCreate(cudaStream_t* handle) {
    return cudaStreamCreateWithPriority(handle, cudaStreamDefault, 0);
}

EXPORT cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
    Guard guard(lock);
    CUstream_st* stream = stream_of(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle, "cudaStreamGetFlags");
    *flags = stream->flags;
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
    Guard guard(lock);
    CUstream_st* stream = stream_of(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle, "cudaStreamGetPriority");
    *priority = stream->priority;
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    Guard guard(lock);
    if (!streams.count(handle)) return fail(cudaErrorInvalidResourceHandle, "cudaStreamDestroy");
    drain(handle);
    streams.erase(handle);  // it stays allocated: events may name it
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    Guard guard(lock);
    CUstream_st* stream = stream_of(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle, "cudaStreamSynchronize");
    if (stream->capture) {
        stream->capture->is_invalid = true;
        complain("a stream is waited for while it is captured");
        return fail(cudaErrorStreamCaptureUnsupported, "cudaStreamSynchronize");
    }
    if (is_legacy(stream)) meet_legacy(stream);
    drain(stream);
    return cudaSuccess;
}

EXPORT cudaError_t cudaStreamQuery(cudaStream_t handle) {
    Guard guard(lock);
    CUstream_st* stream = stream_of(handle);
    if (!stream) return fail(cudaErrorInvalidResourceHandle, "cudaStreamQuery");
    if (stream->capture) {
        stream->capture->is_invalid = true;
        return fail(cudaErrorStreamCaptureUnsupported, "cudaStreamQuery");
    }
    if (!stream->queue.empty() && is_patient()) return cudaErrorNotReady;
    drain(stream);
    return cudaSuccess;
}

EXPORT cudaError_t cudaDeviceSynchronize() {
    Guard guard(lock);
    if (auto error = forbid_in_capture("cudaDeviceSynchronize")) return error;
    device_of(current_device);
    return drain_device(current_device);
}

EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
    Guard guard(lock);
    return put(stream, [=] { function(data); }, "a function of the host", NO_DEVICE);
}

EXPORT cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function, void* data, unsigned) {
    Guard guard(lock);
    return put(stream, [=] { function(stream, cudaSuccess, data); }, "a callback", NO_DEVICE);
}

EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
    Guard guard(lock);
    CUstream_st* stream = stream_of(handle);
    if (!stream || !events.count(event)) return fail(cudaErrorInvalidResourceHandle, "cudaStreamWaitEvent");
    if (event->capture) {
        if (!stream->capture) {
            if (!captures.count(event->capture.get())) return cudaSuccess;
            stream->capture = event->capture;  // it joins
            return cudaSuccess;
        }
        if (stream->capture != event->capture) return fail(cudaErrorStreamCaptureIsolation, "captures would merge");
        if (stream == stream->capture->origin) event->stream->is_unjoined = false;
        return cudaSuccess;
    }
    if (!event->is_recorded()) return cudaSuccess;
    if (stream->capture) {
        stream->capture->is_invalid = true;
        return fail(cudaErrorStreamCaptureIsolation, "a captured stream would wait for work that isn't captured");
    }
    CUstream_st* other = event->stream;
    const unsigned long ticket = event->ticket;
    meet_legacy(stream);
    auto wait = [=] {
        if (other != stream) drain(other, ticket);
    };
    push(stream, Work{NO_DEVICE, wait, "wait for an event"});
    return cudaSuccess;
}

EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    Guard guard(lock);
    device_of(current_device);
    if ((flags & cudaEventInterprocess) && !(flags & cudaEventDisableTiming))
        return fail(cudaErrorInvalidValue, "an event of several processes has no timing");
    *event = new CUevent_st();
    (*event)->device = current_device;
    (*event)->flags = flags;
    events.insert(*event);
    return cudaSuccess;
}

EXPORT cudaError_t cudaEventCreate(cudaEvent_t* event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

EXPORT cudaError_t cudaEventDestroy(cudaEvent_t event) {
    Guard guard(lock);
    if (!events.erase(event)) return fail(cudaErrorInvalidResourceHandle, "cudaEventDestroy");
    return cudaSuccess;  // it stays allocated: work may record it
}

EXPORT cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    Guard guard(lock);
    CUstream_st* stream = stream_of(handle);
    if (!stream || !events.count(event)) return fail(cudaErrorInvalidResourceHandle, "cudaEventRecord");
    if (stream->device != event->device) {
        complain("an event of device %d is recorded on a stream of device %d", event->device, stream->device);
        return fail(cudaErrorInvalidResourceHandle, "cudaEventRecord");
    }
    event->stream = stream;
    event->capture = stream->capture;
    if (stream->capture) return cudaSuccess;
    meet_legacy(stream);
    push(stream, Work{NO_DEVICE, [=] { event->recorded_s = now_s(); }, "record an event"});
    event->ticket = stream->last_ticket;
    if (event->flags & cudaEventInterprocess) drain(stream);  // nobody else could make this process work
    return cudaSuccess;
}

EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
    return cudaEventRecord(event, stream);
}

EXPORT cudaError_t cudaEventQuery(cudaEvent_t event) {
    Guard guard(lock);
    if (!events.count(event)) return fail(cudaErrorInvalidResourceHandle, "cudaEventQuery");
    if (event->capture) return fail(cudaErrorCapturedEvent, "cudaEventQuery");
    if (event->is_done()) return cudaSuccess;
    if (is_patient()) return cudaErrorNotReady;
    drain(event->stream, event->ticket);
    return cudaSuccess;
}

EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    Guard guard(lock);
    if (!events.count(event)) return fail(cudaErrorInvalidResourceHandle, "cudaEventSynchronize");
    if (event->capture) return fail(cudaErrorCapturedEvent, "cudaEventSynchronize");
    if (auto error = forbid_in_capture("cudaEventSynchronize")) return error;
    if (event->is_recorded()) drain(event->stream, event->ticket);
    return cudaSuccess;
}

EXPORT cudaError_t cudaEventElapsedTime(float* elapsed_ms, cudaEvent_t begin, cudaEvent_t end) {
    Guard guard(lock);
    const bool are_there = events.count(begin) && events.count(end) && begin->is_recorded() && end->is_recorded();
    if (!are_there || ((begin->flags | end->flags) & cudaEventDisableTiming))
        return fail(cudaErrorInvalidResourceHandle, "cudaEventElapsedTime");
    if (!begin->is_done() || !end->is_done()) return cudaErrorNotReady;
    *elapsed_ms = (float)((end->recorded_s - begin->recorded_s) * 1e3);
    return cudaSuccess;
}
