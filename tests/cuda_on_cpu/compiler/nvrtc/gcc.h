// The commands of g++ that make modules, and the headers that it reads precompiled.
#pragma once

#include <string>
#include <vector>

#include "options.h"

namespace cuda_on_cpu {

// The includes that CuPy begins nearly all of its sources with.
extern const char* const CUPY_HEADERS;

// A digest of all that a module is made by but its source.
std::string compiler_digest();

// A header to put in front of a source, which there is a precompiled one of: the language's, and where `has_cupy`
// CuPy's own, of these options' folders, and where `has_half` its float16.
std::string leading_header(const Options& options, bool has_cupy, bool has_half);

// The command up to the source; `folder`, where not "", is one of headers that goes first.
std::vector<std::string> compile_command(const Options& options, const std::string& header, const std::string& folder);
std::vector<std::string> preprocess_arguments(const std::string& source, const std::string& to);
std::vector<std::string> link_arguments(const std::string& source, const std::string& to);

}  // namespace cuda_on_cpu
