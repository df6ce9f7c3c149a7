"""What the machine can do at most, measured: multiplications and additions of one core, bytes copied."""

from __future__ import annotations

import ctypes
import time

import numpy as np

_ROUNDS = 200_000


def peak_gflop_per_s(seconds: float = 0.5) -> float:
    """Of float32 on one thread: vectors multiplied and added in registers, the fastest of many turns."""
    from distort.kernels.compiler.codegen.target import host
    from distort.kernels.compiler.library import compile_text, load

    target = host()
    # independent sums, enough to hide what one addition takes
    lanes, n_sums = target.lanes("float"), target.n_vector_registers - 4
    kept: list[object] = []
    (address,) = load(compile_text(_text(lanes, n_sums, target.triple), target), ["peak"], kept)
    run = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64, ctypes.c_float)(address)
    run(_ROUNDS, 0.5)
    best = float("inf")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        begin = time.perf_counter()
        run(_ROUNDS, 0.5)
        best = min(best, time.perf_counter() - begin)
    return 2.0 * _ROUNDS * n_sums * lanes / best / 1e9


def _text(lanes: int, n_sums: int, triple: str) -> str:
    """LLVM IR of float peak(i64 rounds, float x): sums that differ, or the compiler would make one of them."""
    kind = f"<{lanes} x float>"
    fma = f"@llvm.fmuladd.v{lanes}f32"
    lines = [
        f'target triple = "{triple}"',
        f"declare {kind} {fma}({kind}, {kind}, {kind})",
        "define float @peak(i64 %rounds, float %x) #0 {",
        "start:",
        f"  %first = insertelement {kind} poison, float %x, i32 0",
        f"  %v = shufflevector {kind} %first, {kind} poison, <{lanes} x i32> zeroinitializer",
        *(f"  %b{i} = fmul {kind} %v, splat (float {i}.0)" for i in range(n_sums)),
        "  br label %loop",
        "loop:",
        "  %n = phi i64 [0, %start], [%more, %loop]",
        *(f"  %s{i} = phi {kind} [%b{i}, %start], [%t{i}, %loop]" for i in range(n_sums)),
        *(f"  %t{i} = call {kind} {fma}({kind} %s{i}, {kind} %v, {kind} %v)" for i in range(n_sums)),
        "  %more = add i64 %n, 1",
        "  %again = icmp ult i64 %more, %rounds",
        "  br i1 %again, label %loop, label %end",
        "end:",
    ]
    total = "%t0"
    for i in range(1, n_sums):
        lines.append(f"  %u{i} = fadd {kind} {total}, %t{i}")
        total = f"%u{i}"
    lines += [f"  %r = extractelement {kind} {total}, i32 0", "  ret float %r", "}"]
    wide = '"prefer-vector-width"="512" "min-legal-vector-width"="512"' if lanes == 16 else ""
    return "\n".join([*lines, f"attributes #0 = {{ nounwind {wide} }}", ""])


class Copying:
    """GB/s, read and written, of copies that touch about as many bytes; each size is measured once."""

    def __init__(self) -> None:
        self._known: dict[int, float] = {}

    def gb_per_s(self, nbytes: float) -> float:
        """On one thread, by numpy's memcpy."""
        size = max(4096, 1 << max(0, round(nbytes) - 1).bit_length())
        if size not in self._known:
            self._known[size] = self._measured(size)
        return self._known[size]

    def _measured(self, size: int) -> float:
        source, target = (np.ones(size // 2, np.uint8) for _ in range(2))
        times = max(1, (1 << 22) // size)
        best = float("inf")
        for _ in range(30):
            begin = time.perf_counter()
            for _ in range(times):
                np.copyto(target, source)
            best = min(best, (time.perf_counter() - begin) / times)
        return size / best / 1e9
