// A program as NVRTC has it: a source that becomes a module.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace cuda_on_cpu {

// nvrtcResult's values (nvrtc.h).
enum Result {
    SUCCESS,
    OUT_OF_MEMORY,
    PROGRAM_CREATION_FAILURE,
    INVALID_INPUT,
    INVALID_PROGRAM,
    INVALID_OPTION,
    COMPILATION,
    BUILTIN_OPERATION_FAILURE,
    NO_NAME_EXPRESSIONS_AFTER_COMPILATION,
    NO_LOWERED_NAMES_BEFORE_COMPILATION,
    NAME_EXPRESSION_NOT_VALID,
    INTERNAL_ERROR
};

struct Program {
    std::string source, name;
    std::vector<std::pair<std::string, std::string>> headers;  // name, text
    std::vector<std::string> expressions;

    // of its compilation
    std::string log;
    std::string module;  // "CPUCUBIN", the number of bytes of a shared object as 8 bytes, and these
    std::map<std::string, std::string> lowered;
    bool is_compiled = false;
    bool is_cubin = false;
    bool is_lto = false;

    Result compile(const std::vector<std::string>& options);
};

}  // namespace cuda_on_cpu
