"""Slots of device memory without a device: every order of what an owner and its readers may do, up to a depth."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from distort.cluster.gpu.ledger import DeviceSlot, Ledger
from distort.scheduler.gpus import SLOT_NBYTES, slot_nbytes

READERS = ("a", "b")
DEPTH = 7
_NUMBERS = itertools.count(1)


@dataclass
class FakePage:
    number: int = field(default_factory=lambda: next(_NUMBERS))
    reading: bool = False
    mapped: bool = False
    closed: bool = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


def ledger() -> Ledger:
    return Ledger(lambda slot: FakePage())


class World:
    """An owner, its readers, and what each may do next. Readers act by the rules, and may die at any time."""

    def __init__(self) -> None:
        self.ledger = ledger()
        self.freed: list[DeviceSlot] = []
        self.slots: list[DeviceSlot] = []
        self.alive = dict.fromkeys(READERS, True)
        self.told: dict[str, set[int]] = {reader: set() for reader in READERS}  # pages that a reader was sent
        self.known: dict[str, list[FakePage]] = {reader: [] for reader in READERS}

    def actions(self) -> Iterator[tuple[str, object]]:
        living = [reader for reader in READERS if self.alive[reader]]
        for n in range(1, len(living) + 1):
            yield from (("send", readers) for readers in itertools.combinations(living, n))
        for reader in living:
            for i, page in enumerate(self.known[reader]):
                if page.reading and not page.mapped:
                    yield "open", (reader, i)
                if page.reading:
                    yield "release", (reader, i)
            if reader in self.ledger.forgetful:
                yield "forget", reader
            yield "die", reader
        if len(self.ledger):
            yield "retire", None
            yield "reap", None

    def act(self, action: str, what: object) -> None:
        if action == "send":
            self._send(what)  # type: ignore[arg-type]  # as actions() made it
        elif action in ("open", "release"):
            reader, i = what  # type: ignore[misc]  # as actions() made it
            page = self.known[reader][i]
            if action == "open":
                page.mapped = True
            else:
                page.reading = False
        elif action == "forget":
            numbers = self.ledger.take_forgotten(what)  # type: ignore[arg-type]  # a reader
            gone = [page for page in self.known[what] if page.number in numbers]  # type: ignore[index]  # a reader
            for page in gone:
                assert not page.reading, "a page is forgotten while it is read"
                page.mapped = False
                self.known[what].remove(page)  # type: ignore[index]  # a reader
        elif action == "die":
            self.alive[what] = False  # type: ignore[index]  # a reader
            self.known[what].clear()  # type: ignore[index]  # a reader
            self.ledger.lose(what)  # type: ignore[arg-type]  # a reader
        elif action == "retire":
            self.ledger.retire()
        else:
            for slot in self.ledger.reap():
                self._free(slot)

    def _send(self, readers: tuple[str, ...]) -> None:
        reading = {id(slot) for slot in self.slots for r, p in slot.pages.items() if self.alive[str(r)] and p.reading}
        slot = self.ledger.take(1, readers)
        if slot is None:
            if len(self.ledger) >= 3:
                return
            slot = self.ledger.add(1, readers)
            self.slots.append(slot)
        assert id(slot) not in reading, "a slot is written while somebody reads it"
        assert slot not in self.freed, "a slot is written after it was freed"
        for reader in readers:
            page = slot.pages[reader]
            assert isinstance(page, FakePage) and page.reading and not page.closed
            if page.number not in self.told[reader]:
                self.told[reader].add(page.number)
                self.known[reader].append(page)

    def _free(self, slot: DeviceSlot) -> None:
        for reader in READERS:
            for page in self.known[reader]:
                if page in slot.pages.values():
                    assert not page.mapped, "memory is freed that a reader has open"
                    assert not page.reading, "memory is freed that a reader reads"
        self.freed.append(slot)
        self.slots.remove(slot)

    def end(self) -> None:
        """Whatever happened: when all readers are done or dead, every slot can be had again, and freed."""
        for reader in READERS:
            for page in self.known[reader]:
                page.reading = False
        assert self.ledger.in_use() == 0
        self.ledger.retire()
        for reader in READERS:
            if self.alive[reader]:
                self.act("forget", reader)
        self.act("reap", None)
        assert len(self.ledger) == 0 and not self.slots and self.ledger.nbytes == 0

    def key(self) -> object:
        flags = [tuple((r, p.reading, p.mapped) for r, p in sorted(s.pages.items(), key=str)) for s in self.slots]
        order = [[self.slots.index(s) for s in group] for group in (self.ledger._slots, self.ledger._retired)]
        known = [[[p in s.pages.values() for s in self.slots] for p in self.known[r]] for r in READERS]
        return repr((flags, order, self.alive, known, [len(self.ledger._forgotten.get(r, ())) for r in READERS]))


def replay(path: tuple[tuple[str, object], ...]) -> World:
    world = World()
    for action, what in path:
        world.act(action, what)
    return world


def test_no_order_of_events_writes_what_is_read_or_frees_what_is_open() -> None:
    seen: set[object] = set()
    frontier: list[tuple[tuple[str, object], ...]] = [()]
    for _ in range(DEPTH):
        grown = []
        for path in frontier:
            for action in replay(path).actions():
                world = replay((*path, action))
                key = world.key()
                if key not in seen:
                    seen.add(key)
                    grown.append((*path, action))
                    world.end()
        frontier = grown
    assert len(seen) > 500


def test_a_slot_is_taken_again_when_its_last_reader_is_done() -> None:
    book = ledger()
    slot = book.add(100, READERS)
    assert book.take(100, READERS) is None
    slot.pages["a"].reading = False
    assert book.take(100, READERS) is None
    slot.pages["b"].reading = False
    assert book.take(100, ("b",)) is slot
    assert not slot.pages["a"].reading and slot.pages["b"].reading


def test_the_smallest_that_fits_is_taken_and_one_that_is_far_too_large_is_left() -> None:
    book = ledger()
    large, small = book.add(4 * SLOT_NBYTES, ("a",)), book.add(SLOT_NBYTES, ("a",))
    huge = book.add(100 * SLOT_NBYTES, ("a",))
    for slot in (large, small, huge):
        book.unmark(slot)
    assert book.take(1, ("a",)) is small
    assert book.take(1, ("a",)) is large
    assert book.take(1, ("a",)) is None
    assert book.take(99 * SLOT_NBYTES, ("a",)) is huge


def test_capacities_are_whole_granules() -> None:
    assert [slot_nbytes(n) for n in (0, 1, SLOT_NBYTES, SLOT_NBYTES + 1)] == [SLOT_NBYTES * n for n in (1, 1, 1, 2)]


def test_a_slot_whose_memory_cannot_be_made_is_as_if_it_had_never_been() -> None:
    book = ledger()
    slot = book.add(1, ("a",))
    page = slot.pages["a"]
    book.drop(slot)
    assert len(book) == 0 and isinstance(page, FakePage) and page.closed
    assert not book.take_forgotten("a")


def test_at_the_end_memory_that_is_open_elsewhere_is_not_freed() -> None:
    book = ledger()
    kept, given = book.add(1, ("a",)), book.add(1, ("b",))
    page = kept.pages["a"]
    assert isinstance(page, FakePage)
    page.mapped = True
    assert list(book.close()) == [given]


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_that_died_holds_up_nobody(reader: str) -> None:
    book = ledger()
    slot = book.add(1, READERS)
    for page in slot.pages.values():
        assert isinstance(page, FakePage)
        page.mapped = True
    book.lose(reader)
    (other,) = set(READERS) - {reader}
    slot.pages[other].reading = False
    assert book.take(1, (other,)) is slot
    slot.pages[other].reading = False
    book.retire()
    assert not list(book.reap())
    page = slot.pages[other]
    assert isinstance(page, FakePage)
    page.mapped = False
    assert list(book.reap()) == [slot]
