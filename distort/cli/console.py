"""What commands show: tables and lines on stdout, progress on stderr.

Plain text without control sequences where stdout is no terminal, where NO_COLOR is set, or where rich is missing;
rich's tables and styles otherwise. Progress is drawn only where stderr is a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress


def clean(text: str) -> str:
    """Text of a model or a file made safe for a terminal: what can't be printed is escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def print_json(data: Any) -> None:
    """One JSON document on stdout; numbers that JSON lacks must be gone from ``data``."""
    sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")


def drawable(text: str, stream: TextIO) -> bool:
    """Whether a stream's encoding has the characters of ``text``."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def is_plain(stream: TextIO) -> bool:
    """Whether a stream gets text without control sequences."""
    return not stream.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, lines, a table; :attr:`numbers` are the positions of columns that go to the right."""

    heading: str
    lines: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    numbers: frozenset[int] = frozenset()


class Screen:
    """Stdout as it is now: plain, or rich."""

    def __init__(self) -> None:
        self._began = False
        self._rich: Any = None
        if not is_plain(sys.stdout):
            try:
                from rich.console import Console
            except ModuleNotFoundError:  # doctor has to be able to say so
                return
            self._rich = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)

    @property
    def width(self) -> int:
        """Columns of the terminal; 100 where there is none."""
        return int(self._rich.width) if self._rich is not None else 100

    def line(self, text: str = "", style: str = "") -> None:
        self._began = True
        if self._rich is None:
            sys.stdout.write(clean(text) + "\n")
        else:
            self._rich.print(clean(text), style=style or None, soft_wrap=True)

    def heading(self, text: str) -> None:
        if self._began:
            self.line()
        self.line(text, "bold")

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int] = frozenset()
    ) -> None:
        """Columns padded, those at the positions in ``numbers`` to the right."""
        cells = [[clean(cell) for cell in row] for row in rows]
        if self._rich is None:
            for text in _plain_table(columns, cells, numbers):
                sys.stdout.write(text + "\n")
            return
        self._rich.print(_rich_table(columns, cells, numbers))

    def show(self, blocks: Iterable[Block]) -> None:
        """Blocks, one below the other."""
        for block in blocks:
            self.heading(block.heading)
            for text in block.lines:
                self.line(text)
            if block.rows:
                self.table(block.columns, block.rows, block.numbers)

    @contextmanager
    def live(self) -> Iterator[Callable[[Sequence[Block]], None]]:
        """What the block gets shows blocks in the place of those before; nothing where stdout is no terminal."""
        if self._rich is None:
            yield lambda blocks: None
            return
        from rich.live import Live

        with Live(console=self._rich, auto_refresh=False, transient=True) as shown:
            yield lambda blocks: shown.update(_rich_group(blocks), refresh=True)


def _rich_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int]) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _rich_group(blocks: Iterable[Block]) -> Any:
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    for block in blocks:
        parts += [Text(clean(block.heading), style="bold"), *(Text(clean(line)) for line in block.lines)]
        if block.rows:
            cells = [[clean(cell) for cell in row] for row in block.rows]
            parts.append(_rich_table(block.columns, cells, block.numbers))
    return Group(*parts)


def _plain_table(columns: Sequence[str], rows: list[list[str]], numbers: frozenset[int]) -> Iterator[str]:
    every = [list(columns), *rows]
    widths = [max(len(row[i]) for row in every) for i in range(len(columns))]
    every.insert(1, ["-" * width for width in widths])
    for row in every:
        padded = (c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        yield "  ".join(padded).rstrip()


@contextmanager
def progress(text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """A bar while the block runs; the block calls what it gets after each of ``total`` steps (None: not known)."""
    with _bar(text, total) as bar:
        yield (lambda: None) if bar is None else lambda: bar.advance(bar.task_ids[0])


@contextmanager
def compiling(text: str) -> Iterator[None]:
    """The same around what may compile kernels in this process: it tells how many of them are done."""
    with _bar(text, None) as bar:
        if bar is None:
            yield
            return
        from distort.kernels.compiler.library import shared

        def show(done: int, total: int) -> None:
            busy = done < total
            said = f"compiling kernels, {done} of {total}" if busy else clean(text)
            bar.update(bar.task_ids[0], description=said, completed=done, total=total if busy else None)

        library = shared()
        library.watch = show
        try:
            yield
        finally:
            library.watch = None


@contextmanager
def _bar(text: str, total: int | None) -> Iterator[Progress | None]:
    """None where nobody would see it."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        bar.add_task(clean(text), total=total)
        yield bar
