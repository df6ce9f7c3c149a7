// What a module exports: a launch of each kernel, by a name that can be one of C.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "source.h"

namespace cuda_on_cpu {

struct Exports {
    std::string text;                            // C++, for the source's end
    std::map<std::string, std::string> lowered;  // by name expression
};

// Of the kernels of a source, and of name expressions (nvrtcAddNameExpression), which may be variables' too. `key` is
// of the program, so that two programs' names differ.
Exports make_exports(const std::vector<Kernel>& kernels, const std::vector<std::string>& expressions,
                     const std::string& key);

}  // namespace cuda_on_cpu
