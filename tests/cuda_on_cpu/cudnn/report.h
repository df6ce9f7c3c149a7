// What a call says of itself: the status that it returns, with the reason, which cudnnGetLastErrorString gives too. And
// the settings of this library.
#pragma once

#include <cudnn_graph.h>

#include <sstream>
#include <string>

#include "../libraries/driver.h"

namespace cuda_on_cpu::cudnn {

// CUDA_ON_CPU_CUDNN_VERSION, or the headers'. The frontend builds attention of other operations for other versions.
int version();

// Whether the word is in CUDA_ON_CPU_CUDNN_DECLINE, a list with commas, which is read anew each time:
//   all, conv, epilogue, attention, convert: no engine for any graph, for convolutions, for those with operations
//       after them, for attention, none that converts its operands
//   plans, plan0: plans fail to be built; those of the engine of tensor cores
//   execute, execute0: executions fail; those of the engine of tensor cores
bool is_declined(const char* word);

// CUDA_ON_CPU_LOG=1: also what is done, and what is declined as engines may decline it
bool logs();

std::string& last_error();

template <class... Parts>
std::string text_of(const Parts&... parts) {
    std::ostringstream all;
    (all << ... << parts);
    return all.str();
}

template <class... Parts>
void remark(const char* where, const Parts&... parts) {
    report("cudnn", where, "%s", text_of(parts...).c_str());
}

// The caller's mistake: said on stderr.
template <class... Parts>
cudnnStatus_t misuse(cudnnStatus_t status, const char* where, const Parts&... parts) {
    last_error() = text_of(parts...);
    report("cudnn", where, "%s", last_error().c_str());
    return status;
}

template <class... Parts>
cudnnStatus_t bad(const char* where, const Parts&... parts) {
    return misuse(CUDNN_STATUS_BAD_PARAM, where, parts...);
}

// What this library, or an engine, doesn't do: callers look for another way, so it is said in the log alone.
template <class... Parts>
cudnnStatus_t decline(cudnnStatus_t status, const char* where, const Parts&... parts) {
    last_error() = text_of(parts...);
    if (logs()) report("cudnn", where, "(declined) %s", last_error().c_str());
    return status;
}

}  // namespace cuda_on_cpu::cudnn
