"""Keys and values of a head in panels of columns, as the register tile reads them."""

from __future__ import annotations

import functools
from typing import Any

from distort.kernels.compiler.codegen import packing
from distort.kernels.compiler.codegen.text import Function, Index, Value
from distort.kernels.compiler.codegen.tiles import Tile
from distort.kernels.compiler.expression import STORED


class Panels:
    """``n_keys`` panels of Kᵀ [depth, keys] and ``n_values`` lines of V [keys, columns] are there: of a head, or of
    heads that share them. Panels of V are as long as there are keys."""

    def __init__(
        self, f: Function, lanes: int, keys: Tile, values: Tile, key_panels: Value, value_panels: Value
    ) -> None:
        self._f, self._lanes = f, lanes
        self._key_tile, self._value_tile = keys, values
        self._key_width, self._value_width = keys.vectors * lanes, values.vectors * lanes
        self._key_panels, self._value_panels = key_panels, value_panels
        self.n_keys, self.n_values = f.i64(0), f.i64(0)

    def begin(self, n_keys: Value, n_values: Value) -> None:
        self.n_keys, self.n_values = n_keys, n_values

    def pack_keys(self, k: Value, dtype: str, line: Value, n_keys: Value, depth: Value, wanted: Value) -> None:
        """Panels with the first ``wanted`` of the keys [n_keys, depth]."""
        f, width = self._f, self._key_width
        last = f.div(f.add(wanted, width - 1), width)
        with f.loop(self.n_keys, last) as panel:
            column = f.mul(panel.index, width)
            at = f.at(k, f.mul(column, line), STORED[dtype])
            self._pack("columns", dtype, self._key_tile, at, line, f.sub(n_keys, column), depth,
                       f.at(self._key_panels, f.mul(column, depth), "float"))  # fmt: skip
        self.n_keys = f.i64(f.max(self.n_keys, last))

    def keys(self, column: Index, depth: Value) -> tuple[Value, Value, str]:
        """Lines of a panel: where the first is, elements from each to the next, and their dtype."""
        f = self._f
        return f.at(self._key_panels, f.mul(column, depth), "float"), f.i64(self._key_width), "float32"

    def rows_of_keys(
        self, k: Value, dtype: str, line: Value, column: Index, n_keys: Value, depth: Value
    ) -> tuple[Value, Value, str]:
        """The same of Kᵀ as it lies."""
        f = self._f
        at, left = f.at(k, column, STORED[dtype]), f.sub(n_keys, column)

        def packed() -> list[Value]:
            self._pack("rows", dtype, self._key_tile, at, line, left, depth, self._key_panels)
            return [self._key_panels, f.i64(self._key_width)]

        lines, step = f.choose(f.compare("sge", left, self._key_width), (lambda: [at, line], packed))
        return lines, step, dtype

    def pack_values(
        self, v: Value, dtype: str, line: Value, columns: Value, n_keys: Value, wanted: Value, packs: Value
    ) -> None:
        """Where ``packs``: panels with the first ``wanted`` of the values [n_keys, columns]."""
        f = self._f
        new = f.max(f.sub(wanted, self.n_values), 0)
        with f.when(f.binary("and", packs, f.compare("sgt", new, 0))), f.loop(0, columns, self._value_width) as panel:
            column = panel.index
            at = f.at(v, f.add(f.mul(self.n_values, line), column), STORED[dtype])
            to = f.at(self._panel(column, n_keys, dtype), f.mul(self.n_values, self._value_width), STORED[dtype])
            self._pack("rows", dtype, self._value_tile, at, line, f.sub(columns, column), f.i64(new), to)
        self.n_values = f.i64(f.max(self.n_values, wanted))

    def values(
        self,
        v: Value,
        dtype: str,
        line: Value,
        column: Index,
        left: Index,
        n_keys: Value,
        wanted: Value,
        packs: Value,
    ) -> tuple[Value, Value]:
        """Lines of a panel: packed before where ``packs``; otherwise as they are, or packed now if too short."""
        f, width = self._f, self._value_width
        at = f.at(v, column, STORED[dtype])
        panel = self._panel(column, n_keys, dtype)

        def packed() -> list[Value]:
            with f.when(f.compare("eq", f.op("i64", f"zext {packs} to i64"), 0)):
                self._pack("rows", dtype, self._value_tile, at, line, left, wanted, panel)
            return [panel, f.i64(width)]

        direct = f.binary("and", f.compare("sge", left, width), f.binary("xor", packs, f.const("i1", 1)))
        lines, step = f.choose(direct, (lambda: [at, line], packed))
        return lines, step

    def _panel(self, column: Index, n_keys: Value, dtype: str) -> Value:
        return self._f.at(self._value_panels, self._f.mul(column, n_keys), STORED[dtype])

    def _pack(
        self, way: str, dtype: str, tile: Tile, at: Value, line: Value, left: Index, depth: Value, to: Value
    ) -> None:
        emit: Any = packing.emit_rows if way == "rows" else packing.emit_columns
        pack = functools.partial(emit, dtype=dtype, vectors=tile.vectors, lanes=self._lanes)
        name = f"pack_{way}_{tile.vectors}_{dtype}"
        self._f.call_part(name, [at, line, self._f.i64(left), depth, to], pack)
