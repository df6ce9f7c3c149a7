// The options of nvrtcCompileProgram: see options.h.
#include "options.h"

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace cuda_on_cpu {

namespace {

// Prefixes of options that say nothing to g++: of a GPU's code, of diagnostics, of NVRTC's own caches.
constexpr const char* IGNORED[] = {
    "-ftz",
    "-fmad",
    "-prec-div",
    "-prec-sqrt",
    "-default-device",
    "-device-as-default-execution-space",
    "-lineinfo",
    "-generate-line-info",
    "-G",
    "-device-debug",
    "-rdc",
    "-relocatable-device-code",
    "-dc",
    "-device-c",
    "-dw",
    "-device-w",
    "-ewp",
    "-extensible-whole-program",
    "-pch",
    "-no-cache",
    "-w",
    "-disable-warnings",
    "-maxrregcount",
    "-restrict",
    "-Xptxas",
    "-ptxas-options",
    "-O",
    "-dopt",
    "-split-compile",
    "-builtin-",
    "-extra-device-vectorization",
    "-modify-stack-limit",
    "-version-ident",
    "-display-error-number",
    "-no-display-error-number",
    "-err-no",
    "-no-err-no",
    "-diag-",
    "-brief-diagnostics",
    "-time",
    "-no-source-include",
    "-optimization-info",
    "-opt-info",
    "-minimal",
    "-device-stack-protector",
    "-fdevice-",
    "-jump-table-density",
    "-create-pch",
    "-use-pch",
    "-instantiate-templates-in-pch",
    "-gen-opt-lto",
    "-Wno-",
    "-Werror",
    "-device-int128",
    "-device-float128",
    "-arch-",
    "-fast-compile",
    "-uumn",
    "-frandom-seed",
    "-static-global-template-stub",
    "-dwarf",
};

// Of these, the ones whose value may be the next word.
constexpr const char* IGNORED_WITH_VALUE[] = {
    "-maxrregcount", "-Xptxas", "-ptxas-options", "-diag-suppress", "-diag-error", "-diag-warn",
};

constexpr int LEAST_ARCH = 50, MOST_ARCH = 129;

bool starts_with(const std::string& text, const std::string& prefix) {
    return text.compare(0, prefix.size(), prefix) == 0;
}

bool is_ignored(const std::string& word) {
    for (const char* prefix : IGNORED) {
        if (starts_with(word, prefix)) return true;
    }
    return false;
}

class Words {
public:
    explicit Words(const std::vector<std::string>& given) : given_(given) {}

    // The next word that isn't blank, with one dash where it has two.
    bool next() {
        while (at_ < given_.size()) {
            original = given_[at_++];
            while (!original.empty() && isspace(static_cast<unsigned char>(original.back()))) {
                original.pop_back();
            }
            if (original.empty()) continue;
            word = starts_with(original, "--") ? original.substr(1) : original;
            return true;
        }
        return false;
    }

    // Whether the word is one of the names: NAME=value, NAME value, and NAMEvalue for one letter where it may join.
    bool has_value(std::initializer_list<const char*> names, std::string& value, bool may_join = false) {
        for (const char* name : names) {
            if (word == name) {
                if (at_ < given_.size()) value = given_[at_++];
                return true;
            }
            const size_t n = strlen(name);
            if (starts_with(word, name) && word[n] == '=') {
                value = word.substr(n + 1);
                return true;
            }
            if (may_join && n == 2 && starts_with(word, name)) {
                value = word.substr(n);
                return true;
            }
        }
        return false;
    }

    void skip() { ++at_; }

    std::string original, word;

private:
    const std::vector<std::string>& given_;
    size_t at_ = 0;
};

std::string parse_standard(const std::string& value, Options& options) {
    if (value == "c++20" || value == "c++2a") {
        options.standard = "20";
    } else if (value == "c++23") {
        options.standard = "23";
    } else if (value != "c++03" && value != "c++11" && value != "c++14" && value != "c++17") {
        return "nvrtc: error: invalid value for --std: " + value;
    }
    return "";
}

std::string parse_arch(const std::string& value, Options& options) {
    const bool is_known = starts_with(value, "sm_") || starts_with(value, "compute_") || starts_with(value, "lto_");
    const int number = is_known ? atoi(value.c_str() + value.find('_') + 1) : 0;
    if (number < LEAST_ARCH || number > MOST_ARCH) {
        return "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
    }
    options.is_cubin = starts_with(value, "sm_");
    options.is_lto = options.is_lto || starts_with(value, "lto_");
    options.arch = std::to_string(number * 10);
    return "";
}

}  // namespace

std::string parse(const std::vector<std::string>& given, Options& options) {
    Words words(given);
    while (words.next()) {
        std::string value, wrong;
        if (words.has_value({"-I", "-include-path"}, value, true)) {
            options.flags.push_back("-I" + value);
            options.includes.push_back(value);
        } else if (words.has_value({"-D", "-define-macro"}, value, true)) {
            options.flags.push_back("-D" + value);
            if (starts_with(value, "CUPY_JIT") || starts_with(value, "CUPY_USE_JITIFY") ||
                starts_with(value, "THRUST")) {
                options.changes_headers = true;
            }
        } else if (words.has_value({"-U", "-undefine-macro"}, value, true)) {
            options.flags.push_back("-U" + value);
            options.changes_headers = true;
        } else if (words.has_value({"-include", "-pre-include"}, value)) {
            options.flags.push_back("-include");
            options.flags.push_back(value);
            options.changes_headers = true;
        } else if (words.has_value({"-std"}, value)) {
            wrong = parse_standard(value, options);
        } else if (words.has_value({"-arch", "-gpu-architecture"}, value)) {
            wrong = parse_arch(value, options);
        } else if (words.word == "-dlto" || words.word == "-dlink-time-opt") {
            options.is_lto = true;
        } else if (starts_with(words.word, "-use_fast_math")) {
            options.is_fast = true;
        } else if (is_ignored(words.word)) {
            for (const char* name : IGNORED_WITH_VALUE) {
                if (words.word == name) words.skip();
            }
        } else {
            wrong = "nvrtc: error: unrecognized option " + words.original + " found\n";
        }
        if (!wrong.empty()) return wrong;
    }
    return "";
}

}  // namespace cuda_on_cpu
