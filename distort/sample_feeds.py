"""Feeds made up from declared types, for a run whose answer nobody wants."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from distort.graph.ir import Graph
from distort.graph.types import DTYPE_OF, Dim, OptionalType, TensorType

#: feeds may have this many bytes together
MOST_NBYTES = 2**31
#: element type and sizes, by name
Shapes = dict[str, tuple[str, tuple[int, ...]]]
#: operators that hand indices on
_CARRIERS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})
#: how little a guess for a part of a sum is worth (see _guessed)
_PART = 4


class NoSample(Exception):
    """No feed can be made up for an input."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What nobody declared. The first dimension of a tensor, its batch, is 1; of a cache (its name says so) nothing is
    filled yet.
    """

    size: int  # of other dimensions
    integer: int  # whole numbers of which nothing is known: a length, a mask
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


def sample(graph: Graph, dims: Mapping[str, int], guess: Guess, names: Collection[str] | None = None) -> dict[str, Any]:
    """Feeds of inputs (None: all that are not optional), the same each time.

    Floats are normally distributed, indices lie within the table that they are for, bytes are 0 to 127; other whole
    numbers and sizes are as guessed. ``dims`` gives symbolic dimensions their sizes; a sum of them (``past + 1``) has
    theirs, and ``x:2`` is the third dimension of the input x, whatever it is called. Raises NoSample for an input that
    is no tensor or has no rank, and where all of them would be too large.
    """
    declared = _declared(graph, names)
    shapes = _sized({name: known.shape or () for name, known in declared.items()}, dims, guess)
    dtypes = {name: DTYPE_OF[known.element] for name, known in declared.items()}
    nbytes = sum(prod(shape) * dtypes[name].itemsize for name, shape in shapes.items())
    if nbytes > MOST_NBYTES:
        raise NoSample(f"feeds would be {nbytes} bytes, which is too much to make up")
    n_rows, random = _table_rows(graph), np.random.default_rng(0)
    return {
        name: _array(dtypes[name], shape, n_rows.get(name), guess.integer, random) for name, shape in shapes.items()
    }


def check_dims(graph: Graph, dims: Mapping[str, int], names: Collection[str] | None = None) -> None:
    """Raises NoSample for a dimension in ``dims`` that none of the inputs has."""
    declared = _declared(graph, names)
    places = [(name, axis, dim) for name, t in declared.items() for axis, dim in enumerate(t.shape or ())]
    symbols = [_symbol(*place) for place in places if not isinstance(place[2], int)]
    known = dict.fromkeys(name for symbol in symbols for name in (symbol, *_terms(symbol)) if not name.isdecimal())
    every = known | dict.fromkeys(f"{name}:{axis}" for name, axis, _ in places)
    for name in dims:
        if name not in every:
            raise NoSample(f"no input has a dimension {name!r}. They have: {', '.join(known) or 'none'}")


def _declared(graph: Graph, names: Collection[str] | None) -> dict[str, TensorType]:
    """Types by input, each with a shape."""
    declared: dict[str, TensorType] = {}
    for name in graph.inputs:
        known = graph.types.get(name)
        wanted = name not in graph.initializers and not isinstance(known, OptionalType)
        if wanted if names is None else name in names:
            if not isinstance(known, TensorType) or known.shape is None or known.element not in DTYPE_OF:
                rank = " of unknown rank" if isinstance(known, TensorType) and known.shape is None else ""
                what = f"{known or 'of no type'}{rank}"
                raise NoSample(f"input {name!r} is {what}, for which no feed can be made up")
            declared[name] = known
    return declared


def _symbol(name: str, axis: int, dim: Dim) -> str:
    """A name for a dimension that isn't a number."""
    return dim if isinstance(dim, str) else f"{name}:{axis}"


def _terms(symbol: str) -> list[str]:
    """What a dimension is the sum of: itself, or several."""
    return [term.strip() for term in symbol.split("+")]


def _sized(declared: Mapping[str, Sequence[Dim]], dims: Mapping[str, int], guess: Guess) -> dict[str, tuple[int, ...]]:
    """Sizes by input."""
    sizes = dict(dims)
    # what is a batch somewhere is one everywhere, and a cache is empty wherever its length is named
    guessed: list[tuple[int, str, int]] = []
    for name, shape in declared.items():
        for axis, dim in enumerate(shape):
            worth, size = _guessed(name, axis, len(shape), guess)
            terms = _terms(_symbol(name, axis, dim)) if not isinstance(dim, int) else ()
            # what is a dimension of its own somewhere counts more than as a part of a sum
            guessed += [(worth if len(terms) == 1 else _PART, term, size) for term in terms if not term.isdecimal()]
    for _, symbol, size in sorted(guessed, key=lambda item: item[0]):
        sizes.setdefault(symbol, size)

    def size_of(place: str, dim: Dim) -> int:
        known = sizes.get(place, sizes.get(dim) if isinstance(dim, str) else dim)
        return sum(int(t) if t.isdecimal() else sizes[t] for t in _terms(str(dim))) if known is None else known

    return {
        name: tuple(size_of(f"{name}:{axis}", dim) for axis, dim in enumerate(shape))
        for name, shape in declared.items()
    }


def _guessed(name: str, axis: int, rank: int, guess: Guess) -> tuple[int, int]:
    """How little the guess for a dimension is worth, and its size."""
    if axis == 0 and rank > 1:
        return 0, 1
    if guess.size > 1 and ("past" in name.lower() or "cache" in name.lower()):
        return 1, 0
    if guess.last_only and axis < rank - 1:
        return 2, 1
    return 3, guess.size


def _table_rows(graph: Graph) -> dict[str, int]:
    """Inputs that are indices into constants: how many rows those have, the fewest."""
    origin = {name: name for name in graph.inputs}
    found: dict[str, int] = {}
    for node in graph.nodes:
        if node.op_type in _CARRIERS and node.inputs[0] in origin:
            origin[node.outputs[0]] = origin[node.inputs[0]]
        elif node.op_type == "Gather" and node.inputs[1] in origin:
            table = graph.initializers.get(node.inputs[0])
            if isinstance(table, np.ndarray) and table.ndim:
                axis: Any = node.attributes.get("axis", 0)
                name, n_rows = origin[node.inputs[1]], table.shape[axis]
                found[name] = min(n_rows, found.get(name, n_rows))
    return found


def _array(
    dtype: np.dtype[Any], shape: Sequence[int], n_rows: int | None, integer: int, random: np.random.Generator
) -> Any:
    if dtype.kind == "O":
        return np.full(shape, "text", object)
    if dtype.kind in "iu" and n_rows is not None:
        return random.integers(0, max(1, n_rows), shape).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:  # an image, or what was quantized
        return random.integers(0, 128, shape).astype(dtype)
    if dtype.kind in "iub":
        return np.full(shape, integer, dtype)
    return random.standard_normal(shape, np.float32).astype(dtype)


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
