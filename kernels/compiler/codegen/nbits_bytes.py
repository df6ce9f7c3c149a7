"""One row times weights of few bits, in dot products of bytes, where half precision would do.

The row is rounded to 16 bits, by blocks of depth: its largest number is 32639 steps. A number is 256 · high + low, both
bytes with a sign, so that the products of both with weights are exact, in int32. It is much nearer to float32 than what
``accuracy_level`` asks for. Panels and scales are those of ``nbits``, but a word of 4 bits holds its first four numbers
in the low halves of its bytes, and weights have no sign.
"""

from __future__ import annotations

from typing import Any

from distort.kernels.compiler.codegen.byte_dots import add_products, every, mode_of
from distort.kernels.compiler.codegen.nbits import WORDS, Nbits
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector
from distort.kernels.compiler.codegen.tile_epilogue import epilogue_part

_STEPS = 32639.0
#: numbers so small are zero
_LEAST = 1e-30
#: by so many vectors weights are fetched ahead
_AHEAD = 32


def scratch_nbytes(nbits: Nbits, lanes: int, blocks: int, depth: int) -> int:
    """Of one thread: sums of a panel; by blocks the step, the sum and where integers begin; both bytes of the row."""
    return 4 * (nbits.vectors * lanes + 3 * blocks) + 2 * depth


def emit_nbits_bytes(f: Function, target: Target, *parameters: Any) -> None:
    """``parameters`` are the fields of an ``Nbits``."""
    nbits = Nbits(*parameters)
    lanes = target.lanes("float")
    finish = epilogue_part(f, nbits.epilogue, nbits.ways, nbits.vectors, lanes, WORDS)
    name = f"nbits_bytes_{nbits.vectors}_{nbits.bits}_{int(nbits.has_zeros)}"
    f.call_part(name, [*f.parameters, finish], lambda part: _Emitter(part, target, nbits, lanes).emit())
    f.ret()


class _Emitter:
    """void(words, part, n_parts, thread, epilogue)"""

    def __init__(self, f: Function, target: Target, nbits: Nbits, lanes: int) -> None:
        self.f, self.target, self.nbits, self.lanes = f, target, nbits, lanes
        addresses = ("a", "weights", "scales", "zeros", "scratch")
        self.words = {name: (f.address if name in addresses else f.word)(n) for n, name in enumerate(WORDS)}
        self.width = nbits.vectors * lanes
        blocks = self.words["blocks"]
        self.block_size = f.mul(self.words["block_groups"], 32 // nbits.bits)
        self.sums = f.at(self.words["scratch"], f.mul(f.thread, self.words["scratch_nbytes"]), "i8")
        self.steps = f.at(self.sums, self.width, "float")
        self.totals = f.at(self.steps, blocks, "float")
        self.starts = f.at(self.totals, blocks, "float")
        self.high = f.at(self.starts, blocks, "i32")
        self.low = f.at(self.high, f.mul(blocks, self.block_size), "i8")

    def emit(self) -> None:
        f, words = self.f, self.words
        with f.loop(0, words["blocks"]) as block:
            self._round(block.index)
        n_panels = f.div(f.add(words["columns"], self.width - 1), self.width)
        begin, end = f.share(n_panels)
        with f.loop(begin, end) as panel:
            self._panel(panel.index)
            numbers = [f.i64(n) for n in (0, 0, 0, 1, f.mul(panel.index, self.width))]
            f.invoke(f.parameters[4], [f.parameters[0], self.sums, *numbers])
        f.ret()

    def _round(self, block: Index) -> None:
        """A block of the row, which has a multiple of 16 elements."""
        f, lanes = self.f, self.lanes
        real, whole = vector("float", lanes), vector("i32", lanes)
        first = f.mul(block, self.block_size)
        a = f.at(self.words["a"], first, "float")
        with f.loop(0, self.block_size, lanes, [f.const(real, 0)]) as part:
            size = f.unary("fabs", f.load(real, f.at(a, part.index, "float")))
            part.carry([f.intrinsic("maximum", part.carried[0], size)])
        name = f"llvm.vector.reduce.fmaximum.v{lanes}f32"
        largest = f.call("float", name, [part.carried[0]])
        steps = f.const("float", _STEPS)
        some = f.fcmp("ogt", largest, f.const("float", _LEAST))
        scale = f.splat(f.select(some, f.fdiv(steps, largest), f.const("float", 0)), lanes)
        with f.loop(0, self.block_size, lanes, [f.const(whole, 0)]) as part:
            scaled = f.fmul(f.load(real, f.at(a, part.index, "float")), scale)
            scaled = f.unary("roundeven", scaled)
            name = f"llvm.fptosi.sat.v{lanes}i32.v{lanes}f32"
            number = f.call(whole, name, [scaled])  # infinities times zero are no numbers
            high = f.binary("ashr", f.binary("add", number, f.const(whole, 128)), f.const(whole, 8))
            low = f.binary("sub", number, f.binary("shl", high, f.const(whole, 8)))
            for value, to in ((high, self.high), (low, self.low)):
                f.store(f.cast("trunc", value, "i8"), f.at(to, f.add(first, part.index), "i8"))
            part.carry([f.binary("add", part.carried[0], number)])
        total = f.call("i32", f"llvm.vector.reduce.add.v{lanes}i32", [part.carried[0]])
        step = f.fdiv(largest, steps)
        f.store(step, f.at(self.steps, block, "float"))
        f.store(f.fmul(step, f.cast("sitofp", total, "float")), f.at(self.totals, block, "float"))
        middle = Value("i32", str(-(1 << (self.nbits.bits - 1))))
        f.store(f.binary("mul", total, middle), f.at(self.starts, block, "i32"))

    def _fields(self, word: Value) -> list[Value]:
        """Bytes of a lane's word: one or two groups of four."""
        f = self.f
        parts = [word]
        if self.nbits.bits == 4:
            mask = f.const(word.type, 0x0F0F0F0F)
            parts = [f.binary("and", w, mask) for w in (word, f.binary("lshr", word, f.const(word.type, 4)))]
        return [f.bitcast(p, vector("i8", 4 * self.lanes)) for p in parts]

    def _panel(self, panel: Index) -> None:
        f, words, n_vectors, lanes = self.f, self.words, self.nbits.vectors, self.lanes
        n_fields = 2 if self.nbits.bits == 4 else 1
        mode, real, whole = mode_of(self.target), vector("float", lanes), vector("i32", lanes)
        groups = f.mul(words["blocks"], words["block_groups"])
        weights = f.at(words["weights"], f.mul(f.mul(panel, groups), self.width), "i32")
        place = f.mul(f.mul(panel, words["blocks"]), self.width)
        scales, zeros = (f.at(words[name], place, "float") for name in ("scales", "zeros"))
        nothing = f.const(whole, 0)
        with f.loop(0, words["blocks"], 1, [f.const(real, 0)] * n_vectors) as block:
            first = f.mul(block.index, words["block_groups"])
            start = f.splat(f.load("i32", f.at(self.starts, block.index, "i32")), lanes)
            # by vector and field: sums of the high bytes, and of the low ones
            begin = [v for _ in range(n_vectors) for k in range(n_fields) for v in (nothing, nothing if k else start)]
            with f.loop(first, f.add(first, words["block_groups"]), 1, begin) as group:
                sums = list(group.carried)
                line = f.at(weights, f.mul(group.index, self.width), "i32")
                for n in range(n_vectors):
                    f.prefetch(f.at(line, (_AHEAD + n) * lanes, "i32"))
                    fields = self._fields(f.load(whole, f.at(line, n * lanes, "i32")))
                    for k, field in enumerate(fields):
                        at = f.add(f.mul(group.index, 4 * n_fields), 4 * k)
                        for which, numbers in enumerate((self.high, self.low)):
                            four = every(f, f.load("<4 x i8>", f.at(numbers, at, "i8")), lanes)
                            chain = 2 * (n * n_fields + k) + which
                            sums[chain] = add_products(f, self.target, mode, sums[chain], field, four)
                group.carry(sums)
            step = f.splat(f.load("float", f.at(self.steps, block.index, "float")), lanes)
            total = f.splat(f.load("float", f.at(self.totals, block.index, "float")), lanes)
            made = []
            for n in range(n_vectors):
                own = group.carried[2 * n * n_fields : 2 * (n + 1) * n_fields]
                high, low = own[0], own[1]
                for k in range(1, n_fields):
                    high, low = f.binary("add", high, own[2 * k]), f.binary("add", low, own[2 * k + 1])
                number = f.binary("add", f.binary("shl", high, f.const(whole, 8)), low)
                at = f.add(f.mul(block.index, self.width), n * lanes)
                scale = f.fmul(f.load(real, f.at(scales, at, "float")), step)
                value = f.fma(f.cast("sitofp", number, "float"), scale, block.carried[n])
                if self.nbits.has_zeros:
                    value = f.fma(f.load(real, f.at(zeros, at, "float")), total, value)
                made.append(value)
            block.carry(made)
        for n, value in enumerate(block.carried):
            f.store(value, f.at(self.sums, n * lanes, "float"))
