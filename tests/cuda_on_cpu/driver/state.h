// What the driver and the runtime share: devices and their memory, streams with the work that waits in them, events,
// captures. Every call takes the one lock; work is done with it held.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace cuda_on_cpu {

extern std::recursive_mutex lock;
using Guard = std::lock_guard<std::recursive_mutex>;

// an environment variable's number
long setting(const char* name, long otherwise);
// a line on stderr: of what is done (CUDA_ON_CPU_LOG=1), and of what is wrong with a call
void log(const char* format, ...) __attribute__((format(printf, 1, 2)));
void complain(const char* format, ...) __attribute__((format(printf, 1, 2)));
// remembers the error for cudaGetLastError
cudaError_t fail(cudaError_t code, const char* what);

constexpr int MOST_DEVICES = 16;

// One region of address room a device, shared with other processes by its file descriptor, and what of it is allocated.
struct Device {
    char* base = nullptr;
    size_t room_nbytes = 0;
    size_t used_nbytes = 0;
    int fd = -1;
    std::map<size_t, size_t> allocated;  // offset -> bytes
    std::set<int> peers;
    bool holds(const void* at) const { return base && (const char*)at >= base && (const char*)at < base + room_nbytes; }
};

// Memory of another process's device, mapped here.
struct Mapping {
    char* base;
    size_t nbytes;
    int device;
};

struct Allocation {
    int device;
    char* base;
    size_t nbytes;
};

extern Device devices[MOST_DEVICES];
extern std::map<char*, Mapping> mappings;  // by the address that was given out
extern thread_local int current_device;
int n_devices();
int compute_capability();
size_t memory_nbytes();
bool protects();
// the device, with its context, which is made when it is first used
Device& device_of(int number);
// whether an address is inside of an allocation of a device of this process, or of a mapping
bool find_allocation(const void* at, Allocation* found = nullptr);
bool on_device(const void* at);
bool is_pinned(const void* at);
// whether so many bytes are inside of one allocation, where they are a device's; else a complaint
bool is_inside(const void* at, size_t nbytes, const char* what);

constexpr int ALL_DEVICES = -1, NO_DEVICE = -2;

// While it lives, memory of a device (and of those that it has as peers) can be touched; of none at other times.
class Touching {
public:
    explicit Touching(int device);
    ~Touching();
};

struct Work {
    int device;  // whose memory it touches, ALL_DEVICES, NO_DEVICE
    std::function<void()> act;
    std::string name;
};

// Of cudaStreamBeginCapture.
struct Capture {
    std::vector<Work> works;
    cudaStreamCaptureMode mode;
    CUstream_st* origin;
    unsigned long thread;
    bool is_invalid = false;
};

extern std::set<Capture*> captures;
// The stream of a handle: the legacy default stream of the current device for 0; null where there is none.
CUstream_st* stream_of(cudaStream_t handle);
bool is_legacy(const CUstream_st* stream);
// Work at the end of a stream, or in its capture; it is done when somebody waits for it.
cudaError_t put(cudaStream_t stream, std::function<void()> act, const char* name);
cudaError_t put(cudaStream_t stream, std::function<void()> act, const char* name, int device);
// All that is in a stream, or up to a ticket.
void drain(CUstream_st* stream);
void drain(CUstream_st* stream, unsigned long ticket);
cudaError_t drain_device(int device);
void drain_all();
// An error where a call may not be made while something is captured.
cudaError_t forbid_in_capture(const char* name);
unsigned long this_thread();

}  // namespace cuda_on_cpu

struct CUstream_st {
    int device = 0;
    unsigned flags = 0;
    int priority = 0;
    std::deque<std::pair<unsigned long, cuda_on_cpu::Work>> queue;  // with tickets, that count up
    unsigned long last_ticket = 0;
    unsigned long done_ticket = 0;
    std::shared_ptr<cuda_on_cpu::Capture> capture;
    bool is_unjoined = false;  // has work in the capture that its origin doesn't wait for yet
};

struct CUevent_st {
    int device = 0;
    unsigned flags = 0;
    CUstream_st* stream = nullptr;  // where it was recorded last
    unsigned long ticket = 0;
    double recorded_s = 0;
    std::shared_ptr<cuda_on_cpu::Capture> capture;
    bool is_recorded() const { return stream != nullptr; }
    bool is_done() const { return !stream || stream->done_ticket >= ticket; }
};

struct CUgraph_st {
    std::vector<cuda_on_cpu::Work> works;
};

struct CUgraphExec_st {
    std::vector<cuda_on_cpu::Work> works;
};
