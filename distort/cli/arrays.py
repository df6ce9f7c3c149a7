"""Feeds from .npy and .npz files, results into .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from distort.cli.errors import TaskFailed, UsageError

if TYPE_CHECKING:
    from distort.metadata import NodeArg

Array = np.ndarray[Any, Any]
#: how the files begin; an .npz without arrays is an empty zip archive
_NPY, _ZIP = b"\x93NUMPY", (b"PK\x03\x04", b"PK\x05\x06")


def read_inputs(texts: Sequence[str], wanted: Sequence[NodeArg]) -> dict[str, Array]:
    """Feeds from what ``--input`` was given.

    ``name=file.npy``; ``name=file.npz`` with one array, or with one of that name; ``file.npz`` feeds all of its
    arrays; ``file.npy`` feeds a model's only input. Raises UsageError, and TaskFailed for files that can't be read.
    """
    by_name = {argument.name: argument for argument in wanted}
    feeds: dict[str, Array] = {}
    for text in texts:
        for name, array in _read(text, by_name).items():
            if name not in by_name:
                raise UsageError(f"--input {text}: the model has no input {name!r}. {_listed(wanted)}")
            if name in feeds:
                raise UsageError(f"--input {text}: {name!r} is fed twice")
            feeds[name] = _as_element(array, by_name[name].type)
    return feeds


def describe_missing(missing: Sequence[NodeArg]) -> str:
    """Inputs that nobody fed, and how to feed one."""
    return f"{_listed(missing, 'No feed for: ')} Feed with --input {missing[0].name}=FILE.npy"


def _listed(arguments: Sequence[NodeArg], start: str = "Its inputs: ") -> str:
    return start + (", ".join(f"{a.name} {a.type}{shape_text(a.shape)}" for a in arguments) or "none") + "."


def shape_text(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"


def _read(text: str, wanted: Mapping[str, NodeArg]) -> dict[str, Array]:
    name, separator, path = text.partition("=")
    if not separator or Path(text).is_file():  # a path may hold "="
        name, path = "", text
    arrays = _load(path)
    if isinstance(arrays, np.ndarray):
        if not name and len(wanted) != 1:
            raise UsageError(f"--input {text}: which input? Write NAME={path}. {_listed(list(wanted.values()))}")
        return {name or next(iter(wanted)): arrays}
    if not name:
        return arrays
    if name in arrays:
        return {name: arrays[name]}
    if len(arrays) == 1:
        return {name: next(iter(arrays.values()))}
    raise UsageError(f"--input {text}: the file has no array {name!r}, but {', '.join(arrays) or 'none at all'}")


def _load(path: str) -> Array | dict[str, Array]:
    try:
        with Path(path).open("rb") as file:
            start = file.read(len(_NPY))
        if start != _NPY and not start.startswith(_ZIP):  # numpy would take it for a pickle, and say so
            raise TaskFailed(f"{path}: is neither a .npy nor a .npz file")
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise TaskFailed(f"{path}: no such file") from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise TaskFailed(f"{path}: can't be read as .npy or .npz: {error}") from error


def _as_element(array: Array, type_text: str) -> Array:
    """Elements that numpy has no name for (bfloat16, float8, int4) lie in files as raw bytes."""
    from distort.graph.types import DTYPE_OF, ELEMENT_OF_NAME

    element = ELEMENT_OF_NAME.get(type_text.removeprefix("tensor(").removesuffix(")"))
    if array.dtype.kind != "V" or array.dtype.names is not None or element is None:
        return array
    dtype = DTYPE_OF[element]
    return array.view(dtype) if dtype.kind != "O" and dtype.itemsize == array.dtype.itemsize else array


def write_npz(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    """As ``numpy.savez``, for arrays of any name; the same arrays give the same bytes."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, _storable(array), allow_pickle=False)


def _storable(array: Array) -> Array:
    if array.dtype.kind == "O":  # strings
        return array.astype(np.str_)
    # numpy warns of elements it has no name for; their bytes are what it would write
    return array.view(f"V{array.dtype.itemsize}") if array.dtype.kind == "V" else array


def result_arrays(names: Sequence[str], values: Sequence[Any]) -> dict[str, Array]:
    """Results by name; the tensors of a sequence as ``name.0``, ``name.1``, …

    Raises TaskFailed for what no array holds: maps, and optionals that are empty.
    """
    arrays: dict[str, Array] = {}
    for name, value in zip(names, values, strict=True):
        items = {f"{name}.{i}": item for i, item in enumerate(value)} if isinstance(value, list) else {name: value}
        for key, item in items.items():
            if not isinstance(item, (np.ndarray, np.generic)):
                raise TaskFailed(
                    f"output {name!r} is no array ({type(item).__name__}) and can't be written to .npz; choose others "
                    "with --fetch"
                )
            arrays[key] = np.asarray(item)
    return arrays
