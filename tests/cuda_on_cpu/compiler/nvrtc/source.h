// What has to be known of a CUDA C++ source before g++ sees it, and to be changed in it.
#pragma once

#include <string>
#include <vector>

namespace cuda_on_cpu {

struct Kernel {
    std::string name;
    bool is_extern_c;
    bool is_template;
    bool is_nested;  // in a namespace or a class
};

// The `__global__` functions of a source. needs_preprocessor: a macro of the source makes some, so that the answer is
// only right for the preprocessed source.
std::vector<Kernel> find_kernels(const std::string& source, bool& needs_preprocessor);

// A source with what g++ has no word for rewritten: arrays of dynamic shared memory and known lines of PTX.
std::string rewritten(std::string source);

bool is_word(char c);

}  // namespace cuda_on_cpu
