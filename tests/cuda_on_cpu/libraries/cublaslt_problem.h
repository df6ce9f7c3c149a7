// What a call of cuBLASLt asks for, out of its descriptors, and whether the real one could do it.
#pragma once

#include "cublaslt_descriptors.h"
#include "numbers.h"

namespace cuda_on_cpu {

// Why a call is refused
struct Refusal {
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    char text[700] = "";
};

__attribute__((format(printf, 3, 4))) cublasStatus_t refuse(Refusal& refusal, cublasStatus_t status, const char* format,
                                                            ...);

// op(A) [m, k] · op(B) [k, n], with C and D [m, n]
struct Problem {
    MatmulDescriptor descriptor;
    Layout a;
    Layout b;
    Layout c;
    Layout d;
    int64_t m = 0;
    int64_t n = 0;
    int64_t k = 0;
    int64_t batch = 0;
    int bias_type = -1;
    int aux_type = -1;
    bool is_known = false;  // whether the descriptor and the layouts are there
};

// Fills `problem` and returns success, or refuses.
cublasStatus_t understand(Refusal& refusal, cublasLtMatmulDesc_t descriptor, const cublasLtMatrixLayout_t (&layouts)[4],
                          Problem& problem);

// Reports a refusal, with the problem where it is known, and returns its status. Where CUDA_ON_CPU_QUIET=1, nothing is
// said of cublasLtMatmulAlgoGetHeuristic(), which is how callers ask what is possible.
cublasStatus_t report_refusal(const char* function, const Refusal& refusal, const Problem& problem);

// Algorithms are for problems of equal identity alone.
uint64_t identity(const Problem& problem);

}  // namespace cuda_on_cpu
