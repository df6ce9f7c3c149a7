"""The text of a row operation's kernel: passes over a row, reductions within a group of threads, values of a row."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from distort.kernels.compiler.codegen import passes
from distort.kernels.compiler.codegen.passes import Passes
from distort.kernels.compiler.expression import Expression
from distort.kernels.cuda.codegen.device_functions import with_helpers
from distort.kernels.cuda.codegen.dtypes import COMPUTED, STORED, computed, literal, stored
from distort.kernels.cuda.codegen.expressions import Body, rounded
from distort.kernels.cuda.codegen.indexing import index_type, place, pointer, size_parameters, unravel
from distort.kernels.cuda.codegen.maps import load_pack, store_pack
from distort.kernels.cuda.codegen.reducers import Reducer
from distort.kernels.cuda.launch import NAME, Kernel, kernel_of

#: threads of a block, at most
_MOST_THREADS = 1024


class Structure(NamedTuple):
    """What the text depends on besides the expression. ``inner``: how the last loop of a row goes through operands."""

    across: bool
    n_outer: int
    n_inner: int
    varies: tuple[bool, ...]
    inner: tuple[int, ...]  # 0, 1, or 2 for another stride
    width: int
    aligned: tuple[bool, ...]
    keeps: bool
    wide: bool
    restrict: bool


@functools.lru_cache(1024)
def row_kernel(expression: Expression, structure: Structure) -> Kernel:
    return kernel_of("rows", with_helpers(_Rows(expression, structure).text()))


class _Element:
    """The values of one place of a row, in one pass. ``read`` an input, ``recall`` a kept element, as C."""

    def __init__(self, rows: _Rows, turn: int, read: Callable[[int], str], recall: Callable[[int], str]) -> None:
        self._rows, self._turn, self._read, self._recall = rows, turn, read, recall
        self._known: dict[int, str] = {}
        self.body = Body(rows.expression)

    def get(self, number: int) -> str:
        if number not in self._known:
            self._known[number] = self._make(number)
        return self._known[number]

    def _make(self, number: int) -> str:
        rows, split, expression = self._rows, self._rows.split, self._rows.expression
        if rows.is_constant(number):
            return rows.constant(number)
        if split.per_row[number]:
            return rows.of_row[number]
        name = f"v{number}"
        if number in rows.kept and split.first[number] < self._turn:
            text = self._recall(number)
        elif number < len(expression.inputs):
            text = self._read(number)
        else:
            operands = [self.get(o) for o in expression.body[number - len(expression.inputs)].operands]
            return self.body.emit(number, operands, name)
        self.body.lines.append(f"const {COMPUTED[expression.dtype(number)]} {name} = {text};")
        return name


class _Rows:
    def __init__(self, expression: Expression, structure: Structure) -> None:
        self.expression, self.structure = expression, structure
        self.split: Passes = passes.split(expression, structure.varies)
        self.kept = self.split.kept if structure.keeps else ()
        self.dtypes = [*expression.inputs, *(expression.dtype(result) for result in expression.results)]
        self.n_inputs = len(expression.inputs)
        self.kind = index_type(structure.wide)
        #: what is known of the row: number -> C
        self.of_row: dict[int, str] = {}

    def is_constant(self, number: int) -> bool:
        return number >= self.n_inputs and self.expression.body[number - self.n_inputs].op == "constant"

    def constant(self, number: int) -> str:
        instruction = self.expression.body[number - self.n_inputs]
        return literal(instruction.attributes[0], instruction.dtype)

    # -- the function

    def text(self) -> str:
        s, kind = self.structure, self.kind
        reducers = [Reducer.of(self.expression, n) for numbers in self.split.reductions for n in numbers]
        lines = [
            "const int group = lanes < blockDim.x ? (int)lanes : (int)blockDim.x;",
            "const int n_slots = (int)blockDim.x / group;",
        ]
        if s.across:
            lines.append("const int slot = threadIdx.x % n_slots, lane = threadIdx.x / n_slots;")
        else:
            lines.append("const int slot = threadIdx.x / group, lane = threadIdx.x % group;")
        # reductions come one after another: they share their memory
        n_parts = _MOST_THREADS if s.across else _MOST_THREADS // 32
        if reducers:
            lines.append(f"__shared__ double parts[{n_parts}];")
        if any(len(reducer.variables) > 1 for reducer in reducers):
            lines.append(f"__shared__ long long part_places[{n_parts}];")
        for reducer in reducers:
            for (type_, name), memory in zip(reducer.variables, ("parts", "part_places"), strict=False):
                lines.append(f"{type_}* const part_{name} = ({type_}*){memory};")
        if self.kept:
            lines.append("dynamic_shared(room);")
        for position, number in enumerate(self.kept):
            dtype = COMPUTED[passes.kept_dtype(self.expression, number)]
            # neighbouring threads have neighbouring elements: no two want the same bank
            begin = "slot" if s.across else f"slot * ({kind})length"
            lines.append(f"{dtype}* const kept{number} = ({dtype}*)(room + kept_{position}) + {begin};")
        step = f"({kind})gridDim.x * n_slots"
        lines.append(f"for ({kind} first = ({kind})blockIdx.x * n_slots; first < ({kind})n_rows; first += {step}) {{")
        lines += [f"    {line}" for line in self._row()]
        lines.append("}")
        body = "".join([f"    {line}\n" for line in lines])
        return (
            f'extern "C" __global__ void __launch_bounds__({_MOST_THREADS})\n'
            f"{NAME}({', '.join(self._parameters())}) {{\n{body}}}\n"
        )

    def _parameters(self) -> list[str]:
        s = self.structure
        made = [pointer(n, dtype, n >= self.n_inputs, s.restrict) for n, dtype in enumerate(self.dtypes)]
        made += [f"long long {name}" for name in ("n_rows", "length", "n_packs", "lanes")]
        made += [*size_parameters(s.n_outer, "outer"), *size_parameters(s.n_inner, "inner")]
        for number, how in enumerate(s.inner):
            made += [f"long long outer{number}_{k}" for k in range(s.n_outer)]
            made += [f"long long inner{number}_{k}" for k in range(s.n_inner - (how != 2))]
        return made + [f"long long kept_{position}" for position in range(len(self.kept))]

    def _row(self) -> list[str]:
        s, kind = self.structure, self.kind
        lines = [f"const {kind} row = first + slot;", f"const bool is_row = row < ({kind})n_rows;"]
        lines.append(f"const {kind} end = is_row ? ({kind})n_packs : 0;")
        lines += unravel("row", s.n_outer, s.wide, "outer", "o")
        for number in range(len(self.dtypes)):
            steps = [(f"o_{k}", f"outer{number}_{k}") for k in range(s.n_outer)]
            lines.append(f"const {kind} at{number} = {place(steps, s.wide)};")
        for number, dtype in enumerate(self.expression.inputs):
            if self.split.per_row[number]:
                value = computed(f"p{number}[is_row ? at{number} : 0]", dtype)
                lines.append(f"const {COMPUTED[dtype]} r{number} = {value};")
                self.of_row[number] = f"r{number}"
        for turn in range(self.split.n_passes):
            lines += self._values_of_row(turn)
            lines += self._pass(turn)
        lines += self._values_of_row(self.split.n_passes)
        stores = []
        for position, number in enumerate(self.expression.results, self.n_inputs):
            if not s.varies[position]:
                value = self.constant(number) if self.is_constant(number) else self.of_row[number]
                stores.append(f"    p{position}[at{position}] = {stored(value, self.dtypes[position])};")
        return [*lines, "if (is_row && lane == 0) {", *stores, "}"] if stores else lines

    def _values_of_row(self, turn: int) -> list[str]:
        """What becomes known of a row before a pass, from its reductions and its operands."""
        body = Body(self.expression)
        for number, instruction in enumerate(self.expression.body, self.n_inputs):
            ready = self.split.per_row[number] and self.split.first[number] == turn
            if not ready or number in self.of_row or instruction.op == "constant":
                continue
            operands = [self.constant(o) if self.is_constant(o) else self.of_row[o] for o in instruction.operands]
            self.of_row[number] = body.emit(number, operands, f"r{number}")
        return body.lines

    # -- passes

    def _pass(self, turn: int) -> list[str]:
        s, kind, width = self.structure, self.kind, self.structure.width
        reducers = [Reducer.of(self.expression, number) for number in self.split.reductions[turn]]
        results = self.split.results[turn]
        kept = [number for number in self.kept if self.split.first[number] == turn]
        if not reducers and not results and not kept:
            return []
        lines = [
            f"{type_} {name} = {begin};"
            for reducer in reducers
            for (type_, name), begin in zip(reducer.variables, reducer.begin, strict=True)
        ]
        read: dict[int, str] = {}

        def read_input(number: int) -> str:
            dtype, how = self.dtypes[number], s.inner[number]
            source = f"p{number}[{self._place(number)}]" if width == 1 else f"a{number}{'.at[j]' if how else ''}"
            read[number] = source
            return computed(source, dtype)

        index = "e" if width == 1 else f"j * ({kind})n_packs + e"
        index = "e * n_slots" if s.across else index
        element = _Element(self, turn, read_input, lambda n: f"kept{n}[{index}]")
        for reducer in reducers:
            (operand,) = self.expression.body[reducer.number - self.n_inputs].operands
            element.body.lines.append(reducer.step(element.get(operand), "e" if width == 1 else f"e * {width} + j"))
        targets = []
        for position in results:
            number = self.n_inputs + position
            value = stored(element.get(self.expression.results[position]), self.dtypes[number])
            target = f"p{number}[{self._place(number)}]" if width == 1 else f"b{number}.at[j]"
            element.body.lines.append(f"{target} = {value};")
            targets.append(number)
        for number in kept:
            element.body.lines.append(f"kept{number}[{index}] = {element.get(number)};")
        inside = unravel("e", s.n_inner, s.wide, "inner", "i")
        inside += self._packed(element.body.lines, read, targets) if width > 1 else element.body.lines
        lines.append(f"for ({kind} e = lane; e < end; e += group) {{")
        lines += [f"    {line}" for line in inside]
        lines.append("}")
        for reducer in reducers:
            lines += self._combined(reducer)
            value = rounded(self.expression, reducer.number, reducer.finish("length"))
            dtype = self.expression.dtype(reducer.number)
            lines.append(f"const {COMPUTED[dtype]} r{reducer.number} = {value};")
            self.of_row[reducer.number] = f"r{reducer.number}"
        return lines

    def _packed(self, statements: Sequence[str], read: dict[int, str], targets: Sequence[int]) -> list[str]:
        """The statements for each element of a pack, between what loads and stores it."""
        s, width = self.structure, self.structure.width
        lines = []
        for number in read:
            kind = STORED[self.dtypes[number]]
            if s.inner[number] == 0:
                lines.append(f"const {kind} a{number} = p{number}[{self._place(number)}];")
                continue
            pack = load_pack(f"p{number} + {self._place(number)}", kind, width, s.aligned[number])
            lines.append(f"const Pack<{kind}, {width}> a{number} = {pack};")
        lines += [f"Pack<{STORED[self.dtypes[number]]}, {width}> b{number};" for number in targets]
        lines += ["#pragma unroll", f"for (int j = 0; j < {width}; ++j) {{"]
        lines += [*[f"    {line}" for line in statements], "}"]
        for number in targets:
            kind = STORED[self.dtypes[number]]
            address = f"p{number} + {self._place(number)}"
            lines.append(store_pack(address, f"b{number}", kind, width, s.aligned[number]))
        return lines

    def _place(self, number: int) -> str:
        """Of the operand's element, or the first of its pack."""
        s = self.structure
        last = s.n_inner - 1
        steps = [(f"at{number}", ""), *((f"i_{k}", f"inner{number}_{k}") for k in range(last))]
        if s.inner[number] == 1:
            steps.append((f"i_{last} * {s.width}" if s.width > 1 else f"i_{last}", ""))
        elif s.inner[number] == 2:
            steps.append((f"i_{last}", f"inner{number}_{last}"))
        return place(steps, s.wide)

    def _combined(self, reducer: Reducer) -> list[str]:
        """Statements after which all threads of a group have what all of them made together."""
        names = [name for _, name in reducer.variables]
        parts = [f"part_{name}" for name in names]
        if self.structure.across:
            return [
                "if (group > 1) {",
                "    __syncthreads();",
                *[f"    {part}[threadIdx.x] = {name};" for part, name in zip(parts, names, strict=True)],
                "    __syncthreads();",
                *[f"    {name} = {part}[slot];" for part, name in zip(parts, names, strict=True)],
                "    for (int k = 1; k < group; ++k) {",
                f"        {reducer.combine([f'{part}[k * n_slots + slot]' for part in parts])}",
                "    }",
                "}",
            ]
        return [
            "for (int bits = 1; bits < 32 && bits < group; bits *= 2) {",
            *[f"    const {type_} other_{name} = other_lane({name}, bits);" for type_, name in reducer.variables],
            f"    {reducer.combine([f'other_{name}' for name in names])}",
            "}",
            "if (group > 32) {",
            "    __syncthreads();",
            "    if (lane % 32 == 0) {",
            *[f"        {part}[lane / 32] = {name};" for part, name in zip(parts, names, strict=True)],
            "    }",
            "    __syncthreads();",
            *[f"    {name} = {part}[0];" for part, name in zip(parts, names, strict=True)],
            "    for (int k = 1; k < group / 32; ++k) {",
            f"        {reducer.combine([f'{part}[k]' for part in parts])}",
            "    }",
            "}",
        ]


__all__ = ["Structure", "row_kernel"]
