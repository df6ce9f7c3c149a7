// A blocked product of two matrices of any types, in the type T: panels of both are converted and packed, and small
// tiles of the result are summed in registers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "numbers.h"

namespace cuda_on_cpu {

// What becomes of 32-bit operands before they are multiplied, as tensor cores see them.
enum class Rounding { NONE, TF32, HALF, BFLOAT16 };

// Element (i, j) is number i * row_stride + j * column_stride of data.
struct Operand {
    const void* data;
    int type;
    int64_t row_stride;
    int64_t column_stride;
    bool conjugated;

    // of a matrix whose columns are `ld` apart, as BLAS has them; operation as cublasOperation_t
    static Operand of_columns(const void* data, int type, int64_t ld, int operation) {
        return Operand{data, type, operation ? ld : 1, operation ? 1 : ld, operation == 2};
    }
};

struct Free {
    void operator()(void* data) const { free(data); }
};
template <class T>
using Room = std::unique_ptr<T[], Free>;

template <class T>
Room<T> room(int64_t n) {
    size_t nbytes = (std::max<int64_t>(n, 1) * sizeof(T) + 63) / 64 * 64;
    return Room<T>(static_cast<T*>(aligned_alloc(64, nbytes)));
}

template <class T>
void round_all(T* x, int64_t n, Rounding rounding) {
    if constexpr (std::is_same<T, complex64>::value) {
        round_all(reinterpret_cast<float*>(x), 2 * n, rounding);
    } else if constexpr (std::is_same<T, float>::value) {
        if (rounding == Rounding::TF32) {
            for (int64_t i = 0; i < n; i++) {
                uint32_t bits = bits_of(x[i]);
                bool finite = (bits & 0x7f800000) != 0x7f800000;
                if (finite) x[i] = float_of((bits + 0xfff + (bits >> 13 & 1)) & 0xffffe000);
            }
        } else if (rounding == Rounding::HALF) {
            for (int64_t i = 0; i < n; i++)
                x[i] = static_cast<float>(static_cast<_Float16>(x[i]));
        } else if (rounding == Rounding::BFLOAT16) {
            for (int64_t i = 0; i < n; i++)
                x[i] = static_cast<float>(BFloat16(x[i]));
        }
    }
}

// A tile of the result has ROWS × COLUMNS numbers; DEPTH of the sums are packed at a time. Two vectors of 64 bytes make
// a column of a tile of real numbers.
template <class T>
struct Tile {
    static constexpr int ROWS = 128 / sizeof(T);
    static constexpr int COLUMNS = 8;
    static constexpr int DEPTH = 256;
};
template <>
struct Tile<complex64> {
    static constexpr int ROWS = 8;
    static constexpr int COLUMNS = 4;
    static constexpr int DEPTH = 256;
};
template <>
struct Tile<complex128> {
    static constexpr int ROWS = 4;
    static constexpr int COLUMNS = 4;
    static constexpr int DEPTH = 256;
};

// a: [depth][ROWS], b: [depth][COLUMNS], sums: [COLUMNS][ROWS]
template <class T>
__attribute__((noinline)) void multiply_tile(int64_t depth, const T* a, const T* b, T* sums) {
    constexpr int ROWS = Tile<T>::ROWS;
    constexpr int COLUMNS = Tile<T>::COLUMNS;
    if constexpr (is_complex<T>::value) {
        T kept[COLUMNS][ROWS] = {};
        for (int64_t k = 0; k < depth; k++, a += ROWS, b += COLUMNS) {
            for (int j = 0; j < COLUMNS; j++) {
                for (int i = 0; i < ROWS; i++)
                    kept[j][i] += a[i] * b[j];
            }
        }
        std::copy(&kept[0][0], &kept[0][0] + COLUMNS * ROWS, sums);
    } else {
        typedef T Vector __attribute__((vector_size(64)));
        Vector upper[COLUMNS];
        Vector lower[COLUMNS];
        for (int j = 0; j < COLUMNS; j++)
            upper[j] = lower[j] = Vector{};
        for (int64_t k = 0; k < depth; k++, a += ROWS, b += COLUMNS) {
            Vector a_upper = *reinterpret_cast<const Vector*>(a);
            Vector a_lower = *reinterpret_cast<const Vector*>(a + ROWS / 2);
#pragma GCC unroll 8
            for (int j = 0; j < COLUMNS; j++) {
                upper[j] += a_upper * b[j];
                lower[j] += a_lower * b[j];
            }
        }
        for (int j = 0; j < COLUMNS; j++) {
            *reinterpret_cast<Vector*>(sums + j * ROWS) = upper[j];
            *reinterpret_cast<Vector*>(sums + j * ROWS + ROWS / 2) = lower[j];
        }
    }
}

// Rows start … start + depth of b [·, n], as [n / COLUMNS][depth][COLUMNS], the last tile padded by zeros
template <class T>
void pack_right(const Operand& b, int64_t n, int64_t start, int64_t depth, Rounding rounding, T* into) {
    constexpr int COLUMNS = Tile<T>::COLUMNS;
    auto column = room<T>(depth);
    T* to = into;
    for (int64_t first = 0; first < n; first += COLUMNS, to += COLUMNS * depth) {
        int64_t width = std::min<int64_t>(COLUMNS, n - first);
        if (width < COLUMNS) std::fill(to, to + COLUMNS * depth, T(0));
        for (int64_t j = 0; j < width; j++) {
            int64_t at = (first + j) * b.column_stride + start * b.row_stride;
            load_line<T>(b.type, b.data, at, b.row_stride, depth, column.get());
            for (int64_t k = 0; k < depth; k++)
                to[k * COLUMNS + j] = conjugate_if(column[k], b.conjugated);
        }
    }
    round_all(into, to - into, rounding);
}

// Rows first … first + m and columns start … start + depth of a, as [m / ROWS][depth][ROWS], padded by zeros
template <class T>
void pack_left(const Operand& a, int64_t first, int64_t m, int64_t start, int64_t depth, Rounding rounding, T* into) {
    constexpr int ROWS = Tile<T>::ROWS;
    auto row = room<T>(depth);
    T* to = into;
    for (int64_t top = 0; top < m; top += ROWS, to += ROWS * depth) {
        int64_t height = std::min<int64_t>(ROWS, m - top);
        if (height < ROWS) std::fill(to, to + ROWS * depth, T(0));
        // along the axis that is dense in memory
        if (a.row_stride == 1 || a.column_stride != 1) {
            for (int64_t k = 0; k < depth; k++) {
                int64_t at = (first + top) * a.row_stride + (start + k) * a.column_stride;
                load_line<T>(a.type, a.data, at, a.row_stride, height, to + k * ROWS);
            }
        } else {
            for (int64_t i = 0; i < height; i++) {
                load_line<T>(a.type, a.data, (first + top + i) * a.row_stride + start, 1, depth, row.get());
                for (int64_t k = 0; k < depth; k++)
                    to[k * ROWS + i] = row[k];
            }
        }
    }
    if (a.conjugated) {
        for (T* x = into; x < to; x++)
            *x = conjugate_if(*x, true);
    }
    round_all(into, to - into, rounding);
}

// out [m, n], packed by columns, = a [m, k] · b [k, n]
template <class T>
void multiply(int64_t m, int64_t n, int64_t k, const Operand& a, const Operand& b, Rounding rounding, T* out) {
    constexpr int ROWS = Tile<T>::ROWS;
    constexpr int COLUMNS = Tile<T>::COLUMNS;
    constexpr int64_t DEPTH = Tile<T>::DEPTH;
    constexpr int64_t PANEL = 512 / ROWS * ROWS;
    std::fill(out, out + m * n, T(0));
    auto left = room<T>(PANEL * DEPTH);
    auto right = room<T>((n + COLUMNS - 1) / COLUMNS * COLUMNS * DEPTH);
    alignas(64) T sums[ROWS * COLUMNS];
    for (int64_t start = 0; start < k; start += DEPTH) {
        int64_t depth = std::min(DEPTH, k - start);
        pack_right(b, n, start, depth, rounding, right.get());
        for (int64_t first = 0; first < m; first += PANEL) {
            int64_t panel = std::min(PANEL, m - first);
            pack_left(a, first, panel, start, depth, rounding, left.get());
            for (int64_t j = 0; j < n; j += COLUMNS) {
                int64_t width = std::min<int64_t>(COLUMNS, n - j);
                for (int64_t i = 0; i < panel; i += ROWS) {
                    int64_t height = std::min<int64_t>(ROWS, panel - i);
                    multiply_tile<T>(depth, left.get() + i * depth, right.get() + j * depth, sums);
                    for (int64_t column = 0; column < width; column++) {
                        T* to = out + (j + column) * m + first + i;
                        for (int64_t row = 0; row < height; row++)
                            to[row] += sums[column * ROWS + row];
                    }
                }
            }
        }
    }
}

}  // namespace cuda_on_cpu
