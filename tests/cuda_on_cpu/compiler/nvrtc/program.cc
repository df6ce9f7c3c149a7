// Compiles a program, or takes what an earlier process has made of the same one from the cache: of a program whose
// digest is ABCD…, the folder AB has ABCD….so and ABCD….names, or ABCD….failed and ABCD….source.cc.
#include "program.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "exports.h"
#include "files.h"
#include "gcc.h"
#include "source.h"

namespace cuda_on_cpu {

namespace {

const std::string MAGIC = "CPUCUBIN";

std::string as_module(const std::string& shared_object) {
    const uint64_t n = shared_object.size();
    return MAGIC + std::string(reinterpret_cast<const char*>(&n), sizeof n) + shared_object;
}

std::string last_part(const std::string& path) {
    return path.substr(path.rfind('/') + 1);
}

bool is_found(const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
}

std::string program_digest(const Program& program, const std::vector<std::string>& options) {
    std::string key = compiler_digest() + "\n" + program.source + "\n" + last_part(program.name);
    for (const std::string& option : options) {
        key += "\n" + option;
    }
    for (const auto& [name, text] : program.headers) {
        key += "\n" + name + "\n" + text;
    }
    for (const std::string& expression : program.expressions) {
        key += "\n" + expression;
    }
    return digest(key);
}

// Whether libcu++ is among the includes: it is meant for a host where `__CUDA_ARCH__` isn't defined, and doesn't
// compile by g++ otherwise.
bool has_cccl(const Program& program) {
    std::string all = program.source;
    for (const auto& header : program.headers) {
        all += header.second;
    }
    return is_found(all, "<cub/") || is_found(all, "<thrust/") || is_found(all, "<cuda/");
}

class Compilation {
public:
    Compilation(Program& program, const Options& options, const std::string& key)
        : program_(program),
          options_(options),
          key_(key),
          cached_(cache_folder() + "/" + key.substr(0, 2) + "/" + key) {
        make_folders(cached_);
    }

    Result run() {
        Result result;
        if (load(result)) return result;
        FileLock lock(cached_ + ".lock");
        if (load(result)) return result;
        place_ = make_temporary_folder();
        if (place_.empty()) {
            program_.log = "no temporary folder";
            return INTERNAL_ERROR;
        }
        result = make();
        if (!getenv("CUDA_ON_CPU_KEEP")) cuda_on_cpu::run({"rm", "-rf", place_}, "/dev/null");
        return result;
    }

private:
    // Whether the cache has the program, or that it doesn't compile.
    bool load(Result& result) {
        std::string shared_object, names;
        if (read_file(cached_ + ".failed", program_.log)) {
            result = COMPILATION;
            return true;
        }
        if (!read_file(cached_ + ".so", shared_object) || !read_file(cached_ + ".names", names)) return false;
        size_t at = 0;
        for (const std::string& expression : program_.expressions) {
            const size_t end = names.find('\n', at);
            if (end == std::string::npos) return false;
            program_.lowered[expression] = names.substr(at, end - at);
            at = end + 1;
        }
        program_.module = as_module(shared_object);
        program_.is_compiled = true;
        result = SUCCESS;
        return true;
    }

    Result make() {
        const std::string headers = write_headers();
        const std::vector<std::string> command = compile_command(options_, leading(), headers);
        const std::string body = rewritten(program_.source);
        const std::string text = beginning() + body + "\n";
        const Exports exports = make_exports(kernels_of(body, text, command), program_.expressions, key_);
        // a source may have made words its own
        const std::string whole = text + "\n#line 1 \"exports\"\n#undef static\n#undef inline\n" + exports.text;
        if (link(command, whole)) {
            Result result;
            return keep(exports) && load(result) ? result : INTERNAL_ERROR;
        }
        const bool is_of_source = is_found(program_.log, "error") && !is_found(program_.log, "cannot start") &&
                                  !is_found(program_.log, "No space");
        if (is_of_source) {
            write_file(cached_ + ".failed", program_.log);
            write_file(cached_ + ".source.cc", whole);
        }
        return COMPILATION;
    }

    // Returns their folder, or "" where a program has none.
    std::string write_headers() {
        if (program_.headers.empty()) return "";
        const std::string folder = place_ + "/headers";
        for (const auto& [name, text] : program_.headers) {
            const std::string path = folder + "/" + name;
            make_folders(path);
            write_file(path, rewritten(text));
        }
        return folder;
    }

    std::string leading() const {
        const bool has_cupy =
            !options_.changes_headers && program_.headers.empty() && program_.source.rfind(CUPY_HEADERS, 0) == 0;
        return leading_header(options_, has_cupy, has_cupy && is_found(program_.source, "cupy/float16.cuh"));
    }

    std::string beginning() const {
        std::string text;
        if (!has_cccl(program_)) text += "#define __CUDA_ARCH__ " + options_.arch + "\n";
        if (options_.is_fast) text += "#define __USE_FAST_MATH__ 1\n";
        const std::string name = program_.name.empty() ? "default_program" : last_part(program_.name);
        return text + "#line 1 \"" + name + "\"\n";
    }

    std::vector<Kernel> kernels_of(const std::string& body, const std::string& text,
                                   std::vector<std::string> command) const {
        bool needs_preprocessor;
        const std::vector<Kernel> kernels = find_kernels(body, needs_preprocessor);
        if (!needs_preprocessor) return kernels;
        const std::string source = place_ + "/unpreprocessed.cc", to = place_ + "/preprocessed.cc";
        write_file(source, "#undef __global__\n" + text);  // else it is gone
        for (const std::string& word : preprocess_arguments(source, to)) {
            command.push_back(word);
        }
        std::string preprocessed;
        if (cuda_on_cpu::run(command, place_ + "/log") != 0 || !read_file(to, preprocessed)) return kernels;
        return find_kernels(preprocessed, needs_preprocessor);
    }

    bool link(std::vector<std::string> command, const std::string& text) {
        const std::string source = place_ + "/source.cc", log = place_ + "/log";
        write_file(source, text);
        for (const std::string& word : link_arguments(source, shared_object())) {
            command.push_back(word);
        }
        if (getenv("CUDA_ON_CPU_KEEP")) {
            fprintf(stderr, "%s:", place_.c_str());
            for (const std::string& word : command) {
                fprintf(stderr, " %s", word.c_str());
            }
            fprintf(stderr, "\n");
        }
        const int status = cuda_on_cpu::run(command, log);
        read_file(log, program_.log);
        return status == 0;
    }

    std::string shared_object() const { return place_ + "/library.so"; }

    // By a rename, so that another process never sees a part of it.
    bool keep(const Exports& exports) const {
        std::string names, made;
        for (const std::string& expression : program_.expressions) {
            names += exports.lowered.at(expression) + "\n";
        }
        const std::string path = cached_ + ".so", unfinished = path + "." + std::to_string(getpid());
        return read_file(shared_object(), made) && write_file(cached_ + ".names", names) &&
               write_file(unfinished, made) && rename(unfinished.c_str(), path.c_str()) == 0;
    }

    Program& program_;
    const Options& options_;
    const std::string key_;
    const std::string cached_;  // without its suffix
    std::string place_;         // of temporary files
};

}  // namespace

Result Program::compile(const std::vector<std::string>& given) {
    Options options;
    log = parse(given, options);
    if (!log.empty()) return INVALID_OPTION;
    is_cubin = options.is_cubin;
    is_lto = options.is_lto;
    // so CuPy asks what version the compiler is of, by the comments of the PTX that comes of it
    const bool is_blank = source.find_first_not_of(" \t\r\n") == std::string::npos;
    if (is_blank && expressions.empty() && headers.empty() && !is_cubin) {
        module = as_module("");
        is_compiled = true;
        return SUCCESS;
    }
    return Compilation(*this, options, program_digest(*this, given)).run();
}

}  // namespace cuda_on_cpu
