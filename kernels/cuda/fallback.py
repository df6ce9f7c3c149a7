"""Which nodes run on the CPU though their stage is on a GPU, and why.

A node without code of its own for a GPU runs its common body over CuPy. Where that can't be right, it runs over NumPy,
and its values travel: for their types (``on_host``), or for what its body does (``REASONS``, ``CONDITIONS``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from distort.graph.ir import Node
from distort.graph.types import DTYPE_OF
from distort.kernels.cuda.libraries import is_installed

#: what CuPy has arrays of, beside bfloat16
_KINDS = "biufc"
#: attributes that are an element type, of a result
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype")
#: attributes with text that becomes a result
_TEXT_ATTRIBUTES = ("cats_strings", "classlabels_strings", "value_string", "value_strings", "values_strings")
_MS = "com.microsoft"
_TEXT = "text is the host's"
#: of operators that have no common body
CPU_ALONE = "its kernel is the CPU's alone"
#: (domain, operator) -> why its body does not run over CuPy
REASONS: dict[tuple[str, str], str] = {
    ("", "ImageDecoder"): "pictures are decoded on the host",
    ("", "RegexFullMatch"): _TEXT,
    ("", "StringConcat"): _TEXT,
    ("", "StringNormalizer"): _TEXT,
    ("", "StringSplit"): _TEXT,
    ("", "TfIdfVectorizer"): "n-grams are looked up one after another",
    (_MS, "BeamSearch"): "words are chosen on the host, and their decoder runs there",
    (_MS, "BifurcationDetector"): "tokens are compared one after another",
    (_MS, "DynamicTimeWarping"): "a path is walked step by step",
    (_MS, "GreedySearch"): "words are chosen on the host, and their decoder runs there",
    (_MS, "MurmurHash3"): "hashes are of bytes, of text too",
    (_MS, "Tokenizer"): _TEXT,
}
#: (domain, operator) -> the library of CUDA's that CuPy calls in its body: larger than all others, and not required
LIBRARIES: dict[tuple[str, str], str] = {
    ("", "DFT"): "cufft",
    ("", "Det"): "cusolver",
    ("", "STFT"): "cufft",
    (_MS, "Inverse"): "cusolver",
}


def _scattered(node: Node, dtype: np.dtype[Any]) -> str | None:
    """Scatters that reduce are atomic operations, of which CuPy has some."""
    reduction = node.attributes.get("reduction", "none")
    kinds = _ATOMIC.get(str(reduction), ())
    if reduction == "none" or dtype.name in kinds:
        return None
    return f"CuPy has no {reduction} of several updates of {dtype.name}"


_WIDE = ("int32", "int64", "uint32", "uint64", "float32", "float64")
_ATOMIC = {"add": (*_WIDE, "float16"), "max": _WIDE, "min": _WIDE}
#: (domain, operator) -> what says, of a node and the elements of its first input, why its body does not run over CuPy
CONDITIONS: dict[tuple[str, str], Callable[[Node, np.dtype[Any]], str | None]] = {
    ("", "ScatterElements"): _scattered,
    ("", "ScatterND"): _scattered,
}


def reason(domain: str, op_type: str) -> str | None:
    """Why an operator's body is the CPU's here; None where it runs over CuPy, but for some types or attributes."""
    library = LIBRARIES.get(_key(domain, op_type))
    if library is not None and not is_installed(library):
        return f"lib{library}, which CuPy calls for it, isn't installed (cuda-toolkit[{library}] brings it)"
    return reason_anywhere(domain, op_type)


def reason_anywhere(domain: str, op_type: str) -> str | None:
    """As :func:`reason`, whatever is installed where it runs."""
    return REASONS.get(_key(domain, op_type))


def _key(domain: str, op_type: str) -> tuple[str, str]:
    return domain if domain != "ai.onnx" else "", op_type


def reason_of_values(node: Node, dtypes: Sequence[Any]) -> str | None:
    """Why a node with such values is the CPU's, where its operator is not always.

    ``dtypes``: the element types of its inputs, a list of them for a sequence, None where there is no array.
    """
    for dtype in (*_flat(dtypes), *_made(node)):
        if on_host(dtype):
            return f"CuPy has no arrays of {dtype.name}"
    condition = CONDITIONS.get((node.domain if node.domain != "ai.onnx" else "", node.op_type))
    return None if condition is None else condition(node, dtypes[0])


def on_host(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of these elements stay on the host: strings, objects, float8, int4 and the like."""
    return dtype.name != "bfloat16" and (dtype.isbuiltin == 2 or dtype.kind not in _KINDS)


def dtypes_of(values: Iterable[Any]) -> list[Any]:
    """The element types of values, as ``reason_of_values`` takes them."""
    return [dtypes_of(v) if isinstance(v, (list, tuple)) else getattr(v, "dtype", None) for v in values]


def _flat(dtypes: Iterable[Any]) -> Iterator[np.dtype[Any]]:
    for dtype in dtypes:
        if isinstance(dtype, list):
            yield from _flat(dtype)
        elif dtype is not None:
            yield dtype


def _made(node: Node) -> Iterator[np.dtype[Any]]:
    """Element types of results that attributes determine."""
    for name in _TYPE_ATTRIBUTES:
        element = node.attributes.get(name)
        if isinstance(element, int) and element in DTYPE_OF:
            yield DTYPE_OF[element]
    value = node.attributes.get("value")
    if isinstance(value, np.ndarray):
        yield value.dtype
    if any(node.attributes.get(name) for name in _TEXT_ATTRIBUTES):
        yield np.dtype(object)
