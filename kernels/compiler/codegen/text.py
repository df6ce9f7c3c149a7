"""LLVM IR as text: values, loops with carried values, branches, and the words that a kernel is called with.

Every kernel is ``void @name(ptr words, i64 part, i64 n_parts, i64 thread)``. ``words`` are 64-bit integers and
addresses, laid out by whoever made the step. The kernel does one of ``n_parts`` equal parts of the work; threads do
parts at the same time, each in its own scratch memory. What a kernel computes does not depend on ``n_parts``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from distort.kernels.compiler.codegen.target import Target


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA value, or a constant. ``type`` as LLVM writes it: ``i64``, ``ptr``, ``<16 x float>``."""

    type: str
    text: str

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


#: what stands for an i64: a value, or a Python integer
Index = Value | int

NUMBER_OF_BITS = {"float": 32, "double": 64, "half": 16, "bfloat": 16}


def vector(element: str, lanes: int) -> str:
    """``<lanes x element>``; one lane is the element itself."""
    return element if lanes == 1 else f"<{lanes} x {element}>"


def element_of(type_: str) -> str:
    return type_.split(" x ")[1][:-1] if type_.startswith("<") else type_


def lanes_of(type_: str) -> int:
    return int(type_[1:].split(" x ")[0]) if type_.startswith("<") else 1


def with_element(type_: str, element: str) -> str:
    """The type with another element: ``<8 x float>`` and ``i1`` is ``<8 x i1>``."""
    return vector(element, lanes_of(type_))


def real_text(element: str, number: float) -> str:
    """A floating point constant, exactly."""
    if element in ("half", "bfloat"):
        from ml_dtypes import bfloat16
        from numpy import array, float16

        bits = array(number, float16 if element == "half" else bfloat16).view("u2")
        return f"0x{'H' if element == 'half' else 'R'}{int(bits):04X}"
    if element == "float":
        # LLVM writes a float as the double of the same value
        try:
            (number,) = struct.unpack("<f", struct.pack("<f", number))
        except OverflowError:
            number = float("inf") if number > 0 else float("-inf")
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


class Loop:
    """A loop under construction: its index, the values it carries, and what they are after it."""

    def __init__(self, index: Value, carried: list[Value]) -> None:
        self.index = index
        self.carried = carried
        self.next: list[Value] | None = None
        #: what the index grows by; the body may set it
        self.step: Index = 1

    def carry(self, values: Sequence[Value]) -> None:
        """What the carried values are in the next pass, and after the last."""
        self.next = list(values)


class Function:
    """One function. Calls of its methods print it, in order."""

    def __init__(
        self, name: str, parameters: Sequence[str] = ("ptr", "i64", "i64", "i64"), result: str = "void"
    ) -> None:
        self.name = name
        self.result = result
        self.parameters = [Value(type_, f"%p{i}") for i, type_ in enumerate(parameters)]
        self._lines: list[str] = []
        self._n_values = 0
        self._n_labels = 0
        self._label = "entry"
        self._declared: dict[str, str] = {}
        self._constants: dict[str, str] = {}
        #: whose instructions may be used where they are better than what every machine has
        self.target: Target | None = None
        #: functions that it calls and its module has, once: see :meth:`call_part`
        self.parts: dict[str, Function] = {}
        self._linkage = ""

    @property
    def thread(self) -> Value:
        """Which of the step's threads this is: what its scratch memory goes by."""
        return self.parameters[3]

    # -- printing

    def _fresh(self) -> str:
        self._n_values += 1
        return f"%v{self._n_values}"

    def fresh(self, type_: str) -> Value:
        """A value whose instruction is still to come."""
        return Value(type_, self._fresh())

    def fresh_label(self, stem: str) -> str:
        self._n_labels += 1
        return f"{stem}{self._n_labels}"

    def do(self, text: str) -> None:
        """An instruction without a result."""
        self._lines.append("  " + text)

    def op(self, type_: str, text: str) -> Value:
        """An instruction with a result of a type."""
        name = self._fresh()
        self._lines.append(f"  {name} = {text}")
        return Value(type_, name)

    def label(self, name: str) -> None:
        self._lines.append(f"{name}:")
        self._label = name

    def declare(self, signature: str) -> None:
        """A function of others, as ``float @llvm.sqrt.f32(float)``."""
        self._declared.setdefault(signature.split("(")[0], signature)

    def call(self, result: str, name: str, arguments: Sequence[Value], flags: str = "") -> Value:
        """Call an LLVM intrinsic or a function that the linker finds."""
        self.declare(f"{result} @{name}({', '.join(a.type for a in arguments)})")
        text = f"call {flags + ' ' if flags else ''}{result} @{name}({', '.join(map(str, arguments))})"
        if result == "void":
            self.do(text)
            return Value("void", "")
        return self.op(result, text)

    def part(self, name: str, types: Sequence[str], emit: Callable[[Function], None]) -> Value:
        """The address of a function that kernels of a module share; ``name`` says all that it depends on."""
        if name not in self.parts:
            made = Function(name, types)
            made._linkage, made.target = "internal ", self.target
            emit(made)
            self.parts |= {name: made, **made.parts}
        return Value("ptr", f"@{name}")

    def call_part(self, name: str, arguments: Sequence[Value], emit: Callable[[Function], None]) -> None:
        """Call a :meth:`part`."""
        self.invoke(self.part(name, [a.type for a in arguments], emit), arguments)

    def invoke(self, function: Value, arguments: Sequence[Value]) -> None:
        """Call a function by its address."""
        self.do(f"call void {function.text}({', '.join(map(str, arguments))})")

    def table(self, element: str, values: Sequence[str]) -> Value:
        """The address of constants in the program."""
        body = f"[{len(values)} x {element}] [{', '.join(f'{element} {v}' for v in values)}]"
        name = self._constants.get(body)
        if name is None:
            name = self._constants[body] = f"@{self.name}.table{len(self._constants)}"
        return Value("ptr", name)

    def text(self) -> tuple[str, dict[str, str]]:
        """The function's definition, and what it declares: name -> signature."""
        parameters = ", ".join(f"{p.type} {p.text}" for p in self.parameters)
        tables = [f"{name} = private unnamed_addr constant {body}, align 64" for body, name in self._constants.items()]
        head = f"define {self._linkage}{self.result} @{self.name}({parameters}) #0 {{"
        return "\n".join([*tables, head, "entry:", *self._lines, "}"]), self._declared

    # -- constants

    def i64(self, value: Index, type_: str = "i64") -> Value:
        return Value(type_, str(value)) if not isinstance(value, Value) else value

    def const(self, type_: str, number: float) -> Value:
        """A number as a value of any type, in all lanes."""
        element = element_of(type_)
        if element == "i1":
            text = "true" if number else "false"
        elif element in NUMBER_OF_BITS:
            text = real_text(element, float(number))
        else:
            text = str(int(number))
        if not type_.startswith("<"):
            return Value(type_, text)
        return Value(type_, f"splat ({element} {text})")

    def undef(self, type_: str) -> Value:
        return Value(type_, "poison")

    # -- 64-bit integers; Python integers are folded

    def _integer(self, name: str, a: Index, b: Index) -> Index:
        return self.op("i64", f"{name} i64 {_text(a)}, {_text(b)}")

    def add(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if isinstance(a, int) and a == 0:
            return b
        if isinstance(b, int) and b == 0:
            return a
        return self._integer("add nsw", a, b)

    def sub(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        if isinstance(b, int) and b == 0:
            return a
        return self._integer("sub nsw", a, b)

    def mul(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        for one, other in ((a, b), (b, a)):
            if isinstance(one, int) and one in (0, 1):
                return other if one else 0
        return self._integer("mul nsw", a, b)

    def div(self, a: Index, b: Index) -> Index:
        """Of numbers that are not negative."""
        if isinstance(b, int) and b == 1:
            return a
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        return self._integer("udiv", a, b)

    def rem(self, a: Index, b: Index) -> Index:
        """Of numbers that are not negative."""
        if isinstance(b, int) and b == 1:
            return 0
        if isinstance(a, int) and isinstance(b, int):
            return a % b
        return self._integer("urem", a, b)

    def min(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.call("i64", "llvm.smin.i64", [self.i64(a), self.i64(b)])

    def max(self, a: Index, b: Index) -> Index:
        if isinstance(a, int) and isinstance(b, int):
            return max(a, b)
        return self.call("i64", "llvm.smax.i64", [self.i64(a), self.i64(b)])

    def compare(self, condition: str, a: Index, b: Index) -> Value:
        """``slt``, ``sge``, ``eq`` and so on."""
        return self.op("i1", f"icmp {condition} i64 {_text(a)}, {_text(b)}")

    # -- memory

    def word(self, number: int) -> Value:
        """A word of the step, as an integer."""
        return self.load("i64", self.at(self.parameters[0], number, "i64"))

    def address(self, number: int) -> Value:
        """A word of the step, as an address."""
        return self.load("ptr", self.at(self.parameters[0], number, "i64"))

    def at(self, base: Value, index: Index, element: str) -> Value:
        """The address of an element."""
        if isinstance(index, int) and index == 0:
            return base
        return self.op("ptr", f"getelementptr inbounds {element}, ptr {base.text}, i64 {_text(index)}")

    def load(self, type_: str, address: Value, align: int | None = None) -> Value:
        return self.op(type_, f"load {type_}, ptr {address.text}, align {align or _natural(type_)}")

    def store(self, value: Value, address: Value, align: int | None = None) -> None:
        self.do(f"store {value}, ptr {address.text}, align {align or _natural(value.type)}")

    def alloca(self, type_: str, count: int = 1, align: int = 64) -> Value:
        """Room on the stack; call it at the start of the function."""
        return self.op("ptr", f"alloca {type_}, i64 {count}, align {align}")

    def prefetch(self, address: Value, locality: int = 3) -> None:
        self.call("void", "llvm.prefetch.p0", [address, *(Value("i32", str(n)) for n in (0, locality, 1))])

    def masked_load(self, type_: str, address: Value, mask: Value, other: Value) -> Value:
        name = f"llvm.masked.load.{mangle(type_)}.p0"
        align = Value("i32", str(_natural(type_)))
        self.declare(f"{type_} @{name}(ptr, i32 immarg, {mask.type}, {type_})")
        return self.op(type_, f"call {type_} @{name}({address}, {align}, {mask}, {other})")

    def masked_store(self, value: Value, address: Value, mask: Value) -> None:
        name = f"llvm.masked.store.{mangle(value.type)}.p0"
        align = Value("i32", str(_natural(value.type)))
        self.declare(f"void @{name}({value.type}, ptr, i32 immarg, {mask.type})")
        self.do(f"call void @{name}({value}, {address}, {align}, {mask})")

    def first_lanes(self, lanes: int, count: Index) -> Value:
        """A mask of the first ``count`` of ``lanes`` lanes."""
        steps = ", ".join(f"i64 {i}" for i in range(lanes))
        wide = self.splat(self.i64(count), lanes)
        return self.op(f"<{lanes} x i1>", f"icmp slt <{lanes} x i64> <{steps}>, {wide.text}")

    # -- arithmetic of any type

    def binary(self, name: str, a: Value, b: Value, flags: str = "") -> Value:
        """``fadd``, ``fmul``, ``and``, ``shl`` and so on."""
        return self.op(a.type, f"{name} {flags + ' ' if flags else ''}{a.type} {a.text}, {b.text}")

    def fadd(self, a: Value, b: Value) -> Value:
        return self.binary("fadd", a, b)

    def fsub(self, a: Value, b: Value) -> Value:
        return self.binary("fsub", a, b)

    def fmul(self, a: Value, b: Value) -> Value:
        return self.binary("fmul", a, b)

    def fdiv(self, a: Value, b: Value) -> Value:
        return self.binary("fdiv", a, b)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a · b + c; rounded once where the machine does that."""
        return self.call(a.type, f"llvm.fmuladd.{mangle(a.type)}", [a, b, c])

    def fcmp(self, condition: str, a: Value, b: Value) -> Value:
        """``olt``, ``une``, ``uno`` and so on."""
        return self.op(with_element(a.type, "i1"), f"fcmp {condition} {a.type} {a.text}, {b.text}")

    def icmp(self, condition: str, a: Value, b: Value) -> Value:
        return self.op(with_element(a.type, "i1"), f"icmp {condition} {a.type} {a.text}, {b.text}")

    def select(self, condition: Value, a: Value, b: Value) -> Value:
        return self.op(a.type, f"select {condition}, {a}, {b}")

    def cast(self, name: str, value: Value, element: str) -> Value:
        """``fpext``, ``sitofp``, ``bitcast`` and so on, lane by lane."""
        type_ = with_element(value.type, element)
        return value if type_ == value.type else self.op(type_, f"{name} {value} to {type_}")

    def bitcast(self, value: Value, type_: str) -> Value:
        return value if type_ == value.type else self.op(type_, f"bitcast {value} to {type_}")

    def unary(self, name: str, value: Value) -> Value:
        """An LLVM intrinsic of one operand: ``sqrt``, ``fabs``, ``floor``, ``ctpop``."""
        return self.call(value.type, f"llvm.{name}.{mangle(value.type)}", [value])

    def intrinsic(self, name: str, *values: Value) -> Value:
        """An LLVM intrinsic of operands of one type: ``maxnum``, ``minimum``, ``copysign``."""
        return self.call(values[0].type, f"llvm.{name}.{mangle(values[0].type)}", list(values))

    def splat(self, value: Value, lanes: int) -> Value:
        """A scalar in all lanes."""
        if lanes == 1:
            return value
        type_ = vector(value.type, lanes)
        first = self.op(type_, f"insertelement {type_} poison, {value}, i64 0")
        zeros = f"<{lanes} x i32> zeroinitializer"
        return self.op(type_, f"shufflevector {first}, {type_} poison, {zeros}")

    def reduce_add(self, value: Value) -> Value:
        """The sum of all lanes, in any order."""
        if not value.type.startswith("<"):
            return value
        element = element_of(value.type)
        name = f"llvm.vector.reduce.fadd.{mangle(value.type)}"
        return self.call(element, name, [self.const(element, -0.0), value], flags="reassoc")

    def extract(self, value: Value, lane: Index) -> Value:
        return self.op(element_of(value.type), f"extractelement {value}, i64 {_text(lane)}")

    def insert(self, value: Value, element: Value, lane: Index) -> Value:
        return self.op(value.type, f"insertelement {value}, {element}, i64 {_text(lane)}")

    def shuffle(self, a: Value, b: Value, lanes: Sequence[int]) -> Value:
        """Lanes of two vectors, those of the second numbered after the first's."""
        type_ = vector(element_of(a.type), len(lanes))
        mask = ", ".join(f"i32 {lane}" for lane in lanes)
        return self.op(type_, f"shufflevector {a}, {b}, <{len(lanes)} x i32> <{mask}>")

    # -- control

    @contextmanager
    def loop(self, begin: Index, end: Index, step: Index = 1, carried: Sequence[Value] = ()) -> Iterator[Loop]:
        """``for index in range(begin, end, step)``. What ``carry`` was given is in ``carried`` after the loop.

        Inside, ``carried`` are the values of this pass; afterwards they are those after the last one.
        """
        head, body, after = (self.fresh_label(stem) for stem in ("head", "body", "after"))
        latch = self.fresh_label("latch")
        before = self._label
        self.do(f"br label %{head}")
        self.label(head)
        index = self._fresh()
        following = self._fresh()
        phis = [self._fresh() for _ in carried]
        self.do(f"{index} = phi i64 [ {_text(begin)}, %{before} ], [ {following}, %{latch} ]")
        place = len(self._lines)
        more = self._fresh()
        self.do(f"{more} = icmp slt i64 {index}, {_text(end)}")
        self.do(f"br i1 {more}, label %{body}, label %{after}")
        self.label(body)
        made = Loop(Value("i64", index), [Value(c.type, name) for c, name in zip(carried, phis, strict=True)])
        made.step = step
        yield made
        following_values = made.next if made.next is not None else made.carried
        self.do(f"br label %{latch}")
        self.label(latch)
        self.do(f"{following} = add nsw i64 {index}, {_text(made.step)}")
        self.do(f"br label %{head}")
        lines = [
            f"  {name} = phi {c.type} [ {c.text}, %{before} ], [ {new.text}, %{latch} ]"
            for name, c, new in zip(phis, carried, following_values, strict=True)
        ]
        self._lines[place:place] = lines
        self.label(after)
        made.carried = [Value(c.type, name) for c, name in zip(carried, phis, strict=True)]

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """What is inside happens only where the condition (an ``i1``) holds."""
        then, after = self.fresh_label("then"), self.fresh_label("after")
        self.do(f"br {condition}, label %{then}, label %{after}")
        self.label(then)
        yield
        self.do(f"br label %{after}")
        self.label(after)

    def choose(self, condition: Value, make: Sequence[object]) -> list[Value]:
        """Values of one of two branches: ``make`` are two functions without arguments that return lists of them, or
        None where there are none."""
        then, other, after = (self.fresh_label(stem) for stem in ("then", "else", "after"))
        self.do(f"br {condition}, label %{then}, label %{other}")
        found: list[tuple[list[Value], str]] = []
        for label, one in zip((then, other), make, strict=True):
            self.label(label)
            values = one() or []  # type: ignore[operator]
            self.do(f"br label %{after}")
            found.append((values, self._label))
        self.label(after)
        (one_side, one_label), (other_side, other_label) = found
        return [
            self.op(a.type, f"phi {a.type} [ {a.text}, %{one_label} ], [ {b.text}, %{other_label} ]")
            for a, b in zip(one_side, other_side, strict=True)
        ]

    def switch(self, value: Value, cases: Sequence[Callable[[], None]], first: int = 0) -> None:
        """One of the cases: ``cases[value - first]``. Numbers without a case don't occur."""
        labels = [self.fresh_label("case") for _ in cases]
        other, after = self.fresh_label("none"), self.fresh_label("after")
        table = " ".join(f"i64 {number}, label %{label}" for number, label in enumerate(labels, first))
        self.do(f"switch {value}, label %{other} [ {table} ]")
        self.label(other)
        self.do("unreachable")
        for label, case in zip(labels, cases, strict=True):
            self.label(label)
            case()
            self.do(f"br label %{after}")
        self.label(after)

    def ret(self, value: Value | None = None) -> None:
        self.do("ret void" if value is None else f"ret {value}")

    def share(self, n_items: Index, thread: Value | None = None, n_threads: Value | None = None) -> tuple[Index, Index]:
        """The items of this thread among ``n_items``: from the first to before the second."""
        thread = thread or self.parameters[1]
        n_threads = n_threads or self.parameters[2]
        first = self.div(self.mul(n_items, thread), n_threads)
        last = self.div(self.mul(n_items, self.add(thread, 1)), n_threads)
        return first, last


def _text(index: Index) -> str:
    return index.text if isinstance(index, Value) else str(index)


def _natural(type_: str) -> int:
    """The alignment of an element: vectors are not expected to be aligned."""
    element = element_of(type_)
    if element == "ptr":
        return 8
    bits = NUMBER_OF_BITS.get(element) or int(element[1:])
    return max(1, bits // 8)


def mangle(type_: str) -> str:
    """A type in the name of an intrinsic: ``v16f32``, ``i64``."""
    element = element_of(type_)
    name = {"float": "f32", "double": "f64", "half": "f16", "bfloat": "bf16"}.get(element, element)
    return name if not type_.startswith("<") else f"v{lanes_of(type_)}{name}"


__all__ = ["Function", "Index", "Loop", "Value", "element_of", "lanes_of", "mangle", "vector", "with_element"]
