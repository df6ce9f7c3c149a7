// cuFFT: transforms of complex and real numbers, single and double, of up to three dimensions, with the advanced data
// layout. All sums are of doubles.
//
// Its header is in a wheel of hundreds of megabytes, whose libraries nothing here wants: types are those of C.
#include <algorithm>
#include <map>
#include <mutex>
#include <vector>

#include "driver.h"
#include "numbers.h"

using namespace cuda_on_cpu;

namespace {

// cufftResult
enum Result {
    SUCCESS = 0,
    INVALID_PLAN = 1,
    INVALID_TYPE = 3,
    INVALID_VALUE = 4,
    EXEC_FAILED = 6,
    INVALID_SIZE = 8,
    UNALIGNED_DATA = 9,
    NO_WORKSPACE = 13,
};

// cufftType
enum Type { R2C = 0x2a, C2R = 0x2c, C2C = 0x29, D2Z = 0x6a, Z2D = 0x6c, Z2Z = 0x69 };

constexpr size_t WORK_NBYTES = 256;
constexpr int FORWARD = -1;
constexpr int INVERSE = 1;

// Number (i, j, k) of transform z lies at z * distance + ((i * embed[1] + j) * embed[2] + k) * stride.
struct Place {
    int64_t embed[3];
    int64_t stride;
    int64_t distance;

    int64_t at(int64_t z, int64_t i, int64_t j, int64_t k) const {
        return z * distance + ((i * embed[1] + j) * embed[2] + k) * stride;
    }
};

struct Plan {
    void* stream;
    void* work;
    bool is_made;
    bool has_work_of_its_own;
    int type;
    int64_t batch;
    int64_t n[3];  // 1 for the first ones of less than three dimensions
    Place in;
    Place out;

    bool from_real() const { return type == R2C || type == D2Z; }
    bool to_real() const { return type == C2R || type == Z2D; }
    bool is_double() const { return type == D2Z || type == Z2D || type == Z2Z; }
};

std::mutex lock;
std::map<int, Plan> plans;
int next_plan = 1;

int refuse(const char* function, Result result, const char* what) {
    report("cufft", function, "%s", what);
    return result;
}

// Calls change(plan) under the lock.
template <class Change>
int with_plan(const char* function, int number, const Change& change) {
    std::lock_guard<std::mutex> held(lock);
    auto found = plans.find(number);
    if (found == plans.end()) return refuse(function, INVALID_PLAN, "no such plan");
    return change(found->second);
}

Place place_of(int rank, const int64_t (&n)[3], int last, const int* embed, int stride, int distance) {
    Place place{{1, 1, 1}, embed ? stride : 1, distance};
    int64_t n_numbers = 1;
    for (int i = 0; i < rank; i++) {
        int axis = 3 - rank + i;
        place.embed[axis] = embed ? embed[i] : axis == 2 ? last : n[axis];
        n_numbers *= place.embed[axis];
    }
    if (!embed) place.distance = n_numbers;
    return place;
}

// A transform in place by mixed radices: of n numbers, whose roots of unity are `step` apart among all.
void transform_line(complex128* x, int64_t n, complex128* scratch, const complex128* roots, int64_t step) {
    if (n == 1) return;
    int64_t radix = 2;
    while (radix * radix <= n && n % radix)
        radix++;
    if (n % radix) radix = n;
    int64_t part = n / radix;
    if (part > 1) {
        for (int64_t r = 0; r < radix; r++) {
            for (int64_t i = 0; i < part; i++)
                scratch[r * part + i] = x[i * radix + r];
        }
        std::copy(scratch, scratch + n, x);
        for (int64_t r = 0; r < radix; r++)
            transform_line(x + r * part, part, scratch, roots, step * radix);
    }
    for (int64_t k = 0; k < n; k++) {
        complex128 sum = 0;
        for (int64_t r = 0; r < radix; r++)
            sum += x[r * part + k % part] * roots[r * k % n * step];
        scratch[k] = sum;
    }
    std::copy(scratch, scratch + n, x);
}

// Calls f(i, j, k) for all with k below `last`
template <class F>
void each_number(const int64_t (&n)[3], int64_t last, const F& f) {
    for (int64_t i = 0; i < n[0]; i++) {
        for (int64_t j = 0; j < n[1]; j++) {
            for (int64_t k = 0; k < last; k++)
                f(i, j, k);
        }
    }
}

template <class R>
void transform(const Plan& plan, const void* in, void* out, int direction) {
    using C = std::complex<R>;
    const int64_t(&n)[3] = plan.n;
    int64_t half = n[2] / 2 + 1;
    int64_t steps[3] = {n[1] * n[2], n[2], 1};
    int64_t n_numbers = n[0] * n[1] * n[2];
    std::vector<complex128> x(n_numbers);
    std::vector<complex128> line(std::max({n[0], n[1], n[2]}));
    std::vector<complex128> scratch(line.size());
    std::vector<complex128> roots[3];
    for (int axis = 0; axis < 3; axis++) {
        for (int64_t i = 0; i < n[axis]; i++) {
            roots[axis].push_back(std::polar(1.0, direction * 2 * M_PI * static_cast<double>(i) / n[axis]));
        }
    }
    for (int64_t z = 0; z < plan.batch; z++) {
        each_number(n, n[2], [&](int64_t i, int64_t j, int64_t k) {
            complex128& to = x[i * steps[0] + j * steps[1] + k];
            if (plan.from_real()) {
                to = static_cast<double>(static_cast<const R*>(in)[plan.in.at(z, i, j, k)]);
            } else if (plan.to_real() && k >= half) {
                int64_t mirrored = plan.in.at(z, (n[0] - i) % n[0], (n[1] - j) % n[1], n[2] - k);
                to = std::conj(complex128(static_cast<const C*>(in)[mirrored]));
            } else {
                to = complex128(static_cast<const C*>(in)[plan.in.at(z, i, j, k)]);
            }
        });
        for (int axis = 0; axis < 3; axis++) {
            for (int64_t start = 0; n[axis] > 1 && start < n_numbers; start++) {
                if (start / steps[axis] % n[axis]) continue;
                for (int64_t i = 0; i < n[axis]; i++)
                    line[i] = x[start + i * steps[axis]];
                transform_line(line.data(), n[axis], scratch.data(), roots[axis].data(), 1);
                for (int64_t i = 0; i < n[axis]; i++)
                    x[start + i * steps[axis]] = line[i];
            }
        }
        each_number(n, plan.from_real() ? half : n[2], [&](int64_t i, int64_t j, int64_t k) {
            complex128 value = x[i * steps[0] + j * steps[1] + k];
            int64_t at = plan.out.at(z, i, j, k);
            if (plan.to_real()) {
                static_cast<R*>(out)[at] = static_cast<R>(value.real());
            } else {
                static_cast<C*>(out)[at] = convert<C>(value);
            }
        });
    }
}

int execute(const char* function, int number, int type, const void* in, void* out, int direction) {
    Plan plan;
    int result = with_plan(function, number, [&](const Plan& found) -> int {
        plan = found;
        return SUCCESS;
    });
    if (result) return result;
    if (!plan.is_made) return refuse(function, INVALID_PLAN, "the plan wasn't made");
    if (plan.type != type) return refuse(function, INVALID_PLAN, "the plan is of another type");
    if (!in || !out) return refuse(function, INVALID_VALUE, "null");
    if (direction != FORWARD && direction != INVERSE) {
        return refuse(function, INVALID_VALUE, "the direction is neither 1 nor -1");
    }
    if (!plan.has_work_of_its_own && !plan.work) return refuse(function, NO_WORKSPACE, "no work area was set");
    size_t real_nbytes = plan.is_double() ? sizeof(double) : sizeof(float);
    bool in_aligned = reinterpret_cast<uintptr_t>(in) % (plan.from_real() ? real_nbytes : 2 * real_nbytes) == 0;
    bool out_aligned = reinterpret_cast<uintptr_t>(out) % (plan.to_real() ? real_nbytes : 2 * real_nbytes) == 0;
    if (!in_aligned || !out_aligned) return refuse(function, UNALIGNED_DATA, "data is not aligned to its type");
    int status = enqueue(plan.stream, [=] {
        // whoever keeps something in the work area is to notice
        if (!plan.has_work_of_its_own) memset(plan.work, 0xa5, WORK_NBYTES);
        if (plan.is_double()) {
            transform<double>(plan, in, out, direction);
        } else {
            transform<float>(plan, in, out, direction);
        }
    });
    return status ? EXEC_FAILED : SUCCESS;
}

}  // namespace

EXPORT int cufftCreate(int* number) {
    std::lock_guard<std::mutex> held(lock);
    *number = next_plan++;
    plans[*number] = Plan{};
    plans[*number].has_work_of_its_own = true;
    return SUCCESS;
}

EXPORT int cufftDestroy(int number) {
    std::lock_guard<std::mutex> held(lock);
    return plans.erase(number) ? SUCCESS : refuse(__func__, INVALID_PLAN, "no such plan");
}

EXPORT int cufftGetVersion(int* version) {
    *version = 11401;
    return SUCCESS;
}

EXPORT int cufftSetAutoAllocation(int number, int automatic) {
    return with_plan(__func__, number, [=](Plan& plan) -> int {
        plan.has_work_of_its_own = automatic;
        return SUCCESS;
    });
}

EXPORT int cufftSetWorkArea(int number, void* work) {
    return with_plan(__func__, number, [=](Plan& plan) -> int {
        plan.work = work;
        return SUCCESS;
    });
}

EXPORT int cufftSetStream(int number, void* stream) {
    return with_plan(__func__, number, [=](Plan& plan) -> int {
        plan.stream = stream;
        return SUCCESS;
    });
}

EXPORT int cufftMakePlanMany(int number, int rank, int* n, int* in_embed, int in_stride, int in_distance,
                             int* out_embed, int out_stride, int out_distance, int type, int batch,
                             size_t* work_nbytes) {
    const char* function = __func__;
    return with_plan(function, number, [=](Plan& plan) -> int {
        if (rank < 1 || rank > 3) return refuse(function, INVALID_VALUE, "rank is not 1, 2 or 3");
        bool known = type == R2C || type == C2R || type == C2C || type == D2Z || type == Z2D || type == Z2Z;
        if (!known) return refuse(function, INVALID_TYPE, "no such type");
        if (batch < 1) return refuse(function, INVALID_SIZE, "batch is not positive");
        for (int i = 0; i < rank; i++) {
            if (n[i] < 1) return refuse(function, INVALID_SIZE, "a size is not positive");
        }
        if (!in_embed != !out_embed) {
            return refuse(function, INVALID_VALUE, "inembed and onembed: one is null, one not");
        }
        plan.type = type;
        plan.batch = batch;
        std::fill(plan.n, plan.n + 3, 1);
        std::copy(n, n + rank, plan.n + 3 - rank);
        int last = n[rank - 1];
        plan.in = place_of(rank, plan.n, plan.to_real() ? last / 2 + 1 : last, in_embed, in_stride, in_distance);
        plan.out = place_of(rank, plan.n, plan.from_real() ? last / 2 + 1 : last, out_embed, out_stride, out_distance);
        if (work_nbytes) *work_nbytes = WORK_NBYTES;
        plan.is_made = true;
        return SUCCESS;
    });
}

EXPORT int cufftMakePlan1d(int number, int n, int type, int batch, size_t* work_nbytes) {
    return cufftMakePlanMany(number, 1, &n, nullptr, 1, 0, nullptr, 1, 0, type, batch, work_nbytes);
}

EXPORT int cufftExecC2C(int number, void* in, void* out, int direction) {
    return execute(__func__, number, C2C, in, out, direction);
}

EXPORT int cufftExecR2C(int number, void* in, void* out) {
    return execute(__func__, number, R2C, in, out, FORWARD);
}

EXPORT int cufftExecC2R(int number, void* in, void* out) {
    return execute(__func__, number, C2R, in, out, INVERSE);
}

EXPORT int cufftExecZ2Z(int number, void* in, void* out, int direction) {
    return execute(__func__, number, Z2Z, in, out, direction);
}

EXPORT int cufftExecD2Z(int number, void* in, void* out) {
    return execute(__func__, number, D2Z, in, out, FORWARD);
}

EXPORT int cufftExecZ2D(int number, void* in, void* out) {
    return execute(__func__, number, Z2D, in, out, INVERSE);
}
