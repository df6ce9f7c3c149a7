// Files, digests, locks and the commands that are run.
#pragma once

#include <string>
#include <vector>

namespace cuda_on_cpu {

// Where this library lies, and libcuda_on_cpu_kernels.so; and the folder above, that make.py builds into.
std::string library_folder();
std::string built_folder();
// CUDA_ON_CPU_CACHE, or one of the built folder.
std::string cache_folder();

bool read_file(const std::string& path, std::string& text);
bool write_file(const std::string& path, const std::string& text);
// Those above `path`.
void make_folders(const std::string& path);
// A new folder for temporary files, or "".
std::string make_temporary_folder();

std::string digest(const std::string& text);
// The path with its time of change and size: another where what is there is another.
std::string stamped(const std::string& path);

// Runs a command with its output in `log`, and returns its exit status.
int run(const std::vector<std::string>& command, const std::string& log);

// Among processes, while it lives.
class FileLock {
public:
    explicit FileLock(const std::string& path);
    ~FileLock();
    FileLock(const FileLock&) = delete;

private:
    int file_;
};

}  // namespace cuda_on_cpu
