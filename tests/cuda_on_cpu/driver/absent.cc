// What CuPy links to and nothing here does: arrays, textures and surfaces, the linker.
#include "state.h"

using namespace cuda_on_cpu;

namespace {

cudaError_t absent(const char* name) {
    complain("%s is not here", name);
    return fail(cudaErrorNotSupported, name);
}

}  // namespace

#define ABSENT(name, ...)                  \
    EXPORT cudaError_t name(__VA_ARGS__) { \
        return absent(#name);              \
    }

ABSENT(cudaMalloc3DArray, cudaArray_t*, const cudaChannelFormatDesc*, cudaExtent, unsigned)
ABSENT(cudaMallocArray, cudaArray_t*, const cudaChannelFormatDesc*, size_t, size_t, unsigned)
ABSENT(cudaFreeArray, cudaArray_t)
ABSENT(cudaMemcpy2DFromArray, void*, size_t, cudaArray_const_t, size_t, size_t, size_t, size_t, cudaMemcpyKind)
ABSENT(cudaMemcpy2DFromArrayAsync, void*, size_t, cudaArray_const_t, size_t, size_t, size_t, size_t, cudaMemcpyKind,
       cudaStream_t)
ABSENT(cudaMemcpy2DToArray, cudaArray_t, size_t, size_t, const void*, size_t, size_t, size_t, cudaMemcpyKind)
ABSENT(cudaMemcpy2DToArrayAsync, cudaArray_t, size_t, size_t, const void*, size_t, size_t, size_t, cudaMemcpyKind,
       cudaStream_t)
ABSENT(cudaMemcpy3D, const cudaMemcpy3DParms*)
ABSENT(cudaMemcpy3DAsync, const cudaMemcpy3DParms*, cudaStream_t)
ABSENT(cudaCreateTextureObject, cudaTextureObject_t*, const cudaResourceDesc*, const cudaTextureDesc*,
       const cudaResourceViewDesc*)
ABSENT(cudaDestroyTextureObject, cudaTextureObject_t)
ABSENT(cudaGetChannelDesc, cudaChannelFormatDesc*, cudaArray_const_t)
ABSENT(cudaGetTextureObjectResourceDesc, cudaResourceDesc*, cudaTextureObject_t)
ABSENT(cudaGetTextureObjectTextureDesc, cudaTextureDesc*, cudaTextureObject_t)
ABSENT(cudaCreateSurfaceObject, cudaSurfaceObject_t*, const cudaResourceDesc*)
ABSENT(cudaDestroySurfaceObject, cudaSurfaceObject_t)

EXPORT CUresult cuLinkCreate_v2(unsigned, CUjit_option*, void**, CUlinkState*) {
    return CUDA_ERROR_NOT_SUPPORTED;
}

EXPORT CUresult cuLinkAddData_v2(CUlinkState, CUjitInputType, void*, size_t, const char*, unsigned, CUjit_option*,
                                 void**) {
    return CUDA_ERROR_NOT_SUPPORTED;
}

EXPORT CUresult cuLinkAddFile_v2(CUlinkState, CUjitInputType, const char*, unsigned, CUjit_option*, void**) {
    return CUDA_ERROR_NOT_SUPPORTED;
}

EXPORT CUresult cuLinkComplete(CUlinkState, void**, size_t*) {
    return CUDA_ERROR_NOT_SUPPORTED;
}

EXPORT CUresult cuLinkDestroy(CUlinkState) {
    return CUDA_ERROR_NOT_SUPPORTED;
}
