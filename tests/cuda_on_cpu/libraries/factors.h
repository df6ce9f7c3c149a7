// LU and Cholesky factors of a matrix by columns, and solutions by the former, as LAPACK's getrf, getrs and potrf.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "numbers.h"

namespace cuda_on_cpu {

// In place. pivots (from 1) may be null: then rows are not exchanged. Returns 0, or the number of the first pivot
// (from 1) that is 0.
template <class T>
int lu_factors(int m, int n, T* a, int64_t lda, int* pivots) {
    int first_zero = 0;
    for (int k = 0; k < std::min(m, n); k++) {
        T* column = a + k * lda;
        if (pivots) {
            int best = k;
            for (int i = k + 1; i < m; i++) {
                if (std::abs(column[i]) > std::abs(column[best])) best = i;
            }
            pivots[k] = best + 1;
            if (best != k) {
                for (int j = 0; j < n; j++)
                    std::swap(a[j * lda + k], a[j * lda + best]);
            }
        }
        if (column[k] == T(0)) {
            if (!first_zero) first_zero = k + 1;
            continue;
        }
        for (int i = k + 1; i < m; i++)
            column[i] /= column[k];
        for (int j = k + 1; j < n; j++) {
            T* other = a + j * lda;
            T scale = other[k];
            for (int i = k + 1; i < m; i++)
                other[i] -= column[i] * scale;
        }
    }
    return first_zero;
}

// op(a) x = b in place of b, one column of n numbers; operation as cublasOperation_t
template <class T>
void lu_solve_column(int operation, int n, const T* a, int64_t lda, const int* pivots, T* x) {
    if (operation == 0) {
        if (pivots) {
            for (int i = 0; i < n; i++)
                std::swap(x[i], x[pivots[i] - 1]);
        }
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < i; j++)
                x[i] -= a[j * lda + i] * x[j];
        }
        for (int i = n - 1; i >= 0; i--) {
            for (int j = i + 1; j < n; j++)
                x[i] -= a[j * lda + i] * x[j];
            x[i] /= a[i * lda + i];
        }
        return;
    }
    bool conjugated = operation == 2;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < i; j++)
            x[i] -= conjugate_if(a[i * lda + j], conjugated) * x[j];
        x[i] /= conjugate_if(a[i * lda + i], conjugated);
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int j = i + 1; j < n; j++)
            x[i] -= conjugate_if(a[i * lda + j], conjugated) * x[j];
    }
    if (pivots) {
        for (int i = n - 1; i >= 0; i--)
            std::swap(x[i], x[pivots[i] - 1]);
    }
}

template <class T>
void lu_solve(int operation, int n, int n_columns, const T* a, int64_t lda, const int* pivots, T* b, int64_t ldb) {
    for (int column = 0; column < n_columns; column++) {
        lu_solve_column(operation, n, a, lda, pivots, b + column * ldb);
    }
}

// In place, of the triangle that is given: a = L · L^H or U^H · U. Returns 0, or the order of the leading minor that is
// not positive definite.
template <class T>
int cholesky_factor(bool lower, int n, T* a, int64_t lda) {
    // element (i, j) of L, i >= j: of the upper triangle it is the conjugate of its mirror image
    auto element = [&](int i, int j) -> T& { return lower ? a[j * lda + i] : a[i * lda + j]; };
    for (int j = 0; j < n; j++) {
        double square = std::real(element(j, j));
        for (int k = 0; k < j; k++)
            square -= std::norm(element(j, k));
        if (!(square > 0)) return j + 1;
        double diagonal = std::sqrt(square);
        element(j, j) = T(diagonal);
        for (int i = j + 1; i < n; i++) {
            T value = element(i, j);
            for (int k = 0; k < j; k++) {
                T other = conjugate_if(element(j, k), true);
                value -= lower ? element(i, k) * other : other * element(i, k);
            }
            element(i, j) = value / T(diagonal);
        }
    }
    return 0;
}

}  // namespace cuda_on_cpu
