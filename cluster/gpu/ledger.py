"""Slots of device memory: which may be written, who reads each, which may be freed. Pure: memory is the caller's.

The owner writes a slot and marks it as read by some; each of them has a page of its own with two flags. ``reading`` is
set by the owner and cleared by the reader when it is done. ``mapped`` is the reader's: it has the slot's memory open,
which it may open only while it reads. A slot that nobody reads may be written again. One that is given up may be freed
when nobody has it mapped, and not before: memory that another process has open must not be freed. A reader that has
died reads nothing, and has nothing open.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Protocol

from distort.scheduler.gpus import slot_nbytes

#: a slot that is this much larger than a value is left to larger ones
_MOST_WASTE = 8


class Page(Protocol):
    """What the owner and one reader of a slot share."""

    number: int
    reading: bool

    @property
    def mapped(self) -> bool: ...

    def close(self) -> None: ...


class DeviceSlot:
    """As its owner has it. ``memory`` is whatever the caller puts there."""

    __slots__ = ("capacity", "memory", "pages")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.memory: object = None
        self.pages: dict[Hashable, Page] = {}  # by reader

    @property
    def free(self) -> bool:
        """Whether it may be written."""
        return not any(page.reading for page in self.pages.values())

    @property
    def mapped(self) -> bool:
        return any(page.mapped for page in self.pages.values())


class Ledger:
    """``make_page`` makes what a slot and a reader share. One thread at a time."""

    def __init__(self, make_page: Callable[[DeviceSlot], Page]) -> None:
        self._make_page = make_page
        self._slots: list[DeviceSlot] = []  # the one used last at the end
        self._retired: list[DeviceSlot] = []
        self._forgotten: dict[Hashable, list[int]] = {}  # numbers of pages, for readers to hear

    @property
    def nbytes(self) -> int:
        """Of all slots, those that are given up and still mapped too."""
        return sum(slot.capacity for slot in (*self._slots, *self._retired))

    def __len__(self) -> int:
        return len(self._slots) + len(self._retired)

    def take(self, nbytes: int, readers: Sequence[Hashable]) -> DeviceSlot | None:
        """A slot that may be written, marked as read by ``readers``; None where none is large enough and free."""
        needed = slot_nbytes(nbytes)
        fitting = [s for s in self._slots if needed <= s.capacity <= _MOST_WASTE * needed and s.free]
        if not fitting:
            return None
        slot = min(reversed(fitting), key=lambda s: s.capacity)
        self._slots.remove(slot)
        self._slots.append(slot)
        self._mark(slot, readers)
        return slot

    def add(self, nbytes: int, readers: Sequence[Hashable]) -> DeviceSlot:
        """A new slot, marked likewise. Its memory is the caller's to make, and to :meth:`drop` where it can't."""
        slot = DeviceSlot(slot_nbytes(nbytes))
        self._slots.append(slot)
        self._mark(slot, readers)
        return slot

    def _mark(self, slot: DeviceSlot, readers: Sequence[Hashable]) -> None:
        for reader in readers:
            if reader not in slot.pages:
                slot.pages[reader] = self._make_page(slot)
            slot.pages[reader].reading = True

    def drop(self, slot: DeviceSlot) -> None:
        """A slot that was added and never written."""
        self._slots.remove(slot)
        for page in slot.pages.values():
            page.close()

    def unmark(self, slot: DeviceSlot) -> None:
        """A slot that was taken, and that nobody is told of."""
        for page in slot.pages.values():
            page.reading = False

    def lose(self, reader: Hashable) -> None:
        """A reader is gone, and with it all that it had open."""
        self._forgotten.pop(reader, None)
        for slot in (*self._slots, *self._retired):
            page = slot.pages.pop(reader, None)
            if page is not None:
                page.close()

    def retire(self) -> None:
        """Give up slots that are free. Their readers are to be told, see :meth:`take_forgotten`."""
        for slot in [slot for slot in self._slots if slot.free]:
            self._slots.remove(slot)
            self._retired.append(slot)
            for reader, page in slot.pages.items():
                self._forgotten.setdefault(reader, []).append(page.number)

    def take_forgotten(self, reader: Hashable) -> list[int]:
        """Numbers of pages of slots that were given up, which a reader was not told of yet."""
        return self._forgotten.pop(reader, []) if self._forgotten else []

    @property
    def forgetful(self) -> tuple[Hashable, ...]:
        """Readers that are to be told."""
        return tuple(self._forgotten)

    def reap(self) -> Iterator[DeviceSlot]:
        """Slots given up that nobody has mapped: their memory is to be freed."""
        for slot in [slot for slot in self._retired if not slot.mapped]:
            self._retired.remove(slot)
            for page in slot.pages.values():
                page.close()
            yield slot

    def in_use(self) -> int:
        """Slots that somebody still reads."""
        return sum(not slot.free for slot in self._slots)

    def close(self) -> Iterator[DeviceSlot]:
        """Every slot that nobody has mapped; the memory of others must stay as long as this process."""
        for slot in (*self._slots, *self._retired):
            if not slot.mapped:
                yield slot
            for page in slot.pages.values():
                page.close()
        self._slots.clear()
        self._retired.clear()
        self._forgotten.clear()
