// The commands of g++: see gcc.h.
#include "gcc.h"

#include <sys/stat.h>
#include <unistd.h>

#include "files.h"

namespace cuda_on_cpu {

const char* const CUPY_HEADERS =
    "#include <cupy/complex.cuh>\n#include <cupy/carray.cuh>\n#include <cupy/atomics.cuh>\n"
    "#include <cupy/math_constants.h>\n";

namespace {

// Of a GPU's arithmetic: integers wrap, and no two operations are made one. Types are punned in many a kernel. Modules
// are loaded and told apart by dlopen, so that none of their variables may be unique in the process.
const std::vector<std::string> FLAGS = {"-O1",
                                        "-w",
                                        "-fPIC",
                                        "-fno-gnu-unique",
                                        "-fno-strict-aliasing",
                                        "-fno-threadsafe-statics",
                                        "-ffp-contract=off",
                                        "-fwrapv",
                                        "-fno-math-errno",
                                        "-fmax-errors=20",
                                        "-pipe"};

// As prepare.py makes them. Headers of our own and of NVIDIA's that NVRTC has built in, in front of a program's
// folders; and those that are only for programs that have none.
std::string first_headers() {
    return built_folder() + "/made/compiler/include";
}
std::string last_headers() {
    return built_folder() + "/made/compiler/include_last";
}

std::vector<std::string> beginning(const Options& options) {
    std::vector<std::string> command = {"g++", "-std=c++" + options.standard};
    command.insert(command.end(), FLAGS.begin(), FLAGS.end());
    command.push_back("-I" + first_headers());
    return command;
}

std::string find_compiler_digest() {
    const std::string compiler = library_folder() + "/libnvrtc.so.12";
    const std::string kernels = library_folder() + "/libcuda_on_cpu_kernels.so";
    return digest(stamped(compiler) + stamped(kernels) + stamped(first_headers()) + stamped(last_headers()));
}

void precompile(const Options& options, const std::string& header, const std::string& log) {
    std::vector<std::string> command = beginning(options);
    for (const std::string& folder : options.includes) {
        command.push_back("-I" + folder);
    }
    const std::string made = header + ".gch";
    command.insert(command.end(), {"-idirafter", last_headers(), "-x", "c++-header", header, "-o", made});
    // without it, g++ reads the header itself
    if (run(command, log) != 0) unlink(made.c_str());
}

}  // namespace

std::string compiler_digest() {
    static const std::string found = find_compiler_digest();
    return found;
}

std::string leading_header(const Options& options, bool has_cupy, bool has_half) {
    std::string key = compiler_digest() + options.standard;
    Options of_header = options;
    if (!has_cupy) of_header.includes.clear();
    for (const std::string& folder : of_header.includes) {
        key += "\n" + folder;
        for (const char* name : {"/cupy/carray.cuh", "/cupy/complex.cuh", "/cupy/float16.cuh"}) {
            key += stamped(folder + name);
        }
    }
    if (has_cupy) key += has_half ? "with float16" : "with CuPy's";
    const std::string place = cache_folder() + "/header-" + digest(key);
    const std::string header = place + "/" + (has_cupy ? "cupy.h" : "language.h");
    const std::string done = place + "/done";
    if (access(done.c_str(), F_OK) == 0) return header;
    mkdir(place.c_str(), 0777);
    FileLock lock(place + "/lock");
    if (access(done.c_str(), F_OK) == 0) return header;
    std::string text = "#include \"" + first_headers() + "/cuda_on_cpu/language.h\"\n";
    if (has_cupy) text += CUPY_HEADERS;
    if (has_half) text += "#include <cupy/float16.cuh>\n";
    write_file(header, text);
    precompile(of_header, header, place + "/log");
    write_file(done, "");
    return header;
}

std::vector<std::string> compile_command(const Options& options, const std::string& header, const std::string& folder) {
    std::vector<std::string> command = beginning(options);
    if (!folder.empty()) command.push_back("-I" + folder);
    command.insert(command.end(), options.flags.begin(), options.flags.end());
    command.insert(command.end(), {"-idirafter", last_headers(), "-include", header});
    return command;
}

std::vector<std::string> preprocess_arguments(const std::string& source, const std::string& to) {
    return {"-E", "-P", source, "-o", to};
}

std::vector<std::string> link_arguments(const std::string& source, const std::string& to) {
    return {"-shared",
            source,
            "-L" + library_folder(),
            "-lcuda_on_cpu_kernels",
            "-Wl,-rpath," + library_folder(),
            "-Wl,-Bsymbolic",
            "-Wl,-z,now",
            "-Wl,--wrap=__assert_fail",
            "-lm",
            "-o",
            to};
}

}  // namespace cuda_on_cpu
