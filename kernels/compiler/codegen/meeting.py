"""Threads of one step wait for each other: a counter in the run's memory, zero at its begin, says how many came."""

from __future__ import annotations

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value

#: how often a thread looks before it lets others run
_LOOKS = 2000


class Meeting:
    """``counter`` is an i64 alone in its cache line, ``give`` a function of the system that lets others run."""

    def __init__(self, f: Function, target: Target, counter: Value, give: Value) -> None:
        self.f, self.target = f, target
        self.counter, self.give = counter, give
        self.several = f.compare("sgt", f.parameters[2], 1)

    def wait(self, number: Index) -> None:
        """The meeting of this number, from 1 on: all threads come to all of them, in order."""
        f = self.f
        with f.when(self.several):
            f.op("i64", f"atomicrmw add ptr {self.counter.text}, i64 1 acq_rel, align 8")
            wanted = f.i64(f.mul(number, f.parameters[2]))
            first, look, rest, pause, give, done = (
                f.fresh_label(stem) for stem in ("first", "look", "rest", "pause", "give", "done")
            )
            f.do(f"br label %{first}")
            f.label(first)
            f.do(f"br label %{look}")
            f.label(look)
            count, more = f.fresh("i64"), f.fresh("i64")
            f.do(f"{count.text} = phi i64 [ 0, %{first} ], [ {more.text}, %{pause} ], [ {more.text}, %{give} ]")
            arrived = f.op("i64", f"load atomic i64, ptr {self.counter.text} acquire, align 8")
            f.do(f"br {f.compare('sge', arrived, wanted)}, label %{done}, label %{rest}")
            f.label(rest)
            f.do(f"{more.text} = add i64 {count.text}, 1")
            f.do(f"br {f.compare('slt', count, _LOOKS)}, label %{pause}, label %{give}")
            f.label(pause)
            if self.target.triple.startswith(("aarch64", "arm64")):
                f.call("void", "llvm.aarch64.hint", [Value("i32", "1")])
            else:
                f.call("void", "llvm.x86.sse2.pause", [])
            f.do(f"br label %{look}")
            f.label(give)
            f.op("i32", f"call i32 {self.give.text}()")
            f.do(f"br label %{look}")
            f.label(done)
