// The options of nvrtcCompileProgram (NVRTC's documentation, "Supported Compile Options"), as g++'s.
#pragma once

#include <string>
#include <vector>

namespace cuda_on_cpu {

struct Options {
    std::vector<std::string> flags;     // for g++
    std::vector<std::string> includes;  // folders, which are among the flags too
    std::string standard = "17";
    std::string arch = "750";  // __CUDA_ARCH__
    bool is_cubin = false;     // -arch=sm_*
    bool is_lto = false;
    bool is_fast = false;  // -use_fast_math
    // a source that is not to come behind CuPy's headers: CUPY_JIT_* and -include change what these are
    bool changes_headers = false;
};

// Returns "" or what is wrong.
std::string parse(const std::vector<std::string>& given, Options& options);

}  // namespace cuda_on_cpu
