// Finds kernels in a source and rewrites it: see source.h.
#include "source.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <regex>
#include <set>
#include <utility>

namespace cuda_on_cpu {

namespace {

bool is_space(char c) {
    return isspace(static_cast<unsigned char>(c));
}

bool is_at(const std::string& s, size_t i, const char* text) {
    return s.compare(i, strlen(text), text) == 0;
}

size_t skip_word(const std::string& s, size_t i) {
    while (i < s.size() && is_word(s[i])) {
        ++i;
    }
    return i;
}

// To a line's end.
size_t skip_line(const std::string& s, size_t i) {
    while (i < s.size() && s[i] != '\n') {
        ++i;
    }
    return i;
}

// Spaces and comments.
size_t skip_space(const std::string& s, size_t i) {
    for (;;) {
        while (i < s.size() && is_space(s[i])) {
            ++i;
        }
        if (is_at(s, i, "//")) {
            i = skip_line(s, i);
        } else if (is_at(s, i, "/*")) {
            i = s.find("*/", i + 2);
            i = i == std::string::npos ? s.size() : i + 2;
        } else {
            return i;
        }
    }
}

size_t skip_quoted(const std::string& s, size_t i) {
    const char quote = s[i];
    for (++i; i < s.size() && s[i] != quote; ++i) {
        if (s[i] == '\\') ++i;
        if (i < s.size() && s[i] == '\n') return i;
    }
    return i + 1;
}

size_t skip_raw_string(const std::string& s, size_t i) {
    const size_t open = s.find('(', i);
    const std::string end = ")" + s.substr(i + 2, open - i - 2) + "\"";
    i = s.find(end, open);
    return i == std::string::npos ? s.size() : i + end.size();
}

size_t skip_parentheses(const std::string& s, size_t i) {
    int depth = 0;
    for (; i < s.size(); ++i) {
        if (s[i] == '(') ++depth;
        if (s[i] == ')' && --depth == 0) return i + 1;
    }
    return i;
}

// With the lines that a backslash joins to it.
size_t skip_directive(const std::string& s, size_t i) {
    while (i < s.size() && s[i] != '\n') {
        if (s[i] == '\\') ++i;
        ++i;
    }
    return i;
}

// Reads a source from its start to its end for kernels' names.
class KernelFinder {
public:
    explicit KernelFinder(const std::string& source) : source_(source) {}

    void read() {
        bool is_line_start = true;
        for (size_t i = 0; i < source_.size();) {
            const char c = source_[i];
            if (c == '\n') {
                is_line_start = true;
                ++i;
            } else if (is_space(c)) {
                ++i;
            } else if (is_at(source_, i, "//") || is_at(source_, i, "/*")) {
                i = skip_space(source_, i);
                is_line_start = source_[i - 1] == '\n';
            } else if (c == '#' && is_line_start) {
                i = read_directive(i);
            } else {
                is_line_start = false;
                i = read_token(i);
            }
        }
    }

    std::vector<Kernel> found;
    bool needs_preprocessor = false;

private:
    // What precedes a declaration or an opening brace.
    struct Prefix {
        bool is_extern_c = false;
        bool is_template = false;
    };

    size_t read_directive(size_t i) {
        const size_t end = skip_directive(source_, i);
        const std::string line = source_.substr(i, end - i);
        if (line.find("__global__") != std::string::npos && line.find("define") != std::string::npos) {
            needs_preprocessor = true;
        }
        return end;
    }

    size_t read_token(size_t i) {
        const char c = source_[i];
        if (is_at(source_, i, "R\"")) return skip_raw_string(source_, i);
        if (c == '"') {
            if (is_at(source_, i, "\"C\"")) prefix_.is_extern_c = true;
            return skip_quoted(source_, i);
        }
        // 1'000 has no character in quotes
        if (c == '\'')
            return i && isdigit(static_cast<unsigned char>(source_[i - 1])) ? i + 1 : skip_quoted(source_, i);
        if (c == '{') {
            is_extern_c_of_braces_.push_back(prefix_.is_extern_c);
            prefix_ = {};
        }
        if (c == '}') {
            if (!is_extern_c_of_braces_.empty()) is_extern_c_of_braces_.pop_back();
            prefix_ = {};
        }
        if (c == ';') prefix_ = {};
        if (!is_word(c)) return i + 1;
        const size_t end = skip_word(source_, i);
        const std::string word = source_.substr(i, end - i);
        if (word == "template") prefix_.is_template = true;
        return word == "__global__" ? read_kernel(end) : end;
    }

    // From behind `__global__` to behind the kernel's name: the first word in front of a parenthesis that is no
    // attribute.
    size_t read_kernel(size_t i) {
        static const std::set<std::string> attributes = {"__launch_bounds__", "__attribute__", "__cluster_dims__",
                                                         "__maxnreg__",       "alignas",       "__align__",
                                                         "__block_size__"};
        for (size_t k = i;;) {
            k = skip_space(source_, k);
            if (k >= source_.size() || source_[k] == ';' || source_[k] == '{') return i;
            if (!is_word(source_[k])) {
                ++k;
                continue;
            }
            const size_t end = skip_word(source_, k);
            const std::string name = source_.substr(k, end - k);
            k = skip_space(source_, end);
            if (k >= source_.size()) continue;
            if (source_[k] == '<') return k;  // a specialization
            if (source_[k] != '(') continue;
            if (!attributes.count(name)) {
                add(name);
                return k;
            }
            k = skip_parentheses(source_, k);
        }
    }

    void add(const std::string& name) {
        Kernel kernel = {name, prefix_.is_extern_c, prefix_.is_template, false};
        for (bool is_extern_c : is_extern_c_of_braces_) {
            (is_extern_c ? kernel.is_extern_c : kernel.is_nested) = true;
        }
        found.push_back(kernel);
    }

    const std::string& source_;
    Prefix prefix_;
    std::vector<bool> is_extern_c_of_braces_;
};

void erase_attributes(std::string& type) {
    for (const char* word : {"__align__", "alignas", "__attribute__"}) {
        const size_t at = type.find(word);
        if (at == std::string::npos) continue;
        const size_t open = type.find('(', at);
        type.erase(at, skip_parentheses(type, open) - at);
    }
}

// `extern __shared__ T name[]` from `begin` on: what to write for it and where it ends, or "" where it isn't one.
std::string as_dynamic_shared(const std::string& source, size_t begin, size_t& end) {
    const std::string specifier = "extern", space = "__shared__";
    const size_t limit = std::min(source.find_first_of(";{}\"=", begin), source.size());
    const std::string part = source.substr(begin, limit - begin);
    const size_t shared = part.find(space);
    const size_t open = shared == std::string::npos ? std::string::npos : part.find('[', shared);
    if (open == std::string::npos || (begin > 0 && is_word(source[begin - 1]))) return "";
    // another `extern` in between, as one of a macro's text without a semicolon
    if (part.find(specifier, specifier.size()) < shared) return "";
    const size_t close = part.find(']', open);
    if (close == std::string::npos) return "";
    if (part.substr(open + 1, close - open - 1).find_first_not_of(" \t\n") != std::string::npos) return "";
    size_t name_end = open;
    while (name_end > 0 && is_space(part[name_end - 1])) {
        --name_end;
    }
    size_t name_begin = name_end;
    while (name_begin > 0 && is_word(part[name_begin - 1])) {
        --name_begin;
    }
    const std::string name = part.substr(name_begin, name_end - name_begin);
    std::string type = part.substr(specifier.size(), name_begin - specifier.size());
    type.replace(type.find(space), space.size(), " ");
    erase_attributes(type);
    end = begin + close + 1;
    // a reference to an array, so that the name is used as an array's
    return "static " + type + " (&" + name + ")[1 << 18] = *(" + type +
           "(*)[1 << 18])cuda_on_cpu::module_dynamic_shared";
}

std::string with_dynamic_shared(const std::string& source) {
    std::string made;
    size_t at = 0;
    for (;;) {
        const size_t begin = source.find("extern", at);
        if (begin == std::string::npos) return made + source.substr(at);
        size_t end = begin + strlen("extern");
        const std::string by = as_dynamic_shared(source, begin, end);
        made += by.empty() ? source.substr(at, end - at) : source.substr(at, begin - at) + by;
        at = end;
    }
}

// asm("PTX"), with operands behind it, in a source.
std::regex assembly(const std::string& ptx, const std::string& operands) {
    return std::regex(R"#(\basm\s*(?:volatile)?\s*\(\s*"\s*)#" + ptx + R"#(;\s*"\s*)#" + operands + R"#(\))#");
}

std::string output(const std::string& constraint) {
    return R"#(:\s*"=)#" + constraint + R"#("\s*\(([^()]*)\)\s*)#";
}
std::string input(const std::string& constraint) {
    return R"#(:\s*")#" + constraint + R"#("\s*\(([^()]*)\)\s*)#";
}

std::string without_assembly(std::string source) {
    static const std::pair<std::regex, std::string> known[] = {
        {assembly("cvt\\.f32\\.f16 %0, %1", output("f") + input("h")), "$1 = cuda_on_cpu::half_to_float($2)"},
        {assembly("cvt\\.rn\\.f16\\.f32 %0, %1", output("h") + input("f")), "$1 = cuda_on_cpu::float_to_half($2)"},
        {assembly("mov\\.u32 %0, %%?laneid", output("r")), "$1 = cuda_on_cpu_lane()"},
        {assembly("mov\\.u32 %0, %%?lanemask_lt", output("r")), "$1 = cuda_on_cpu::lower_lanes()"},
        {assembly("mov\\.u64 %0, %%?(?:globaltimer|clock64)", output("l")), "$1 = clock64()"},
        {assembly("(?:trap|exit)", ""), "__trap()"},
        {assembly("(?:bar\\.sync|barrier\\.sync)\\s*0", "(?:::[^()]*)?"), "__syncthreads()"},
    };
    for (const auto& [what, by] : known) {
        source = std::regex_replace(source, what, by);
    }
    return source;
}

}  // namespace

bool is_word(char c) {
    return isalnum(static_cast<unsigned char>(c)) || c == '_';
}

std::vector<Kernel> find_kernels(const std::string& source, bool& needs_preprocessor) {
    KernelFinder finder(source);
    finder.read();
    needs_preprocessor = finder.needs_preprocessor;
    return finder.found;
}

std::string rewritten(std::string source) {
    if (source.find("__shared__") != std::string::npos) source = with_dynamic_shared(source);
    if (source.find("asm") != std::string::npos) source = without_assembly(source);
    return source;
}

}  // namespace cuda_on_cpu
