"""libnvrtc.so.12 by its C functions: what it makes of a source, and how the kernels run."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

OPTIONS = ("--std=c++17", "-ftz=true", "-arch=sm_90")
COMPLETED, DEADLOCKED, ASSERTED, TRAPPED, INVALID_LAUNCH = range(5)
INVALID_OPTION, COMPILATION = 5, 6


class CompileError(Exception):
    """An ``nvrtcResult`` and the log."""


@functools.cache
def nvrtc() -> ctypes.CDLL:
    return ctypes.CDLL(str(Path(os.environ["CUDA_ON_CPU"]) / "lib" / "libnvrtc.so.12"))


def cubin(source: str, options: Sequence[str] = OPTIONS, names: Sequence[str] = ()) -> tuple[bytes, dict[str, str]]:
    """A source's module, and the lowered names of name expressions."""
    library, program, nbytes = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None) == 0
    for name in names:
        assert library.nvrtcAddNameExpression(program, name.encode()) == 0
    words = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    result = library.nvrtcCompileProgram(program, len(options), words)
    library.nvrtcGetProgramLogSize(program, ctypes.byref(nbytes))
    log = ctypes.create_string_buffer(nbytes.value)
    library.nvrtcGetProgramLog(program, log)
    if result:
        library.nvrtcDestroyProgram(ctypes.byref(program))
        raise CompileError(result, log.value.decode())
    library.nvrtcGetCUBINSize(program, ctypes.byref(nbytes))
    module = ctypes.create_string_buffer(nbytes.value)
    assert library.nvrtcGetCUBIN(program, module) == 0
    lowered = {}
    for name in names:
        to = ctypes.c_char_p()
        assert library.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(to)) == 0
        assert to.value is not None
        lowered[name] = to.value.decode()
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return module.raw[:-1], lowered


class Module:
    """A compiled source in this process, whose kernels take NumPy's arrays and numbers, and bytes."""

    def __init__(self, source: str, options: Sequence[str] = OPTIONS, names: Sequence[str] = ()) -> None:
        module, self.lowered = cubin(source, options, names)
        assert module[:8] == b"CPUCUBIN"
        assert int.from_bytes(module[8:16], "little") == len(module) - 16
        with tempfile.NamedTemporaryFile(suffix=".so") as file:
            file.write(module[16:])
            file.flush()
            self.library = ctypes.CDLL(file.name)

    def launch(
        self, name: str, grid: Sequence[int], block: Sequence[int], *arguments: Any, shared_nbytes: int = 0
    ) -> int:
        name = self.lowered.get(name, name)
        nbytes = (ctypes.c_uint * 64)()
        assert self.library[f"{name}__parameters_nbytes"](nbytes, 64) == len(arguments)
        kept = []
        for argument, expected in zip(arguments, nbytes, strict=False):
            if isinstance(argument, np.ndarray):
                raw = argument.ctypes.data.to_bytes(8, "little")
            else:
                raw = argument if isinstance(argument, bytes) else argument.tobytes()
            assert len(raw) == expected
            kept.append(ctypes.create_string_buffer(raw, len(raw) + 1))
        parameters = (ctypes.c_void_p * len(kept))(*map(ctypes.addressof, kept))
        sizes = [(ctypes.c_uint * 3)(*size, *[1] * (3 - len(size))) for size in (grid, block)]
        return int(self.library[f"{name}__launch"](parameters, *sizes, ctypes.c_uint(shared_nbytes)))


def test_a_block_shares_memory() -> None:
    module = Module(r"""
    extern "C" __global__ void __launch_bounds__(256) reduce(const float* x, float* out, int n) {
        __shared__ float s[256];
        extern __shared__ __align__(16) unsigned char room[];
        float* d = (float*)room;
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        s[threadIdx.x] = i < n ? x[i] : 0;
        d[threadIdx.x] = 1;
        __syncthreads();
        for (int k = blockDim.x / 2; k >= 32; k >>= 1) {
            if (threadIdx.x < k) {
                s[threadIdx.x] += s[threadIdx.x + k];
                d[threadIdx.x] += d[threadIdx.x + k];
            }
            __syncthreads();
        }
        if (threadIdx.x < 32) {
            float v = s[threadIdx.x], w = d[threadIdx.x];
            for (int o = 16; o; o >>= 1) {
                v += __shfl_down_sync(0xffffffff, v, o);
                w += __shfl_xor_sync(~0u, w, o);
            }
            if (threadIdx.x == 0) out[blockIdx.x] = v + w;
        }
    }""")
    x, out = np.arange(1000, dtype=np.float32), np.zeros(4, np.float32)
    assert module.launch("reduce", (4,), (256,), x, out, np.int32(1000), shared_nbytes=1024) == COMPLETED
    np.testing.assert_allclose(out, np.pad(x, (0, 24)).reshape(4, 256).sum(axis=1) + 256)


def test_what_a_launch_says(capfd: pytest.CaptureFixture[str]) -> None:
    module = Module(r"""
    #include <assert.h>
    extern "C" __global__ void apart() {
        if (threadIdx.x < 16) __shfl_sync(0xffffffffu, 1, 0); else __syncthreads();
    }
    extern "C" __global__ void some_exit(int* x) {
        if (threadIdx.x < 16) return;
        __syncthreads();
        x[threadIdx.x] = threadIdx.x;
    }
    extern "C" __global__ void asserts(int n) { assert(n == 3); }
    extern "C" __global__ void traps() { asm volatile("trap;"); }
    """)
    assert module.launch("apart", (1,), (32,)) == DEADLOCKED
    x = np.zeros(32, np.int32)
    assert module.launch("some_exit", (1,), (32,), x) == COMPLETED
    assert x.tolist() == [0] * 16 + list(range(16, 32))
    assert module.launch("asserts", (1,), (32,), np.int32(3)) == COMPLETED
    assert module.launch("asserts", (1,), (32,), np.int32(4)) == ASSERTED
    assert "block: [0,0,0], thread: [0,0,0] Assertion `n == 3` failed." in capfd.readouterr().err
    assert module.launch("traps", (1,), (32,)) == TRAPPED
    assert module.launch("traps", (1,), (1025,)) == INVALID_LAUNCH
    assert module.launch("traps", (0,), (32,)) == INVALID_LAUNCH


def test_names() -> None:
    module = Module(
        """
    __constant__ float factor[2];
    __device__ int counter = 3;
    namespace my {
    template <typename T, int N> __global__ void k(T* x) {
        x[threadIdx.x] = N * factor[1];
        atomicAdd(&counter, 1);
    }
    __constant__ int z;
    }
    template <typename T> __global__ void two(T* x, T y) { x[0] = y; }
    __global__ void three(int* x) { *x = 7; }
    extern "C" { __global__ void four(int* x) { *x = 8; } }
    #define MAKE(n) extern "C" __global__ void made_##n(int* x) { *x = n; }
    MAKE(5)
    """,
        names=["my::k<double, 3>", "two<float>", "three", "factor", "&my::z"],
    )
    (ctypes.c_float * 2).in_dll(module.library, "factor")[1] = 2
    x, y, z = np.zeros(4), np.zeros(1, np.float32), np.zeros(1, np.int32)
    assert module.launch("my::k<double, 3>", (1,), (4,), x) == COMPLETED
    assert x.tolist() == [6] * 4
    assert ctypes.c_int.in_dll(module.library, "counter").value == 7
    assert ctypes.c_int.in_dll(module.library, module.lowered["&my::z"]).value == 0
    assert module.launch("two<float>", (1,), (1,), y, np.float32(2.5)) == COMPLETED
    assert y[0] == 2.5
    for name, value in (("three", 7), ("four", 8), ("made_5", 5)):
        assert module.launch(name, (1,), (1,), z) == COMPLETED
        assert z[0] == value


def test_what_is_no_program() -> None:
    for _ in range(2):  # as it is compiled, and from the cache
        with pytest.raises(CompileError, match="nothing") as wrong:
            cubin('extern "C" __global__ void k(int* x) { *x = nothing; }')
        assert wrong.value.args[0] == COMPILATION
    for option in ("--no-such", "-arch=sm_1", "--std=c++98"):
        with pytest.raises(CompileError) as wrong:
            cubin("", [option])
        assert wrong.value.args[0] == INVALID_OPTION


def test_warps() -> None:
    module = Module(r"""
    extern "C" __global__ void k(int* out) {
        int t = threadIdx.x;
        int* o = out + t * 12;
        o[0] = __ballot_sync(~0u, t & 1);
        o[1] = __any_sync(~0u, t == 5);
        o[2] = __all_sync(~0u, t < 100);
        o[3] = __shfl_up_sync(~0u, t, 1);
        o[4] = __shfl_down_sync(~0u, t, 2, 8);
        o[5] = __shfl_sync(~0u, t, 3, 16);
        o[6] = __match_any_sync(~0u, t / 4);
        o[7] = __reduce_add_sync(~0u, t);
        if (t % 2) { o[8] = __activemask(); o[10] = 1; } else o[8] = __activemask();
        o[9] = __syncthreads_count(t % 3 == 0);
        if (t % 32 < 16) o[10] = __shfl_xor_sync(0xffffu, t, 1); else o[10] = __shfl_xor_sync(0xffff0000u, t, 3);
        o[11] = (int)__shfl_sync(~0u, (double)t, 7);
    }""")
    out = np.zeros((64, 12), np.int32)
    assert module.launch("k", (1,), (64,), out) == COMPLETED
    t = np.arange(64)
    lane = t % 32
    expected = (
        np.full(64, 0xAAAAAAAA),
        t < 32,
        np.ones(64),
        np.where(lane, t - 1, t),
        np.where(t % 8 < 6, t + 2, t),
        t // 16 * 16 + 3,
        15 << lane // 4 * 4,
        np.where(t < 32, 496, 1520),
        np.where(t % 2, 0xAAAAAAAA, 0x55555555),
        np.full(64, 22),
        np.where(lane < 16, t ^ 1, t ^ 3),
        t // 32 * 32 + 7,
    )
    np.testing.assert_array_equal(out.view(np.uint32), np.stack(expected, axis=1).astype(np.int64))


def test_groups_and_cub() -> None:
    module = Module(r"""
    #include <cooperative_groups.h>
    #include <cooperative_groups/reduce.h>
    #include <cub/block/block_scan.cuh>
    namespace cg = cooperative_groups;
    extern "C" __global__ void groups(int* out) {
        cg::thread_block b = cg::this_thread_block();
        auto t = cg::tiled_partition<16>(b);
        int v = cg::reduce(t, (int)b.thread_rank(), cg::plus<int>());
        b.sync();
        for (int o = 8; o; o /= 2) v += t.shfl_down(0, o);
        if (threadIdx.x % 3 == 0) { auto c = cg::coalesced_threads(); v += 10000 * c.size(); }
        out[threadIdx.x] = v;
    }
    extern "C" __global__ void blocks(int* x, int* sums) {
        typedef cub::BlockReduce<int, 64> Reduce;
        typedef cub::BlockScan<int, 64> Scan;
        __shared__ typename Reduce::TempStorage of_reduce;
        __shared__ typename Scan::TempStorage of_scan;
        int sum = Reduce(of_reduce).Sum(x[threadIdx.x]), before;
        Scan(of_scan).ExclusiveSum(x[threadIdx.x], before);
        if (threadIdx.x == 0) *sums = sum;
        x[threadIdx.x] = before;
    }
    """)
    t, out, total = np.arange(64), np.zeros(64, np.int32), np.zeros(1, np.int32)
    assert module.launch("groups", (1,), (64,), out) == COMPLETED
    np.testing.assert_array_equal(out % 10000, t.reshape(4, 16).sum(axis=1).repeat(16))
    np.testing.assert_array_equal(out // 10000, np.where(t % 3, 0, 11))
    x = t.astype(np.int32)
    assert module.launch("blocks", (1,), (64,), x, total) == COMPLETED
    assert total[0] == t.sum()
    np.testing.assert_array_equal(x, np.cumsum(t) - t)


def test_narrow_floats() -> None:
    module = Module(r"""
    #include <cuda_fp16.h>
    #include <cuda_bf16.h>
    #include <cuda_fp8.h>
    extern "C" __global__ void k(const __half* x, __half* y, __nv_bfloat16* b, unsigned char* q, float* z) {
        int i = threadIdx.x;
        __half h = x[i];
        y[i] = __hadd(h, __float2half(1.0f)) * h;
        b[i] = hexp(__float2bfloat16(__half2float(h)));
        q[i] = __nv_fp8_e4m3(__half2float(h)).__x;
        __half2 two = h2exp(__halves2half2(h, __hneg(h)));
        z[i] = __low2float(two) * __high2float(two) + float(__hfma(h, h, h)) + float(hsqrt(__habs(h)));
        atomicAdd(&y[32], __shfl_xor_sync(~0u, h, 1));
    }""")
    x, y, q = np.linspace(-2, 2, 32).astype(np.float16), np.zeros(33, np.float16), np.zeros(32, np.uint8)
    b, z, wide = np.zeros(32, np.uint16), np.zeros(32, np.float32), x.astype(np.float32)
    assert module.launch("k", (1,), (32,), x, y, b, q, z) == COMPLETED
    np.testing.assert_allclose(y[:32], (wide + 1) * wide, atol=4e-3)
    assert abs(float(y[32])) < 0.02
    expected = np.exp(wide.astype(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_allclose(b.view(ml_dtypes.bfloat16).astype(np.float32), expected, rtol=2**-8)
    assert [q[0], q[31]] == [0xC0, 0x40]
    np.testing.assert_allclose(z, 1 + wide * wide + wide + np.sqrt(abs(wide)), atol=4e-3)


def test_numbers() -> None:
    module = Module(r"""
    extern "C" __global__ void divide(int* x, long long* y, signed char* z, int zero, int minus) {
        x[0] = x[0] / zero; x[1] = x[1] / minus; x[2] = x[2] % minus; x[3] = x[3] % zero;
        y[0] = y[0] / zero; y[1] = y[1] / minus; y[2] = y[2] % zero;
        z[0] = z[0] / zero;
    }
    extern "C" __global__ void convert(const float* x, int* y, unsigned* z, float* w) {
        y[0] = __float2int_rz(x[0]); y[1] = __float2int_rn(x[1]);
        y[2] = __float2int_rd(x[0]); y[3] = __float2int_rn(x[2]);
        z[0] = __brev(1); z[1] = __byte_perm(0x33221100, 0x77665544, 0x7510); z[2] = __vmaxu4(0x01ff02fe, 0x02fe01ff);
        w[0] = rsqrtf(4.0f); w[1] = erfinv(0.5f); w[2] = normcdfinvf(0.975f); w[3] = fmaxf(__expf(1.0f), NAN);
    }
    """)
    x, y = np.array([5, -(2**31), -(2**31), 17], np.int32), np.array([5, -(2**63), 17], np.int64)
    assert module.launch("divide", (1,), (1,), x, y, np.array([3], np.int8), np.int32(0), np.int32(-1)) == COMPLETED
    assert x.tolist() == [-1, -(2**31), 0, 17]
    assert y.tolist() == [-1, -(2**63), 17]
    given = np.array([-2.5, 3.5, np.inf], np.float32)
    integers, words, floats = np.zeros(4, np.int32), np.zeros(3, np.uint32), np.zeros(4, np.float32)
    assert module.launch("convert", (1,), (1,), given, integers, words, floats) == COMPLETED
    assert integers.tolist() == [-2, 4, -3, 2**31 - 1]
    assert words.tolist() == [1 << 31, 0x77551100, 0x02FF02FF]
    np.testing.assert_allclose(floats, [0.5, 0.47693628, 1.959964, np.e], rtol=1e-6)


def test_what_is_rewritten() -> None:
    module = Module(r"""
    #define dynamic_shared(name) extern __shared__ __align__(16) unsigned char name[]
    __device__ __forceinline__ unsigned short to_half(float x) {
        unsigned short y;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
        return y;
    }
    extern __shared__ double all[];
    extern "C" __global__ void k(float* x) {
        dynamic_shared(room);
        extern volatile __shared__ float f[];
        f[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        int lane;
        asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
        float other = ((float*)room)[1 - threadIdx.x];
        x[threadIdx.x] = other + lane * 10 + (to_half(1) == 0x3c00) + (all == (double*)room) * 100;
    }""")
    x = np.array([1, 2], np.float32)
    assert module.launch("k", (1,), (2,), x, shared_nbytes=8) == COMPLETED
    assert x.tolist() == [103, 112]


def test_behind_the_headers_of_cupy() -> None:
    spec = importlib.util.find_spec("cupy")
    if spec is None or spec.origin is None:
        pytest.skip("CuPy isn't installed")
    headers = Path(spec.origin).parent / "_core" / "include"
    folders = [headers, *(headers / "cupy" / "_cccl" / name for name in ("cub", "thrust", "libcudacxx"))]
    includes = ("complex.cuh", "carray.cuh", "atomics.cuh", "math_constants.h")
    source = "".join(f"#include <cupy/{name}>\n" for name in includes)
    source += r"""#include <cupy/float16.cuh>
    extern "C" __global__ void k(CArray<float16, 1, 1, 1> x, CArray<complex<double>, 1, 1, 1> y, CIndexer<1, 1> _ind) {
        CUPY_FOR(i, _ind.size()) {
            _ind.set(i);
            x[_ind.get()] = exp(x[_ind.get()]);
            y[_ind.get()] = exp(y[_ind.get()]) * y[_ind.get()];
        }
    }"""
    module = Module(source, [*OPTIONS, *(f"-I{folder}" for folder in folders)])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=300).astype(np.float16), rng.normal(size=300) + 1j * rng.normal(size=300)
    expected = np.exp(x.astype(np.float32)), np.exp(y) * y
    structures = [np.array([a.ctypes.data, a.size, a.size, *a.strides], np.int64) for a in (x, y)]
    indexer = np.array([300, 300, 0], np.int64)
    assert module.launch("k", (2,), (128,), *(s.tobytes() for s in structures), indexer.tobytes()) == COMPLETED
    np.testing.assert_allclose(x, expected[0], rtol=1e-3)
    np.testing.assert_allclose(y, expected[1], rtol=1e-12)


def order_of_threads() -> list[int]:
    module = Module(
        'extern "C" __global__ void k(int* n, int* order) { order[atomicAdd(n, 1)] = threadIdx.x; __syncthreads(); }'
    )
    n, order = np.zeros(1, np.int32), np.zeros(64, np.int32)
    assert module.launch("k", (1,), (64,), n, order) == COMPLETED
    return order.tolist()


def test_threads_begin_in_another_order() -> None:
    orders = {}
    for order in ("0", "1", "7"):
        command = [sys.executable, "-c", "import test_compiler; print(*test_compiler.order_of_threads())"]
        environment = {**os.environ, "CUDA_ON_CPU_ORDER": order}
        done = subprocess.run(
            command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, check=True
        )
        orders[order] = [int(word) for word in done.stdout.split()]
    numbered = list(range(64))
    assert orders["0"] == numbered
    assert orders["1"] == numbered[::-1]
    assert orders["7"] not in (numbered, numbered[::-1])
    assert sorted(orders["7"]) == numbered
