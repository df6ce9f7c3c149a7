// cuSOLVER: LU and Cholesky, which CuPy's det, inv, solve and cholesky want.
//
// Its header is in a wheel of hundreds of megabytes, whose libraries nothing here wants: types are those of C.
#include <cstring>

#include "driver.h"
#include "factors.h"

using namespace cuda_on_cpu;

namespace {

// cusolverStatus_t
enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 3, EXECUTION_FAILED = 6 };

constexpr int LOWER = 0;  // of cublasFillMode_t

struct Handle {
    static constexpr unsigned ALIVE = 0x501;

    void* stream = nullptr;
    unsigned state = ALIVE;  // 0 when destroyed
};

// The checks of one call: the first that fails is reported and gives the status.
class Call {
public:
    Call(Handle* handle, const char* function) : function_(function) {
        if (!handle || handle->state != Handle::ALIVE) {
            report("cusolver", function, "no such handle %p", static_cast<void*>(handle));
            status_ = NOT_INITIALIZED;
        }
    }
    Call& needs(bool condition, const char* rule) {
        if (!condition && ok()) {
            report("cusolver", function_, "not so: %s", rule);
            status_ = INVALID_VALUE;
        }
        return *this;
    }
    bool ok() const { return status_ == SUCCESS; }
    Status status() const { return status_; }

private:
    const char* function_;
    Status status_ = SUCCESS;
};

template <class Work>
int queue(Handle* handle, const Work& work) {
    return enqueue(handle->stream, work) ? EXECUTION_FAILED : SUCCESS;
}

int create(Handle** handle) {
    *handle = new Handle;
    return SUCCESS;
}

// The memory is kept, so that a use after this is noticed.
int destroy(const char* function, Handle* handle) {
    Call call(handle, function);
    if (call.ok()) handle->state = 0;
    return call.status();
}

int set_stream(const char* function, Handle* handle, void* stream) {
    Call call(handle, function);
    if (call.ok()) handle->stream = stream;
    return call.status();
}

int get_stream(const char* function, Handle* handle, void** stream) {
    Call call(handle, function);
    if (call.ok()) *stream = handle->stream;
    return call.status();
}

void check_lu(Call& call, int m, int n, int lda) {
    call.needs(m >= 0 && n >= 0, "m and n aren't negative").needs(lda >= std::max(1, m), "lda is at least m");
}

int getrf_buffer_size(const char* function, Handle* handle, int m, int n, int lda, int* n_work) {
    Call call(handle, function);
    check_lu(call, m, n, lda);
    if (call.ok()) *n_work = std::max(1, m * n);
    return call.status();
}

template <class T>
int getrf(const char* function, Handle* handle, int m, int n, T* a, int lda, T* work, int* pivots, int* info) {
    Call call(handle, function);
    check_lu(call, m, n, lda);
    call.needs(a && info && work, "a, info and the work area aren't null");
    if (!call.ok()) return call.status();
    return queue(handle, [=] {
        // whoever keeps something in the work area is to notice
        memset(static_cast<void*>(work), 0xa5, sizeof(T) * static_cast<size_t>(std::max(1, m * n)));
        *info = lu_factors(m, n, a, lda, pivots);
    });
}

template <class T>
int getrs(const char* function, Handle* handle, int operation, int n, int n_columns, const T* a, int lda,
          const int* pivots, T* b, int ldb, int* info) {
    Call call(handle, function);
    call.needs(operation >= 0 && operation <= 2, "the operation is 0, 1 or 2");
    call.needs(lda >= std::max(1, n) && ldb >= std::max(1, n), "lda and ldb are at least n");
    call.needs(a && b && info, "a, b and info aren't null");
    if (!call.ok()) return call.status();
    return queue(handle, [=] {
        lu_solve(operation, n, n_columns, a, lda, pivots, b, ldb);
        *info = 0;
    });
}

int potrf_buffer_size(const char* function, Handle* handle, int n, int lda, int* n_work) {
    Call call(handle, function);
    call.needs(lda >= std::max(1, n), "lda is at least n");
    if (call.ok()) *n_work = std::max(1, n);
    return call.status();
}

template <class T>
int potrf(const char* function, Handle* handle, int fill, int n, T* a, int lda, int n_work, int* info) {
    Call call(handle, function);
    call.needs(lda >= std::max(1, n), "lda is at least n").needs(n_work >= n, "the work area has n numbers");
    call.needs(a && info, "a and info aren't null");
    if (!call.ok()) return call.status();
    return queue(handle, [=] { *info = cholesky_factor(fill == LOWER, n, a, lda); });
}

template <class T>
int potrf_batched(const char* function, Handle* handle, int fill, int n, T** a, int lda, int* info, int batch) {
    Call call(handle, function);
    call.needs(lda >= std::max(1, n), "lda is at least n").needs(a && info, "a and info aren't null");
    if (!call.ok()) return call.status();
    return queue(handle, [=] {
        for (int number = 0; number < batch; number++) {
            info[number] = cholesky_factor(fill == LOWER, n, a[number], lda);
        }
    });
}

}  // namespace

EXPORT int cusolverGetProperty(int type, int* value) {
    const int version[] = {11, 7, 5};
    *value = version[std::min(type, 2)];
    return SUCCESS;
}

EXPORT int cusolverDnCreate(Handle** handle) {
    return create(handle);
}
EXPORT int cusolverDnDestroy(Handle* handle) {
    return destroy(__func__, handle);
}
EXPORT int cusolverDnSetStream(Handle* handle, void* stream) {
    return set_stream(__func__, handle, stream);
}
EXPORT int cusolverDnGetStream(Handle* handle, void** stream) {
    return get_stream(__func__, handle, stream);
}
EXPORT int cusolverSpCreate(Handle** handle) {
    return create(handle);
}
EXPORT int cusolverSpDestroy(Handle* handle) {
    return destroy(__func__, handle);
}
EXPORT int cusolverSpSetStream(Handle* handle, void* stream) {
    return set_stream(__func__, handle, stream);
}
EXPORT int cusolverSpGetStream(Handle* handle, void** stream) {
    return get_stream(__func__, handle, stream);
}

#define DEFINE_GETRF(name, T)                                                                       \
    EXPORT int name(Handle* handle, int m, int n, T* a, int lda, T* work, int* pivots, int* info) { \
        return getrf(__func__, handle, m, n, a, lda, work, pivots, info);                           \
    }                                                                                               \
    EXPORT int name##_bufferSize(Handle* handle, int m, int n, T*, int lda, int* n_work) {          \
        return getrf_buffer_size(__func__, handle, m, n, lda, n_work);                              \
    }
DEFINE_GETRF(cusolverDnSgetrf, float)
DEFINE_GETRF(cusolverDnDgetrf, double)
DEFINE_GETRF(cusolverDnCgetrf, complex64)
DEFINE_GETRF(cusolverDnZgetrf, complex128)

#define DEFINE_GETRS(name, T)                                                                                          \
    EXPORT int name(Handle* handle, int operation, int n, int n_columns, const T* a, int lda, const int* pivots, T* b, \
                    int ldb, int* info) {                                                                              \
        return getrs(__func__, handle, operation, n, n_columns, a, lda, pivots, b, ldb, info);                         \
    }
DEFINE_GETRS(cusolverDnSgetrs, float)
DEFINE_GETRS(cusolverDnDgetrs, double)
DEFINE_GETRS(cusolverDnCgetrs, complex64)
DEFINE_GETRS(cusolverDnZgetrs, complex128)

#define DEFINE_POTRF(name, T)                                                                         \
    EXPORT int name(Handle* handle, int fill, int n, T* a, int lda, T*, int n_work, int* info) {      \
        return potrf(__func__, handle, fill, n, a, lda, n_work, info);                                \
    }                                                                                                 \
    EXPORT int name##_bufferSize(Handle* handle, int, int n, T*, int lda, int* n_work) {              \
        return potrf_buffer_size(__func__, handle, n, lda, n_work);                                   \
    }                                                                                                 \
    EXPORT int name##Batched(Handle* handle, int fill, int n, T** a, int lda, int* info, int batch) { \
        return potrf_batched(__func__, handle, fill, n, a, lda, info, batch);                         \
    }
DEFINE_POTRF(cusolverDnSpotrf, float)
DEFINE_POTRF(cusolverDnDpotrf, double)
DEFINE_POTRF(cusolverDnCpotrf, complex64)
DEFINE_POTRF(cusolverDnZpotrf, complex128)
