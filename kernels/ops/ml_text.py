"""Operators of ai.onnx.ml that map values to labels and back: LabelEncoder, ZipMap, CategoryMapper, OneHotEncoder,
DictVectorizer, CastMap. Strings and maps live on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel

Array = Any
_ML = "ai.onnx.ml"
#: integers from the least to the largest key, at most, for a table of all of them
_MOST_DENSE = 1 << 10


class _OfText(dict[Any, Any]):
    """Values by text, and one for all other text."""

    def __init__(self, keys: Sequence[str], values: Sequence[Any], default: Any) -> None:
        super().__init__(zip(keys, values, strict=True))
        self._default = default

    def __missing__(self, key: Any) -> Any:
        return self._default

    def of(self, items: list[Any]) -> Sequence[Any]:
        """The values of several."""
        # one call for all of them: a call for each takes twice the time
        return itemgetter(*items)(self) if len(items) > 1 else [self[item] for item in items]


class Table:
    """A mapping of keys to values, with a default. keys, values: [K]; default: an array [1] typed as the values."""

    def __init__(self, keys: Array, values: Array, default: Array) -> None:
        if len(keys) != len(values):
            raise InvalidInput(f"{len(keys)} keys for {len(values)} values")
        self._dtype = keys.dtype
        # the default lies behind the last value
        self._values = np.concatenate([values, default.reshape(-1)[:1].astype(values.dtype)])
        self.of_text: _OfText | None = None
        if keys.dtype == object:
            items = self._values.tolist()
            self.of_text = _OfText(keys.tolist(), items[:-1], items[-1])
        else:
            # the last of equal keys wins; numpy sorts NaN last and finds it there
            self._order = len(keys) - 1 - np.argsort(keys[::-1], kind="stable")
            self._keys = keys[self._order]
            self._first, self._dense = self._counted(keys)

    def _counted(self, keys: Array) -> tuple[int, Array | None]:
        """(an integer, values of all integers from there to the largest key and one more); None for sparse keys.

        The first one and the last one are no keys: their value is the default, and that of all beyond them.
        """
        if keys.dtype != np.int64 or not len(keys):
            return 0, None
        low, high = int(keys.min()), int(keys.max())
        if high - low >= max(_MOST_DENSE, 4 * len(keys)) or abs(low) > 1 << 62:
            return 0, None
        values = np.full(high - low + 3, self._values[-1], self._values.dtype)
        values[self._keys[::-1] - (low - 1)] = self._values[self._order[::-1]]  # of equal keys the first here counts
        return low - 1, values

    def __call__(self, xp: ModuleType, x: Array) -> Array:
        """The values for x, in its shape."""
        if x.dtype != self._dtype:
            raise InvalidInput(f"keys of {self._dtype} can't be looked up for an input of {x.dtype}")
        if self.of_text is not None:
            items = x.tolist() if x.ndim == 1 else x.reshape(-1).tolist()
            found = np.fromiter(self.of_text.of(items), self._values.dtype, len(items))
            if x.ndim != 1:
                found = found.reshape(x.shape)
            return found if found.dtype.kind == "O" else xp.asarray(found)
        missing = len(self._values) - 1
        if missing == 0:
            where = xp.zeros(x.shape, np.intp)
        elif self._dense is not None:
            place = x - self._first if self._first else x
            if isinstance(place, np.ndarray):
                return self._dense.take(place, mode="clip")
            where = xp.clip(place, 0, len(self._dense) - 1)
            return self._dense[where.get()] if self._dense.dtype.kind == "O" else xp.asarray(self._dense)[where]
        else:
            keys = xp.asarray(self._keys)
            found = xp.minimum(xp.searchsorted(keys, x), missing - 1)
            equal = keys[found] == x
            if self._dtype.kind == "f":
                equal |= xp.isnan(x) & xp.isnan(keys[found])
            where = xp.where(equal, xp.asarray(self._order)[found], missing)
        if self._values.dtype.kind == "O":
            host = where if isinstance(where, np.ndarray) else where.get()
            return self._values[host]
        return xp.asarray(self._values)[where]

    @property
    def dtype_of_values(self) -> Any:
        return self._values.dtype

    def of_memory(self, x: np.ndarray[Any, Any]) -> Callable[[], Any] | None:
        """A function that looks up what is in the memory of ``x`` [N] by then; None where it isn't worth one."""
        dense, first = self._dense, self._first
        if x.dtype != self._dtype or dense is None or x.ndim != 1 or not x.flags.c_contiguous:
            return None
        if len(x) != 1 or len(dense) > _MOST_DENSE:
            return None if first else lambda: dense.take(x, mode="clip")
        default = dense[:1]
        values = {first + i: dense[i : i + 1] for i in range(1, len(dense) - 1)}
        cell: Any = x
        number = memoryview(cell)
        return lambda: values.get(number[0], default).copy()


def _strings(values: Sequence[str]) -> Array:
    return np.array(list(values), object)


def _one_of(what: str, **given: Array | None) -> tuple[str, Array]:
    present = [(name, value) for name, value in given.items() if value is not None]
    if len(present) != 1:
        raise InvalidInput(f"one attribute of {what} is needed, got {[name for name, _ in present] or 'none'}")
    return present[0]


def _typed(
    floats: Sequence[float] | None, ints: Sequence[int] | None, strings: Sequence[str] | None, tensor: Array | None
) -> dict[str, Array | None]:
    return {
        "floats": None if floats is None else np.asarray(floats, np.float32),
        "int64s": None if ints is None else np.asarray(ints, np.int64),
        "strings": None if strings is None else _strings(strings),
        "tensor": None if tensor is None else tensor.reshape(-1),
    }


def _prepare_label_encoder(
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    default_tensor: Array | None = None,
    keys_floats: Sequence[float] | None = None,
    keys_int64s: Sequence[int] | None = None,
    keys_strings: Sequence[str] | None = None,
    keys_tensor: Array | None = None,
    values_floats: Sequence[float] | None = None,
    values_int64s: Sequence[int] | None = None,
    values_strings: Sequence[str] | None = None,
    values_tensor: Array | None = None,
) -> dict[str, Any]:
    _, keys = _one_of("keys_*", **_typed(keys_floats, keys_int64s, keys_strings, keys_tensor))
    _, values = _one_of("values_*", **_typed(values_floats, values_int64s, values_strings, values_tensor))
    if default_tensor is not None:
        default = default_tensor
    elif values.dtype == object:
        default = _strings([default_string])
    else:
        default = np.asarray([default_float if values.dtype.kind == "f" else default_int64])
    return {"table": Table(keys, values, default)}


@kernel("LabelEncoder", 4, domain=_ML, prepare=_prepare_label_encoder)
def label_encoder(xp: ModuleType, x: Array, *, table: Table) -> Array:
    """LabelEncoder 4. Any shape. Of equal keys the last one counts, as the standard says; NaN finds NaN."""
    return table(xp, x)


def _prepare_label_encoder_2(
    *,
    default_float: float = -0.0,
    default_int64: int = -1,
    default_string: str = "_Unused",
    keys_floats: Sequence[float] | None = None,
    keys_int64s: Sequence[int] | None = None,
    keys_strings: Sequence[str] | None = None,
    values_floats: Sequence[float] | None = None,
    values_int64s: Sequence[int] | None = None,
    values_strings: Sequence[str] | None = None,
) -> dict[str, Any]:
    return _prepare_label_encoder(
        default_float=default_float,
        default_int64=default_int64,
        default_string=default_string,
        keys_floats=keys_floats and keys_floats[::-1],
        keys_int64s=keys_int64s and keys_int64s[::-1],
        keys_strings=keys_strings and keys_strings[::-1],
        values_floats=values_floats and values_floats[::-1],
        values_int64s=values_int64s and values_int64s[::-1],
        values_strings=values_strings and values_strings[::-1],
    )


@kernel("LabelEncoder", 2, domain=_ML, prepare=_prepare_label_encoder_2)
def label_encoder_2(xp: ModuleType, x: Array, *, table: Table) -> Array:
    """LabelEncoder 2. The standard is silent on equal keys: the first one counts, as in onnxruntime."""
    return table(xp, x)


def _prepare_category_mapper(
    *,
    cats_int64s: Sequence[int] | None = None,
    cats_strings: Sequence[str] | None = None,
    default_int64: int = -1,
    default_string: str = "_Unused",
) -> dict[str, Any]:
    integers, strings = np.asarray(cats_int64s or [], np.int64), _strings(cats_strings or [])
    return {
        "of_strings": Table(strings, integers, np.asarray([default_int64])),
        "of_integers": Table(integers, strings, _strings([default_string])),
    }


@kernel("CategoryMapper", domain=_ML, prepare=_prepare_category_mapper)
def category_mapper(xp: ModuleType, x: Array, *, of_strings: Table, of_integers: Table) -> Array:
    """CategoryMapper 1: strings to integers, or integers to strings."""
    return (of_strings if x.dtype == object else of_integers)(xp, x)


def _prepare_label_encoder_1(
    *, classes_strings: Sequence[str] | None = None, default_int64: int = -1, default_string: str = "_Unused"
) -> dict[str, Any]:
    classes = list(classes_strings or [])
    return _prepare_category_mapper(
        cats_int64s=list(range(len(classes))),
        cats_strings=classes,
        default_int64=default_int64,
        default_string=default_string,
    )


@kernel("LabelEncoder", 1, domain=_ML, prepare=_prepare_label_encoder_1)
def label_encoder_1(xp: ModuleType, x: Array, *, of_strings: Table, of_integers: Table) -> Array:
    """LabelEncoder 1: strings to their position in classes_strings, or positions to strings."""
    return (of_strings if x.dtype == object else of_integers)(xp, x)


#: the most class labels of rows that a function of their own makes maps of
_MOST_UNROLLED = 16
_MANY_ROWS = 64

#: makes maps of rows
Maps = Callable[[Iterable[Sequence[float]]], list[dict[Any, float]]]


def _maps(keys: Sequence[Any]) -> Maps:
    """What makes maps of rows. That of a few keys names them one by one, which takes half as long as ``zip``."""
    if len(keys) > _MOST_UNROLLED:
        return lambda rows: [dict(zip(keys, row, strict=True)) for row in rows]
    entries = ", ".join(f"k{i}: v{i}" for i in range(len(keys)))
    row = "".join(f"v{i}, " for i in range(len(keys)))
    names = {f"k{i}": key for i, key in enumerate(keys)}
    made: Maps
    made = eval(f"lambda rows: [{{{entries}}} for {row} in rows]", names)  # of numbered names alone
    return made


def _prepare_zip_map(
    *, classlabels_int64s: Sequence[int] | None = None, classlabels_strings: Sequence[str] | None = None
) -> dict[str, Any]:
    if bool(classlabels_int64s) == bool(classlabels_strings):
        raise InvalidInput("ZipMap needs its keys either as integers or as strings")
    keys = list(classlabels_int64s or classlabels_strings or ())
    return {"maps": _maps(keys), "n": len(keys)}


@kernel("ZipMap", domain=_ML, prepare=_prepare_zip_map)
def zip_map(xp: ModuleType, x: Array, *, maps: Maps, n: int) -> list[dict[Any, float]]:
    """ZipMap 1: a map a row, from class label to score. x: [N, C] or [C]"""
    if x.ndim not in (1, 2) or x.shape[-1] != n:
        raise InvalidInput(f"ZipMap: {n} class labels for an input of shape {list(x.shape)}")
    if x.ndim == 1:
        return maps([x.tolist()])
    # of many rows, columns become lists: those are fewer, and rows are then one tuple, over and over
    return maps(x.tolist() if len(x) < _MANY_ROWS else zip(*x.T.tolist(), strict=True))


def maps_of_memory(x: np.ndarray[Any, Any], *, maps: Maps, n: int) -> Callable[[], Any] | None:
    """A function that does :func:`zip_map` with what is in the memory of ``x`` by then; None for other shapes."""
    if x.ndim != 2 or x.shape[1] != n or len(x) >= _MANY_ROWS:
        return None
    listed = x.tolist
    return lambda: maps(listed())


def labels_of_memory(x: np.ndarray[Any, Any], *, table: Table) -> Callable[[], Any] | None:
    """The same of :func:`label_encoder`."""
    return table.of_memory(x)


def _prepare_one_hot(
    *, cats_int64s: Sequence[int] | None = None, cats_strings: Sequence[str] | None = None, zeros: int = 1
) -> dict[str, Any]:
    if bool(cats_int64s) == bool(cats_strings):
        raise InvalidInput("OneHotEncoder needs its categories either as integers or as strings")
    keys = np.asarray(cats_int64s, np.int64) if cats_int64s else _strings(cats_strings or ())
    return {"table": Table(keys, np.arange(len(keys)), np.asarray([-1])), "n": len(keys), "zeros": zeros}


@kernel("OneHotEncoder", domain=_ML, prepare=_prepare_one_hot)
def one_hot_encoder(xp: ModuleType, x: Array, *, table: Table, n: int, zeros: int) -> Array:
    """OneHotEncoder 1: float32 [..., categories]. Without ``zeros`` an unknown category is an error."""
    position = table(xp, x if x.dtype == object else x.astype(np.int64))
    if not zeros and bool((position < 0).any()):
        raise InvalidInput("Unknown Category and zeros = 0.")
    return (position[..., None] == xp.arange(n)).astype(xp.float32)


def label_of_text(to: np.ndarray[Any, Any], *, table: Table) -> Callable[[Any], None] | None:
    """A function that does :func:`label_encoder` with an array of one text, into ``to``; None for others."""
    found = table.of_text
    if found is None or to.size != 1 or to.dtype != table.dtype_of_values:
        return None

    def encode(x: Any) -> None:
        to[...] = found[x.item()]

    return encode


def one_hot_of_text(to: np.ndarray[Any, Any], *, table: Table, n: int, zeros: int) -> Callable[[Any], None] | None:
    """A function that does :func:`one_hot_encoder` with an array of one text, into ``to``; None for others."""
    found = table.of_text
    if found is None or to.size != n or to.dtype != np.float32:
        return None
    # the last row is that of text that is no category
    rows = np.concatenate([np.eye(n, dtype=np.float32), np.zeros((1, n), np.float32)]).reshape(-1, *to.shape)

    def encode(x: Any) -> None:
        place = found[x.item()]
        if place < 0 and not zeros:
            raise InvalidInput("Unknown Category and zeros = 0.")
        to[...] = rows[place]

    return encode


def _prepare_dict_vectorizer(
    *, int64_vocabulary: Sequence[int] | None = None, string_vocabulary: Sequence[str] | None = None
) -> dict[str, Any]:
    if bool(int64_vocabulary) == bool(string_vocabulary):
        raise InvalidInput("DictVectorizer needs its vocabulary either as integers or as strings")
    return {"vocabulary": list(int64_vocabulary or string_vocabulary or ())}


@kernel("DictVectorizer", domain=_ML, prepare=_prepare_dict_vectorizer)
def dict_vectorizer(xp: ModuleType, x: Mapping[Any, Any], *, vocabulary: list[Any]) -> Array:
    """DictVectorizer 1: a map to [1, vocabulary]; keys that it lacks give 0 or an empty string."""
    sample = next(iter(x.values()), 0.0)
    if isinstance(sample, str):
        return np.array([[x.get(key, "") for key in vocabulary]], object)
    if isinstance(sample, np.generic):
        dtype = sample.dtype
    else:
        dtype = np.dtype(np.int64 if isinstance(sample, int) else np.float32)
    return xp.asarray([[x.get(key, 0) for key in vocabulary]], dtype=dtype)


@kernel("CastMap", domain=_ML)
def cast_map(
    xp: ModuleType, x: Mapping[int, Any], *, cast_to: str = "TO_FLOAT", map_form: str = "DENSE", max_map: int = 1
) -> Array:
    """CastMap 1: the values of a map in the order of its keys, [1, C]. SPARSE: keys are columns of [1, max_map]."""
    dtypes = {"TO_FLOAT": np.float32, "TO_INT64": np.int64, "TO_STRING": object}
    if cast_to not in dtypes or map_form not in ("DENSE", "SPARSE"):
        raise InvalidInput(f"CastMap: cast_to {cast_to!r}, map_form {map_form!r}")
    keys = sorted(x)
    if map_form == "SPARSE" and keys and not (keys[0] >= 0 and keys[-1] < max_map):
        raise InvalidInput(f"CastMap: keys {keys[0]} to {keys[-1]} of a map with {max_map} columns")
    columns = keys if map_form == "DENSE" else range(max_map)
    absent = "0" if cast_to == "TO_STRING" else 0
    values = [x.get(key, absent) for key in columns]
    if cast_to == "TO_STRING":
        return np.array([[value if isinstance(value, str) else f"{value:f}" for value in values]], object)
    return xp.asarray(np.array([[float(value) for value in values]]).astype(dtypes[cast_to]))
