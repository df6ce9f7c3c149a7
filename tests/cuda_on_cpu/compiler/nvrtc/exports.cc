// What a module exports: see exports.h.
#include "exports.h"

#include <algorithm>
#include <cctype>

#include "files.h"

namespace cuda_on_cpu {

namespace {

// The two functions that the driver looks for. `function` is of C++: the address of a kernel.
std::string exported(const std::string& name, const std::string& function) {
    const std::string begin = "extern \"C\" __attribute__((visibility(\"default\"))) ";
    return begin + "int " + name +
           "__launch(void** params, const unsigned* grid, const unsigned* block, unsigned shared_nbytes) { return "
           "cuda_on_cpu::launch((" +
           function + "), params, grid, block, shared_nbytes); }\n" + begin + "unsigned " + name +
           "__parameters_nbytes(unsigned* nbytes, unsigned capacity) { return cuda_on_cpu::parameters_nbytes((" +
           function + "), nbytes, capacity); }\n";
}

std::string without_space(const std::string& text) {
    std::string made;
    for (char c : text) {
        if (!isspace(static_cast<unsigned char>(c))) made += c;
    }
    return made;
}

std::vector<std::string> parts_of(const std::string& path) {
    std::vector<std::string> parts;
    size_t at = 0;
    while (at < path.size()) {
        const size_t end = std::min(path.find(':', at), path.size());
        if (end > at) parts.push_back(path.substr(at, end - at));
        at = end + 1;
    }
    return parts;
}

// As the Itanium C++ ABI has it for a variable.
std::string mangled(const std::string& path) {
    if (path.find(':') == std::string::npos) return path;
    std::string name = "_ZN";
    for (const std::string& part : parts_of(path)) {
        name += std::to_string(part.size()) + part;
    }
    return name + "E";
}

bool is_path(const std::string& text) {
    for (char c : text) {
        if (!is_word(c) && c != ':') return false;
    }
    return !parts_of(text).empty();
}

// Kernels that their name alone says: in no namespace, no template, and of an overloaded name that of C.
std::map<std::string, bool> plain_names(const std::vector<Kernel>& kernels) {
    std::map<std::string, int> n_of;
    std::map<std::string, bool> is_exported;
    for (const Kernel& kernel : kernels) {
        if (kernel.is_template || kernel.is_nested) continue;
        ++n_of[kernel.name];
        is_exported[kernel.name] = kernel.is_extern_c || n_of[kernel.name] == 1;
    }
    return is_exported;
}

}  // namespace

Exports make_exports(const std::vector<Kernel>& kernels, const std::vector<std::string>& expressions,
                     const std::string& key) {
    Exports made;
    const std::map<std::string, bool> plain = plain_names(kernels);
    const auto is_plain = [&](const std::string& name) {
        const auto found = plain.find(name);
        return found != plain.end() && found->second;
    };
    for (const auto& [name, is_exported] : plain) {
        if (is_exported) made.text += exported(name, "&" + name);
    }
    for (size_t i = 0; i < expressions.size(); ++i) {
        const std::string& expression = expressions[i];
        std::string path = without_space(expression);
        const bool has_address_of = !path.empty() && path[0] == '&';
        if (has_address_of) path = path.substr(1);
        bool is_kernel = !is_path(path);  // an instance of a template
        for (const Kernel& kernel : kernels) {
            if (!is_kernel && kernel.name == parts_of(path).back()) is_kernel = true;
        }
        if (is_plain(path)) {
            made.lowered[expression] = path;
        } else if (!is_kernel) {
            made.lowered[expression] = mangled(path);
        } else {
            const std::string name = "cuda_on_cpu_" + digest(key + expression).substr(0, 12) + "_" + std::to_string(i);
            made.lowered[expression] = name;
            made.text += exported(name, has_address_of ? expression : "&" + expression);
        }
    }
    return made;
}

}  // namespace cuda_on_cpu
