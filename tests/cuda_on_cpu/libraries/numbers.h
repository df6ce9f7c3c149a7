// Number formats, by the numbers of cudaDataType: their sizes and names, conversions between them, and lines of a
// matrix loaded as, and stored from, the type that is computed in.
#pragma once

#include <library_types.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>

namespace cuda_on_cpu {

using complex64 = std::complex<float>;
using complex128 = std::complex<double>;

// 0 for a type that no library here knows
inline int item_nbytes(int type) {
    switch (type) {
        case CUDA_R_8I:
        case CUDA_R_8U:
        case CUDA_R_8F_E4M3:
        case CUDA_R_8F_E5M2: return 1;
        case CUDA_R_16F:
        case CUDA_R_16BF: return 2;
        case CUDA_R_32F:
        case CUDA_R_32I: return 4;
        case CUDA_R_64F:
        case CUDA_C_32F: return 8;
        case CUDA_C_64F: return 16;
    }
    return 0;
}

inline const char* type_name(int type) {
    switch (type) {
        case CUDA_R_32F: return "32F";
        case CUDA_R_64F: return "64F";
        case CUDA_R_16F: return "16F";
        case CUDA_R_8I: return "8I";
        case CUDA_C_32F: return "C32F";
        case CUDA_C_64F: return "C64F";
        case CUDA_R_8U: return "8U";
        case CUDA_R_32I: return "32I";
        case CUDA_R_16BF: return "16BF";
        case CUDA_R_8F_E4M3: return "8F_E4M3";
        case CUDA_R_8F_E5M2: return "8F_E5M2";
    }
    static thread_local char text[16];
    snprintf(text, sizeof text, "%d", type);
    return text;
}

inline bool is_float8(int type) {
    return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2;
}

inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

struct BFloat16 {
    uint16_t bits;
    BFloat16() = default;
    explicit BFloat16(float value) {
        uint32_t all = bits_of(value);
        bool is_nan = (all & 0x7fffffff) > 0x7f800000;
        bits = is_nan ? 0x7fff : static_cast<uint16_t>((all + 0x7fff + (all >> 16 & 1)) >> 16);
    }
    explicit operator float() const { return float_of(static_cast<uint32_t>(bits) << 16); }
};

// OCP's 8-bit floats: E5M2 has infinities as IEEE 754 has them, E4M3 has none, and a single NaN of each sign.
template <int exponent_nbits, int mantissa_nbits>
struct Float8 {
    uint8_t bits;
    Float8() = default;

    // Saturates to the largest finite number, as cuBLASLt stores.
    explicit Float8(float value) {
        const float* values = table();
        uint8_t sign = std::signbit(value) ? 128 : 0;
        float size = fabsf(value);
        if (std::isnan(value)) {
            bits = sign | 0x7f;
        } else if (size >= values[largest]) {
            bits = sign | largest;
        } else {
            int below = static_cast<int>(std::upper_bound(values, values + largest + 1, size) - values) - 1;
            float from_below = size - values[below];
            float from_above = values[below + 1] - size;
            bool up = from_below > from_above || (from_below == from_above && (below & 1));
            bits = sign | static_cast<uint8_t>(below + up);
        }
    }
    explicit operator float() const { return table()[bits]; }

private:
    static constexpr int largest = exponent_nbits == 4 ? 0x7e : 0x7b;

    static float decode(int bits) {
        int exponent = bits >> mantissa_nbits & ((1 << exponent_nbits) - 1);
        int mantissa = bits & ((1 << mantissa_nbits) - 1);
        int bias = (1 << (exponent_nbits - 1)) - 1;
        float size;
        if (exponent_nbits == 5 && exponent == 31) {
            size = mantissa ? NAN : INFINITY;
        } else if (exponent_nbits == 4 && exponent == 15 && mantissa == 7) {
            size = NAN;
        } else if (exponent) {
            size = ldexpf(static_cast<float>((1 << mantissa_nbits) + mantissa), exponent - bias - mantissa_nbits);
        } else {
            size = ldexpf(static_cast<float>(mantissa), 1 - bias - mantissa_nbits);
        }
        return bits & 128 ? -size : size;
    }
    struct Table {
        float values[256];
        Table() {
            for (int i = 0; i < 256; i++)
                values[i] = decode(i);
        }
    };
    static const float* table() {
        static const Table all;
        return all.values;
    }
};
using Float8E4M3 = Float8<4, 3>;
using Float8E5M2 = Float8<5, 2>;

template <class T>
struct is_complex : std::false_type {};
template <class R>
struct is_complex<std::complex<R>> : std::true_type {};

template <class T>
T conjugate_if(T x, bool conjugated) {
    if constexpr (is_complex<T>::value) {
        return conjugated ? std::conj(x) : x;
    } else {
        return x;
    }
}

// To the nearest; integers saturate, NaN becomes 0.
template <class To, class From>
To convert(From x) {
    if constexpr (is_complex<From>::value) {
        if constexpr (is_complex<To>::value) {
            using R = typename To::value_type;
            return To(static_cast<R>(x.real()), static_cast<R>(x.imag()));
        } else {
            return To(x.real());
        }
    } else if constexpr (std::is_class<From>::value) {
        return convert<To>(static_cast<float>(x));
    } else if constexpr (is_complex<To>::value) {
        return To(static_cast<typename To::value_type>(x));
    } else if constexpr (std::is_class<To>::value) {
        return To(static_cast<float>(x));
    } else if constexpr (std::is_integral<To>::value && !std::is_integral<From>::value) {
        double rounded = std::nearbyint(static_cast<double>(x));
        constexpr To low = std::numeric_limits<To>::min();
        constexpr To high = std::numeric_limits<To>::max();
        if (std::isnan(rounded)) return To(0);
        if (rounded <= static_cast<double>(low)) return low;
        if (rounded >= static_cast<double>(high)) return high;
        return To(rounded);
    } else {
        return To(x);
    }
}

// Calls f with a null pointer to the C++ type of `type`.
template <class F>
void dispatch(int type, F f) {
    switch (type) {
        case CUDA_R_32F: return f(static_cast<float*>(nullptr));
        case CUDA_R_64F: return f(static_cast<double*>(nullptr));
        case CUDA_R_16F: return f(static_cast<_Float16*>(nullptr));
        case CUDA_R_16BF: return f(static_cast<BFloat16*>(nullptr));
        case CUDA_R_8I: return f(static_cast<int8_t*>(nullptr));
        case CUDA_R_8U: return f(static_cast<uint8_t*>(nullptr));
        case CUDA_R_32I: return f(static_cast<int32_t*>(nullptr));
        case CUDA_C_32F: return f(static_cast<complex64*>(nullptr));
        case CUDA_C_64F: return f(static_cast<complex128*>(nullptr));
        case CUDA_R_8F_E4M3: return f(static_cast<Float8E4M3*>(nullptr));
        case CUDA_R_8F_E5M2: return f(static_cast<Float8E5M2*>(nullptr));
    }
    abort();  // callers ask item_nbytes() first
}

// n numbers of `from`, beginning with number `start`, `stride` apart
template <class T>
void load_line(int type, const void* from, int64_t start, int64_t stride, int64_t n, T* into) {
    dispatch(type, [=](auto* tag) {
        using From = std::remove_pointer_t<decltype(tag)>;
        const From* first = static_cast<const From*>(from) + start;
        if (stride == 1) {
            for (int64_t i = 0; i < n; i++)
                into[i] = convert<T>(first[i]);
        } else {
            for (int64_t i = 0; i < n; i++)
                into[i] = convert<T>(first[i * stride]);
        }
    });
}

template <class T>
void store_line(int type, void* into, int64_t start, int64_t stride, int64_t n, const T* from) {
    dispatch(type, [=](auto* tag) {
        using Into = std::remove_pointer_t<decltype(tag)>;
        Into* first = static_cast<Into*>(into) + start;
        for (int64_t i = 0; i < n; i++)
            first[i * stride] = convert<Into>(from[i]);
    });
}

template <class T>
T load_one(int type, const void* from) {
    T value;
    load_line<T>(type, from, 0, 1, 1, &value);
    return value;
}

}  // namespace cuda_on_cpu
