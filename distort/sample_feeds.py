"""Feeds made up from declared types, for a run whose answer nobody wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from distort.graph.ir import Graph
from distort.graph.types import DTYPE_OF, OptionalType, TensorType

#: feeds may have this many bytes together
MOST_NBYTES = 2**31
#: element type and sizes, by name
Shapes = dict[str, tuple[str, tuple[int, ...]]]


class NoSample(Exception):
    """No feed can be made up for an input."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What nobody declared. The first dimension of a tensor, its batch, is 1; of a cache (its name says so) nothing is
    filled yet.
    """

    size: int  # of other dimensions
    integer: int  # every whole number: an index, a length, a mask
    last_only: bool = False  # all dimensions but a tensor's last are 1


#: in the order that they are tried, until a model takes one
GUESSES = (
    Guess(64, 1),
    Guess(64, 0),
    Guess(1, 1),
    Guess(1, 0),
    Guess(256, 1),
    Guess(256, 1, last_only=True),
    Guess(1024, 1, last_only=True),
    Guess(16, 1),
)


def sample(graph: Graph, dims: Mapping[str, int], guess: Guess) -> dict[str, Any]:
    """Small floats, the same each time; whole numbers and sizes as guessed. Optional inputs are absent.

    ``dims`` gives symbolic dimensions their sizes. Raises NoSample for an input that is no tensor or has no rank, and
    where all of them would be too large.
    """
    generator = np.random.default_rng(0)
    feeds: dict[str, Any] = {}
    shapes = _shapes(graph, dims, guess)
    nbytes = sum(prod(sizes) * np.dtype(DTYPE_OF[element]).itemsize for element, sizes in shapes.values())
    if nbytes > MOST_NBYTES:
        raise NoSample(f"feeds would be {nbytes} bytes, which is too much to make up")
    for name, (element, sizes) in shapes.items():
        dtype = DTYPE_OF[element]
        if element == 8:
            feeds[name] = np.full(sizes, "text", dtype=object)
        elif dtype.kind in "iub":
            feeds[name] = np.full(sizes, guess.integer, dtype=dtype)
        else:
            feeds[name] = generator.uniform(-0.5, 0.5, sizes).astype(dtype)
    return feeds


def _shapes(graph: Graph, dims: Mapping[str, int], guess: Guess) -> dict[str, tuple[int, tuple[int, ...]]]:
    """ONNX's number of the element type, and sizes, by input."""
    declared: dict[str, TensorType] = {}
    for name in graph.inputs:
        known = graph.types.get(name)
        if name in graph.initializers or isinstance(known, OptionalType):
            continue
        if not isinstance(known, TensorType) or known.shape is None or known.element not in DTYPE_OF:
            raise NoSample(f"input {name!r} is {known or 'of no type'}, for which no feed can be made up")
        declared[name] = known
    sizes = dict(dims)
    # what is a batch somewhere is one everywhere, and a cache is empty wherever its length is named
    guessed = [_guessed(name, known, axis, guess) for name, known in declared.items() for axis in _axes(known)]
    for symbol, size, _ in sorted(guessed, key=lambda item: item[2]):
        sizes.setdefault(symbol, size)
    return {
        name: (
            known.element,
            tuple(
                dim if isinstance(dim, int) else sizes[_symbol(name, dim, axis)]
                for axis, dim in enumerate(known.shape or ())
            ),
        )
        for name, known in declared.items()
    }


def _axes(known: TensorType) -> range:
    return range(len(known.shape or ()))


def _symbol(name: str, dim: int | str | None, axis: int) -> str:
    """A name for a dimension that isn't a number."""
    return dim if isinstance(dim, str) else f"{name}[{axis}]"


def _guessed(name: str, known: TensorType, axis: int, guess: Guess) -> tuple[str, int, int]:
    """A dimension's symbol, size, and how little that guess is worth."""
    shape = known.shape or ()
    symbol = _symbol(name, shape[axis], axis)
    if axis == 0 and len(shape) > 1:
        return symbol, 1, 0
    if guess.size > 1 and ("past" in name.lower() or "cache" in name.lower()):
        return symbol, 0, 1
    if guess.last_only and axis < len(shape) - 1:
        return symbol, 1, 2
    return symbol, guess.size, 3


def shapes_of(feeds: Mapping[str, Any]) -> Shapes:
    """Of feeds; those that are no arrays count by their type alone."""
    return {
        name: (value.dtype.name, tuple(value.shape)) if isinstance(value, np.ndarray) else (type(value).__name__, ())
        for name, value in feeds.items()
    }


def sizes_of(graph: Graph, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, int]:
    """What symbolic dimensions of the inputs were in some feeds."""
    sizes: dict[str, int] = {}
    for name, (_, given) in shapes.items():
        known = graph.types.get(name)
        if isinstance(known, TensorType) and known.shape is not None and len(known.shape) == len(given):
            sizes.update({dim: size for dim, size in zip(known.shape, given, strict=True) if isinstance(dim, str)})
    return sizes


def text(shapes: Shapes, most: int = 8) -> str:
    """Feeds for people."""
    parts = [f"{name} {kind}[{', '.join(map(str, sizes))}]" for name, (kind, sizes) in list(shapes.items())[:most]]
    return ", ".join(parts) + (f" and {len(shapes) - most} more" if len(shapes) > most else "")
