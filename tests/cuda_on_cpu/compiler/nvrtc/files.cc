// Files, digests, locks and the commands that are run: see files.h.
#include "files.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern char** environ;

namespace cuda_on_cpu {

namespace {

std::string find_library_folder() {
    Dl_info info;
    dladdr(reinterpret_cast<void*>(&library_folder), &info);
    char* real = realpath(info.dli_fname, nullptr);
    const std::string path = real ? real : info.dli_fname;
    free(real);
    return path.substr(0, path.rfind('/'));
}

bool starts_with(const char* text, const char* prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

// What a test sets for its own process is not for g++: libraries put in front of the system's, a language.
bool is_for_compiler(const char* variable) {
    for (const char* name : {"LD_PRELOAD=", "LD_LIBRARY_PATH=", "CPATH=", "LANG=", "LC_"}) {
        if (starts_with(variable, name)) return false;
    }
    return true;
}

}  // namespace

std::string library_folder() {
    static const std::string found = find_library_folder();
    return found;
}

std::string built_folder() {
    return library_folder().substr(0, library_folder().rfind('/'));
}

std::string cache_folder() {
    const char* given = getenv("CUDA_ON_CPU_CACHE");
    const std::string path = given && *given ? given : built_folder() + "/cache";
    mkdir(path.c_str(), 0777);
    return path;
}

bool read_file(const std::string& path, std::string& text) {
    FILE* file = fopen(path.c_str(), "rb");
    if (!file) return false;
    text.clear();
    char part[65536];
    size_t n;
    while ((n = fread(part, 1, sizeof part, file)) > 0) {
        text.append(part, n);
    }
    fclose(file);
    return true;
}

bool write_file(const std::string& path, const std::string& text) {
    FILE* file = fopen(path.c_str(), "wb");
    if (!file) return false;
    const bool is_written = fwrite(text.data(), 1, text.size(), file) == text.size();
    return fclose(file) == 0 && is_written;
}

void make_folders(const std::string& path) {
    for (size_t i = 1; i < path.size(); ++i) {
        if (path[i] == '/') mkdir(path.substr(0, i).c_str(), 0777);
    }
}

std::string make_temporary_folder() {
    const char* given = getenv("TMPDIR");
    std::string path = std::string(given && *given ? given : P_tmpdir) + "/cuda-on-cpu-XXXXXX";
    return mkdtemp(path.data()) ? path : "";
}

std::string digest(const std::string& text) {
    // FNV-1a, and a linear congruence of another kind
    uint64_t a = 1469598103934665603ull, b = 88172645463325252ull;
    for (unsigned char c : text) {
        a = (a ^ c) * 1099511628211ull;
        b = (b + c) * 6364136223846793005ull + 1442695040888963407ull;
        b ^= b >> 29;
    }
    char made[33];
    snprintf(made, sizeof made, "%016llx%016llx", static_cast<unsigned long long>(a),
             static_cast<unsigned long long>(b));
    return made;
}

std::string stamped(const std::string& path) {
    struct stat found;
    if (stat(path.c_str(), &found)) return path + "?";
    char made[80];
    snprintf(made, sizeof made, "|%lld.%ld.%lld", static_cast<long long>(found.st_mtim.tv_sec), found.st_mtim.tv_nsec,
             static_cast<long long>(found.st_size));
    return path + made;
}

int run(const std::vector<std::string>& command, const std::string& log) {
    std::vector<char*> words;
    for (const std::string& word : command) {
        words.push_back(const_cast<char*>(word.c_str()));
    }
    words.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    std::vector<char*> environment;
    for (char** variable = environ; *variable; ++variable) {
        if (is_for_compiler(*variable)) environment.push_back(*variable);
    }
    environment.push_back(nullptr);
    pid_t process;
    const int failed = posix_spawnp(&process, words[0], &actions, &attributes, words.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (failed) {
        write_file(log, std::string("cannot start ") + words[0] + ": " + strerror(failed));
        return 127;
    }
    int status;
    while (waitpid(process, &status, 0) < 0) {
        if (errno != EINTR) return 126;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}

FileLock::FileLock(const std::string& path) : file_(open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666)) {
    if (file_ < 0) return;
    while (flock(file_, LOCK_EX) && errno == EINTR) {
    }
}

FileLock::~FileLock() {
    if (file_ >= 0) close(file_);
}

}  // namespace cuda_on_cpu
