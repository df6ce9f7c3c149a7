// Special functions of CUDA's that glibc has not, in double.
#pragma once

#include <math.h>

namespace cuda_on_cpu {

static inline double cospi(double x) {
    x = fabs(fmod(x, 2.0));
    if (x > 1) x = 2 - x;
    if (x == 0.5) return 0;
    return x > 0.5 ? -cos(M_PI * (1 - x)) : cos(M_PI * x);
}

static inline double sinpi(double x) {
    const double given = x;
    x = fmod(x, 2.0);
    if (x > 1) x -= 2;
    if (x < -1) x += 2;
    if (x == 0 || x == 1 || x == -1) return copysign(0.0, given);
    if (x > 0.5) {
        x = 1 - x;
    } else if (x < -0.5) {
        x = -1 - x;
    }
    return sin(M_PI * x);
}

static inline double rsqrt(double x) {
    return 1.0 / sqrt(x);
}
static inline double rcbrt(double x) {
    return 1.0 / cbrt(x);
}

// exp(x²) erfc(x): from 25 on by its asymptotic series, where the factors leave the range of double.
static inline double erfcx(double x) {
    if (x < 25) return exp(x * x) * erfc(x);
    const double y = 1 / (x * x);
    return 0.5641895835477562869 / x * (1 - y / 2 * (1 - 3 * y / 2 * (1 - 5 * y / 2)));
}

static inline double normcdf(double x) {
    return 0.5 * erfc(-x / M_SQRT2);
}

static inline double polynomial(const double* coefficients, int n, double x) {
    double y = coefficients[0];
    for (int i = 1; i < n; ++i) {
        y = y * x + coefficients[i];
    }
    return y;
}

// P. J. Acklam's approximation, then two steps of Halley's method.
static inline double normcdfinv(double p) {
    static const double a[] = {-3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                               1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00};
    static const double b[] = {-5.447609879822406e+01, 1.615858368580409e+02,  -1.556989798598866e+02,
                               6.680131188771972e+01,  -1.328068155288572e+01, 1.0};
    static const double c[] = {-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                               -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00};
    static const double d[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                               3.754408661907416e+00, 1.0};
    const double tail = 0.02425;
    if (!(p >= 0 && p <= 1)) return NAN;
    if (p == 0) return -INFINITY;
    if (p == 1) return INFINITY;
    double x;
    if (p < tail || p > 1 - tail) {
        const double q = sqrt(-2 * log(p < 0.5 ? p : 1 - p));
        x = polynomial(c, 6, q) / polynomial(d, 5, q);
        if (p > 0.5) x = -x;
    } else {
        const double q = p - 0.5, r = q * q;
        x = polynomial(a, 6, r) * q / polynomial(b, 6, r);
    }
    for (int i = 0; i < 2; ++i) {
        const double error = x < 0 ? 0.5 * erfc(-x / M_SQRT2) - p : (1 - p) - 0.5 * erfc(x / M_SQRT2);
        const double step = error * sqrt(2 * M_PI) * exp(x * x / 2);
        x = x - step / (1 + x * step / 2);
    }
    return x;
}

static inline double erfinv(double y) {
    if (!(y >= -1 && y <= 1)) return NAN;
    if (y == 1) return INFINITY;
    if (y == -1) return -INFINITY;
    if (y == 0) return y;
    double x = normcdfinv((y + 1) / 2) / M_SQRT2;
    if (fabs(y) >= 0.5) return x;
    // near 0 the above has lost digits: two of Newton's steps
    for (int i = 0; i < 2; ++i) {
        x -= (erf(x) - y) / (1.1283791670955126 * exp(-x * x));
    }
    return x;
}

static inline double erfcinv(double y) {
    if (y == 0) return INFINITY;
    if (y == 2) return -INFINITY;
    return -normcdfinv(y / 2) / M_SQRT2;
}

// The modified Bessel function of the first kind, by its power series.
static inline double modified_bessel(int order, double x) {
    double term = order ? x / 2 : 1, sum = 0;
    for (int k = 0; k < 500; ++k) {
        sum += term;
        term *= x * x / 4 / ((k + 1.0) * (k + 1.0 + order));
        if (fabs(term) < 1e-18 * fabs(sum)) break;
    }
    return sum;
}

static inline double cyl_bessel_i0(double x) {
    return modified_bessel(0, x);
}
static inline double cyl_bessel_i1(double x) {
    return modified_bessel(1, x);
}

static inline double rhypot(double x, double y) {
    return 1.0 / hypot(x, y);
}
static inline double norm3d(double x, double y, double z) {
    return sqrt(x * x + y * y + z * z);
}
static inline double rnorm3d(double x, double y, double z) {
    return 1.0 / sqrt(x * x + y * y + z * z);
}
static inline double norm4d(double x, double y, double z, double w) {
    return sqrt(x * x + y * y + z * z + w * w);
}
static inline double rnorm4d(double x, double y, double z, double w) {
    return 1.0 / sqrt(x * x + y * y + z * z + w * w);
}

}  // namespace cuda_on_cpu
