"""How weights reach actors: those in files are mapped by each actor itself, others go through the object store.

External data, and a model's own file, is mapped in this process too, so that nobody reads what only an actor needs: a
model may be larger than what one process should hold. Actors of one host that map the same file share its pages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distort.cluster.orders import StagePayload
from distort.graph.tensors import MappedFile, file_of, map_file
from distort.graph.types import DTYPE_OF, element_of

#: initializers up to this size travel with the stage's graph
SMALL_NBYTES = 4096


class WeightsMissing(Exception):
    """A node lacks files that weights lie in, or has others. ``args`` are the weights' names."""


@dataclass(frozen=True, slots=True)
class FileWeight:
    """A weight as a place in a file. The file's size and time tell whether another host's is the same."""

    path: str
    offset: int
    element: int
    shape: tuple[int, ...]
    file_nbytes: int
    mtime_ns: int
    holds_model: bool = False


def in_file(value: Any) -> FileWeight | None:
    """Where a weight lies, if it is a contiguous part of a mapped file."""
    if not isinstance(value, np.ndarray) or not value.flags.c_contiguous or not value.dtype.isnative:
        return None
    found = file_of(value)
    if found is None:
        return None
    file, offset = found
    return FileWeight(
        file.path, offset, element_of(value.dtype), value.shape, len(file), file.mtime_ns, file.holds_model
    )


def take_weights(payload: StagePayload) -> dict[str, Any]:
    """Take the large weights out of a payload's graph; those in files become places. The others are returned."""
    others: dict[str, Any] = {}
    for name, value in list(payload.graph.initializers.items()):
        if isinstance(value, np.ndarray) and value.nbytes > SMALL_NBYTES:
            place = in_file(value)
            if place is not None:
                payload.files[name] = place
            else:
                others[name] = value
            del payload.graph.initializers[name]
    return others


def open_weights(places: Mapping[str, FileWeight]) -> dict[str, Any]:
    """Map weights on this node. Raises WeightsMissing for files that are not here, or not the same."""
    files: dict[str, MappedFile | None] = {}
    found: dict[str, Any] = {}
    missing = []
    for name, place in places.items():
        if place.path not in files:
            files[place.path] = _open(place)
        file = files[place.path]
        if file is None:
            missing.append(name)
            continue
        dtype = DTYPE_OF[place.element]
        count = int(np.prod(place.shape, dtype=np.int64))
        found[name] = np.frombuffer(file, dtype, count, place.offset).reshape(place.shape)
    if missing:
        raise WeightsMissing(*missing)
    return found


def _open(place: FileWeight) -> MappedFile | None:
    try:
        status = os.stat(place.path)
        if (status.st_size, status.st_mtime_ns) != (place.file_nbytes, place.mtime_ns):
            return None
        file = map_file(place.path)
        file.holds_model = place.holds_model
        return file
    except OSError:
        return None


def weight_groups(readers: Sequence[Mapping[str, Any]]) -> dict[tuple[int, ...], dict[str, Any]]:
    """Weights by the set of units that read them, so that each travels once and a unit takes only its own.

    ``readers`` are each unit's weights by name; one weight is the same object for all.
    """
    units: dict[tuple[str, int], list[int]] = {}
    values: dict[tuple[str, int], Any] = {}
    for unit, weights in enumerate(readers):
        for name, value in weights.items():
            units.setdefault((name, id(value)), []).append(unit)
            values[name, id(value)] = value
    groups: dict[tuple[int, ...], dict[str, Any]] = {}
    for key, positions in units.items():
        groups.setdefault(tuple(positions), {})[key[0]] = values[key]
    return groups
