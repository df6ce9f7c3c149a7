"""RNN, GRU and LSTM: what all time steps take from the inputs, then the loop over time, as two kernels.

Weights of a gate are [hidden, size]. They are packed in panels of one block of hidden units (as many as a vector has
lanes): [directions, blocks, size, gates, lanes], so that each element of the input or the state serves all gates of a
block with one vector load each. What the inputs give is [directions, rows, blocks, gates, lanes], rows being those of
X in its own order.

A unit of work of a time step is a block of hidden units for a tile of the batch's rows. Threads take directions and
tiles, which need not wait for each other, or (``together``) blocks, and meet after each time step. Nothing depends on
who computes a unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from distort.kernels.compiler.codegen import cells, quantized_states
from distort.kernels.compiler.codegen.gates import Activation
from distort.kernels.compiler.codegen.meeting import Meeting
from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.codegen.text import Function, Index, Value, vector

#: gates of a kind of cell, in the order of ONNX
N_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
INPUT_WORDS = ("rows", "size", "n_directions", "n_blocks", "x", "x_row", "w", "bias", "gates")
#: of the loop; ``h0``, ``c0`` are initial states, ``y`` all states, ``h``, ``c`` the last ones: each with its strides
#: in elements. ``n_long``: how many tiles have as many rows as the first of ``Cell.tiles``
CELL_WORDS = (
    *("n_steps", "n_rows", "hidden", "n_directions", "n_blocks", "n_tiles", "n_long", "reverse"),
    *("gates", "gates_direction", "gates_time", "gates_row"),
    *("r", "r_sums", "r_scales", "bias", "peepholes", "counter", "give", "scratch", "scratch_direction"),
    *("h0", "h0_direction", "h0_row", "c0", "c0_direction", "c0_row"),
    *("y", "y_direction", "y_time", "y_row", "h", "h_direction", "h_row", "c", "c_direction", "c_row"),
    "lengths",  # int64 [rows]
)
_ADDRESSES = (
    *("x", "w", "bias", "gates", "r", "r_sums", "r_scales", "peepholes", "counter", "give", "scratch"),
    *("h0", "c0", "y", "h", "c", "lengths"),
)


class Cell(NamedTuple):
    """What the kernel of a loop over time is made for."""

    kind: str
    tiles: tuple[int, ...]  # rows of the batch that are computed at once: one number, or two neighbours
    n_chains: int  # sums on their way at once for each result; divides the hidden size
    activations: tuple[Activation, ...]
    clip: float = 0.0
    ragged: bool = False  # whether the last block of hidden units is not full
    together: bool = False  # whether threads share blocks
    #: peepholes, input_forget, linear_before_reset; bytes: weights are 8-bit integers, and states are quantized;
    #: lengths: rows have as many steps each, and in others keep their state
    flags: tuple[str, ...] = ()


def most_rows(target: Target, n_gates: int) -> int:
    """Rows of a tile, so that sums, a panel's vectors and one state fit the registers."""
    return max(1, min(8, (target.n_vector_registers - n_gates - 1) // n_gates))


def words_of(f: Function, names: Sequence[str]) -> dict[str, Value]:
    return {name: (f.address if name in _ADDRESSES else f.word)(n) for n, name in enumerate(names)}


def product(
    f: Function, rows: Sequence[Value], panel: Value, size: Value, n_vectors: int, lanes: int, n_chains: int = 1
) -> list[list[Value]]:
    """rows: addresses of [size] each, panel: [size, n_vectors, lanes] -> for each row its sums, vectors of a panel."""
    type_ = vector("float", lanes)
    n_sums = len(rows) * n_vectors
    with f.loop(0, size, n_chains, [f.const(type_, 0)] * (n_sums * n_chains)) as loop:
        made: list[Value] = []
        for chain in range(n_chains):
            k = f.add(loop.index, chain)
            line = f.at(panel, f.mul(k, n_vectors * lanes), "float")
            weights = [f.load(type_, f.at(line, n * lanes, "float")) for n in range(n_vectors)]
            for row in rows:
                every = f.splat(f.load("float", f.at(row, k, "float")), lanes)
                for weight in weights:
                    made.append(f.fma(every, weight, loop.carried[len(made)]))
        loop.carry(made)
    sums = loop.carried
    while len(sums) > n_sums:
        half = len(sums) // 2
        sums = [f.fadd(one, other) for one, other in zip(sums[:half], sums[half:], strict=True)]
    return [sums[n : n + n_vectors] for n in range(0, n_sums, n_vectors)]


def emit_inputs(f: Function, target: Target, n_gates: int, most: int) -> None:
    """gates = X · Wᵀ + bias for all rows. ``most``: rows of a tile."""
    words = words_of(f, INPUT_WORDS)
    lanes = target.lanes("float")
    width = n_gates * lanes
    n_tiles = f.div(f.add(words["rows"], most - 1), most)
    begin, end = f.share(f.mul(f.mul(words["n_directions"], words["n_blocks"]), n_tiles))
    of_row = f.mul(words["n_blocks"], width)
    with f.loop(begin, end) as unit:
        panel = f.div(unit.index, n_tiles)
        direction, block = f.div(panel, words["n_blocks"]), f.rem(panel, words["n_blocks"])
        first = f.mul(f.rem(unit.index, n_tiles), most)
        weights = f.at(words["w"], f.mul(panel, f.mul(words["size"], width)), "float")
        bias_at = f.at(words["bias"], f.mul(panel, width), "float")
        type_ = vector("float", lanes)

        def rows(row: Index, count: int) -> None:
            """``count`` rows from this one on."""
            x = [f.at(words["x"], f.mul(f.add(row, n), words["x_row"]), "float") for n in range(count)]
            found = product(f, x, weights, words["size"], n_gates, lanes)
            at = f.add(f.mul(f.add(f.mul(direction, words["rows"]), row), of_row), f.mul(block, width))
            for n, sums in enumerate(found):
                to = f.at(words["gates"], f.add(at, f.mul(of_row, n)), "float")
                for m, total in enumerate(sums):
                    bias = f.load(type_, f.at(bias_at, m * lanes, "float"))
                    f.store(f.fadd(total, bias), f.at(to, m * lanes, "float"))

        last = f.min(f.add(first, most), words["rows"])
        whole = f.compare("eq", f.sub(last, first), most)

        def all_rows() -> list[Value]:
            rows(first, most)
            return []

        def single_rows() -> list[Value]:
            with f.loop(first, last) as single:
                rows(single.index, 1)
            return []

        f.choose(whole, (all_rows, single_rows))
    f.ret()


def emit_cell(f: Function, target: Target, *parameters: object) -> None:
    """``parameters`` are the fields of a ``Cell``."""
    cell = Cell(*parameters)  # type: ignore[arg-type]
    _Emitter(f, target, cell).emit()


class _Step(NamedTuple):
    """Where one time step of one direction reads and writes. Each is an address and the stride of rows."""

    direction: Index
    time: Index
    tiles: tuple[Index, Index]  # of the batch, that this thread does
    gates: Value
    before: tuple[Value, Value]  # the state
    cell: tuple[Value, Value]  # the cell state before
    y: Value
    h: Value
    c: Value
    scratch: Value  # [batch, 2, hidden units in whole blocks]
    scale: Value | None = None  # of the state in bytes
    zero: Value | None = None


class _Emitter:
    def __init__(self, f: Function, target: Target, cell: Cell) -> None:
        self.f, self.cell, self.target = f, cell, target
        self.words = words_of(f, CELL_WORDS)
        self.lanes = target.lanes("float")
        self.type = vector("float", self.lanes)
        self.n_gates = N_GATES[cell.kind]
        self.two_phases = cell.kind == "GRU" and "linear_before_reset" not in cell.flags
        self.padded = f.mul(self.words["n_blocks"], self.lanes)
        #: of a state in bytes, in whole groups
        self.row_nbytes = f.mul(f.div(f.add(self.words["hidden"], 3), 4), 4)

    def emit(self) -> None:
        f, words = self.f, self.words
        n_phases = 2 if self.two_phases else 1
        blocks: tuple[Index, Index] = (0, words["n_blocks"])
        meeting = None
        begin: Index = 0
        # a state in bytes has one scale for the whole batch: its tiles stay together
        of_direction: Index = 1 if "bytes" in self.cell.flags else words["n_tiles"]
        end = f.mul(words["n_directions"], of_direction)
        if self.cell.together:
            blocks = f.share(words["n_blocks"])
            meeting = Meeting(f, self.target, words["counter"], words["give"])
        else:
            begin, end = f.share(end)
        first, last = f.div(begin, of_direction), f.div(f.add(end, f.sub(of_direction, 1)), of_direction)
        with f.loop(first, last) as direction, f.loop(0, words["n_steps"]) as time:
            before = f.mul(direction.index, of_direction)
            tiles: tuple[Index, Index] = (0, words["n_tiles"])
            if "bytes" not in self.cell.flags:
                tiles = f.max(f.sub(begin, before), 0), f.min(f.sub(end, before), words["n_tiles"])
            step = self._step(direction.index, time.index, tiles)
            if "bytes" in self.cell.flags:
                step = self._quantized(step)
            number = f.add(f.mul(direction.index, words["n_steps"]), time.index)
            for phase in range(n_phases):
                with f.loop(*blocks) as block:
                    self._block(step, block.index, phase)
                if meeting is not None:
                    meeting.wait(f.add(f.mul(number, n_phases), phase + 1))
        f.ret()

    def _step(self, direction: Value, number: Value, tiles: tuple[Index, Index]) -> _Step:
        f, words = self.f, self.words
        is_first = f.compare("eq", number, 0)
        backwards = f.compare("eq", f.add(direction, words["reverse"]), 1)
        last = f.sub(words["n_steps"], 1)
        time = f.select(backwards, f.i64(f.sub(last, number)), number)
        earlier = f.select(backwards, f.i64(f.add(time, 1)), f.i64(f.sub(time, 1)))
        gates = f.add(f.mul(direction, words["gates_direction"]), f.mul(time, words["gates_time"]))
        y = f.at(words["y"], f.mul(direction, words["y_direction"]), "float")
        places = {n: f.at(words[n], f.mul(direction, words[f"{n}_direction"]), "float") for n in ("h0", "c0", "h", "c")}
        return _Step(
            direction,
            time,
            tiles,
            f.at(words["gates"], gates, "float"),
            (
                f.select(is_first, places["h0"], f.at(y, f.mul(earlier, words["y_time"]), "float")),
                f.select(is_first, words["h0_row"], words["y_row"]),
            ),
            (f.select(is_first, places["c0"], places["c"]), f.select(is_first, words["c0_row"], words["c_row"])),
            f.at(y, f.mul(time, words["y_time"]), "float"),
            places["h"],
            places["c"],
            f.at(words["scratch"], f.mul(direction, words["scratch_direction"]), "float"),
        )

    def _quantized(self, step: _Step) -> _Step:
        """The step with its state in bytes, in this thread's scratch memory: the whole batch has one scale."""
        f, words = self.f, self.words
        scale, zero = quantized_states.scales(f, self.target, step.before, words["n_rows"], words["hidden"])
        own = f.mul(f.thread, f.mul(words["n_rows"], self.row_nbytes))
        to = f.at(words["scratch"], own, "i8")
        every: tuple[Index, Index] = (0, words["n_rows"])
        quantized_states.quantize(
            f, self.target, step.before, (to, self.row_nbytes), every, words["hidden"], scale, zero
        )
        zero = f.binary("sub", zero, f.const("i32", quantized_states.shift_of(self.target)))
        return step._replace(scratch=to, scale=scale, zero=zero)

    def _block(self, step: _Step, block: Value, phase: int) -> None:
        """All rows of the batch for a block of hidden units."""
        f, words = self.f, self.words
        mask = f.first_lanes(self.lanes, f.sub(words["hidden"], f.mul(block, self.lanes))) if self.cell.ragged else None
        sizes = self.cell.tiles
        place = f.add(f.mul(step.direction, words["n_blocks"]), block)
        panel_size = f.mul(
            self.row_nbytes if "bytes" in self.cell.flags else words["hidden"], self.n_gates * self.lanes
        )
        panel = f.at(words["r"], f.mul(place, panel_size), "i8" if "bytes" in self.cell.flags else "float")
        if self.two_phases:  # [size, 2, lanes] of z and r, then [size, lanes] of h
            panel = f.at(panel, f.mul(words["hidden"], 2 * self.lanes * phase), "float")
        for number, size in enumerate(sizes):
            begin, end = (words["n_long"], words["n_tiles"]) if number else (0, words["n_long"])
            skipped = f.mul(words["n_long"], sizes[0] - size) if number else 0
            with f.loop(f.max(begin, step.tiles[0]), f.min(end, step.tiles[1])) as tile:
                first = f.add(f.mul(tile.index, size), skipped)
                self._tile(step, block, phase, panel, first, size, mask)

    def _tile(
        self, step: _Step, block: Value, phase: int, panel: Value, first: Index, n_rows: int, mask: Value | None
    ) -> None:
        f, words = self.f, self.words
        n_vectors = (2, 1)[phase] if self.two_phases else self.n_gates
        state, stride = step.before
        if phase:  # the state after the reset
            state, stride = step.scratch, f.i64(f.mul(self.padded, 2))
        # sums are in an order that does not depend on how the batch is cut, but for a batch of one
        n_chains = self.cell.n_chains
        while n_chains > 1 and n_chains * n_vectors > (8 if n_rows == 1 else 2):
            n_chains //= 2
        if "bytes" in self.cell.flags:
            found = self._of_bytes(step, block, panel, first, n_rows, n_chains)
        else:
            rows = [f.at(state, f.mul(f.add(first, n), stride), "float") for n in range(n_rows)]
            found = product(f, rows, panel, words["hidden"], n_vectors, self.lanes, n_chains)
        unit = f.mul(block, self.lanes)
        for n, sums in enumerate(found):
            row = f.add(first, n)
            at = f.add(f.mul(row, words["gates_row"]), f.mul(unit, self.n_gates))
            gates = f.at(step.gates, at, "float")
            inputs = [f.load(self.type, f.at(gates, m * self.lanes, "float")) for m in range(self.n_gates)]
            self._cell(_Unit(self, step, block, row, unit, mask), phase, sums, inputs)

    def _of_bytes(
        self, step: _Step, block: Value, panel: Value, first: Index, n_rows: int, n_chains: int
    ) -> list[list[Value]]:
        f, words, lanes = self.f, self.words, self.lanes
        assert step.scale is not None and step.zero is not None
        rows = [f.at(step.scratch, f.mul(f.add(first, n), self.row_nbytes), "i8") for n in range(n_rows)]
        n_groups = f.div(self.row_nbytes, quantized_states.GROUP)
        found = quantized_states.product(f, self.target, rows, panel, n_groups, self.n_gates, n_chains)
        column = f.mul(f.add(f.mul(step.direction, words["n_blocks"]), block), self.n_gates * lanes)
        given = (step.zero, step.scale, words["r_sums"], words["r_scales"])
        return [
            [quantized_states.scaled(f, total, *given, f.add(column, n * lanes)) for n, total in enumerate(sums)]
            for sums in found
        ]

    def _cell(self, unit: _Unit, phase: int, sums: list[Value], inputs: list[Value]) -> None:
        cell = self.cell
        if cell.kind == "LSTM":
            cells.lstm(unit, sums, inputs, cell.activations, cell.clip, cell.flags)
        elif cell.kind == "RNN":
            cells.rnn(unit, sums[0], inputs[0], cell.activations[0], cell.clip)
        elif self.two_phases:
            cells.gru_in_two(unit, phase, sums, inputs, cell.activations, cell.clip)
        else:
            cells.gru(unit, sums, inputs, cell.activations, cell.clip)


class _Unit:
    """A row's block of hidden units: where it is read and written."""

    def __init__(
        self, emitter: _Emitter, step: _Step, block: Value, row: Index, unit: Index, mask: Value | None
    ) -> None:
        self.emitter, self.f = emitter, emitter.f
        self.step, self.block, self.row, self.unit, self.mask = step, block, row, unit, mask

    def _at(self, base: Value, stride: Value) -> Value:
        return self.f.at(base, self.f.add(self.f.mul(self.row, stride), self.unit), "float")

    def _load(self, place: tuple[Value, Value]) -> Value:
        f, type_ = self.f, self.emitter.type
        address = self._at(*place)
        return (
            f.load(type_, address) if self.mask is None else f.masked_load(type_, address, self.mask, f.const(type_, 0))
        )

    def _store(self, value: Value, base: Value, stride: Value) -> None:
        address = self._at(base, stride)
        if self.mask is None:
            self.f.store(value, address)
        else:
            self.f.masked_store(value, address, self.mask)

    def vectors(self, name: str, count: int) -> list[Value]:
        """Packed as [directions, blocks, count, lanes]."""
        f, words, lanes = self.f, self.emitter.words, self.emitter.lanes
        place = f.add(f.mul(self.step.direction, words["n_blocks"]), self.block)
        base = f.at(words[name], f.mul(place, count * lanes), "float")
        return [f.load(self.emitter.type, f.at(base, n * lanes, "float")) for n in range(count)]

    def scratch(self, which: int) -> Value:
        padded = self.emitter.padded
        at = self.f.add(self.f.mul(self.f.add(self.f.mul(self.row, 2), which), padded), self.unit)
        return self.f.at(self.step.scratch, at, "float")

    def state_before(self) -> Value:
        return self._load(self.step.before)

    def cell_before(self) -> Value:
        return self._load(self.step.cell)

    def _where_it_lasts(self, value: Value, before: Callable[[], Value]) -> Value:
        f = self.f
        if "lengths" not in self.emitter.cell.flags:
            return value
        length = f.load("i64", f.at(self.emitter.words["lengths"], self.row, "i64"))
        return f.select(f.compare("slt", self.step.time, length), value, before())

    def store_cell(self, value: Value) -> None:
        value = self._where_it_lasts(value, self.cell_before)
        self._store(value, self.step.c, self.emitter.words["c_row"])

    def make(self, state: Value) -> None:
        words = self.emitter.words
        state = self._where_it_lasts(state, self.state_before)
        self._store(state, self.step.y, words["y_row"])
        self._store(state, self.step.h, words["h_row"])
