"""The native ModelCompiler, and the data of compiled nodes that providers keep outside a model.

A compiled model holds EPContext nodes, each a subgraph that a provider compiled. The CPU provider compiles none, here
as in onnxruntime: what comes out is the model, optimized at the level asked for, its weights where they are wanted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from distort import errors, loading, logs
from distort.engine import optimize
from distort.enums import GraphOptimizationLevel, OrtCompileApiFlags
from distort.graph import reader, writer
from distort.graph.atomic import writing
from distort.native.base import Made, native
from distort.native.values import OrtValue
from distort.options import SessionOptions

_NO_NODES = (
    "Unable to compile any nodes. Check that the session EPs support compilation and can execute at least one subgraph "
    "in the model."
)


@native
class OrtExternalInitializerInfo:
    """Where an initializer's bytes are: file, offset and size in bytes."""

    def __init__(self, arg0: str, arg1: int, arg2: int, /) -> None:
        self._filepath = os.fspath(arg0)
        self._file_offset = int(arg1)
        self._byte_size = int(arg2)

    @property
    def filepath(self) -> str:
        return self._filepath

    @property
    def file_offset(self) -> int:
        return self._file_offset

    @property
    def byte_size(self) -> int:
        return self._byte_size


Locate = Callable[[str, OrtValue, "OrtExternalInitializerInfo | None"], "OrtExternalInitializerInfo | None"]


@native
class OrtEpContextData(Made):
    """What a provider compiled, as a callback reads it. No provider here makes any."""

    _data: memoryview

    @property
    def size(self) -> int:
        return self._data.nbytes

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        end = self.size if length is None else offset + length
        if not 0 <= offset <= end <= self.size:
            raise RuntimeError(f"bytes {offset} to {end} are not within the {self.size} of the data")
        return bytes(self._data[offset:end])


@native
class OrtEpContextDataBuffer(Made):
    """Where a callback puts what a provider compiled before. No provider here asks for any."""

    _max_size: int
    _data: bytearray | None

    @property
    def max_size(self) -> int:
        return self._max_size

    @property
    def size(self) -> int:
        return len(self._data or b"")

    @property
    def is_allocated(self) -> bool:
        return self._data is not None

    def allocate(self, size: int) -> None:
        if self._data is not None:
            raise RuntimeError("The buffer was allocated before.")
        if not 0 <= size <= self._max_size:
            raise RuntimeError(f"{size} bytes are more than the {self._max_size} that the callback may give.")
        self._data = bytearray(size)

    def write(self, data: Any, offset: int = 0) -> None:
        content = bytes(data)
        if self._data is None or not 0 <= offset <= offset + len(content) <= len(self._data):
            raise RuntimeError(f"bytes {offset} to {offset + len(content)} are not within the {self.size} allocated")
        self._data[offset : offset + len(content)] = content


class _ToCallers:
    """Weights go where a function says, which puts them there itself."""

    def __init__(self, locate: Locate, known: dict[str, OrtExternalInitializerInfo]) -> None:
        self._locate = locate
        self._known = known

    def write(self, proto: Any, values: np.ndarray[Any, Any], name: str) -> bool:
        if values.dtype == object:
            return False
        place = self._locate(name, OrtValue._of(values), self._known.get(name))
        if place is None:
            return False
        writer.refer(proto, values, name, place.filepath, place.file_offset, place.byte_size)
        return True


@native
class ModelCompiler:
    """Session options, path or bytes, is it a path, embed compiled data, file of external weights and their least
    size in bytes, flags, optimization level, function that places weights."""

    def __init__(
        self,
        arg0: SessionOptions,
        arg1: str | bytes,
        arg2: bool,
        arg3: bool,
        arg4: str,
        arg5: int,
        arg6: int,
        arg7: GraphOptimizationLevel,
        arg8: Locate | None,
        /,
    ) -> None:
        if not isinstance(arg0, SessionOptions) or not isinstance(arg7, GraphOptimizationLevel):
            raise errors.incompatible(
                "__init__",
                "C.ModelCompiler(arg0: C.SessionOptions, arg1: str, arg2: bool, arg3: bool, arg4: str, arg5: int, "
                "arg6: int, arg7: C.GraphOptimizationLevel, arg8: collections.abc.Callable)",
                *(arg0, arg1, arg2, arg3, arg4, arg5, arg6, arg7, arg8),
                constructor=True,
            )
        with errors.translated():
            if arg2 and not os.path.exists(arg1):
                raise errors.make("INVALID_ARGUMENT", f'Input model path does not exist: "{os.fsdecode(arg1)}"')
            if not arg2:
                reader.parse(arg1)
        self._options = arg0._copy()
        self._source = arg1
        self._weights_path = arg4
        self._threshold_nbytes = arg5
        self._flags = OrtCompileApiFlags(arg6)
        self._level = arg7
        self._locate = arg8

    def compile_to_bytes(self) -> bytes:
        """The model; external weights go into the current folder."""
        if not self._weights_path:
            return self._content(None)
        with self._weights_beside(Path.cwd()) as weights:
            return self._content(weights)

    def compile_to_file(self, arg0: str, /) -> None:
        """Write the model whole or not at all."""
        if not isinstance(arg0, str):
            signature = "(self: C.ModelCompiler, arg0: str) -> None"
            raise errors.incompatible("compile_to_file", signature, self, arg0)
        if not arg0:
            raise errors.make("INVALID_ARGUMENT", "Output model path must not be empty.")
        target = Path(arg0)
        if self._flags & OrtCompileApiFlags.ERROR_IF_OUTPUT_FILE_EXISTS and target.exists():
            raise errors.make(
                "FAIL",
                f"Failed to generate EP context model since the file '\"{arg0}\"' exists already. Please remove the EP "
                "context model if you want to re-generate it.",
            )
        if not target.resolve().parent.is_dir():
            raise errors.make("INVALID_ARGUMENT", f'open file "{arg0}" failed: No such file or directory')
        with writing(target) as file:
            if not self._weights_path:
                file.write(self._content(None))
            else:
                with self._weights_beside(target.resolve().parent) as weights:
                    file.write(self._content(weights))

    def compile_to_stream(self, arg0: Callable[[bytes], None], /) -> None:
        content = self.compile_to_bytes()
        try:
            arg0(content)
        except Exception as error:
            raise errors.make("FAIL", f"{type(error).__name__}: {error}") from error

    def set_ep_context_data_write_func(self, write_func: Callable[[str, OrtEpContextData], None]) -> None:
        """Where compiled data goes. It is never called: no provider here compiles."""
        if not callable(write_func):
            signature = "(self: C.ModelCompiler, write_func: collections.abc.Callable) -> None"
            raise errors.incompatible("set_ep_context_data_write_func", signature, self, write_func)

    def clear_ep_context_data_write_func(self) -> None:
        """Nothing to forget."""

    def set_ep_context_binary_information(self, output_directory: str, model_name: str) -> None:
        """Where providers put their files, and how they name them. No provider here writes any."""
        if not output_directory or not model_name:
            raise errors.make("INVALID_ARGUMENT", "output_dir or model_name is empty.")
        if not output_directory.endswith(("/", os.sep)) and not os.path.splitext(output_directory)[1]:
            raise errors.make("INVALID_ARGUMENT", "output_dir is not a valid directory.")

    def _weights_beside(self, folder: Path) -> contextlib.AbstractContextManager[Any]:
        if os.path.isabs(self._weights_path):
            text = f"external_file_path.is_relative() was false. {self._weights_path}: name it beside the model"
            raise errors.make("FAIL", text)
        return writing(folder / self._weights_path)

    def _content(self, weights: Any) -> bytes:
        """The model's bytes; large initializers are written to the file ``weights`` where there is one."""
        with errors.translated():
            if self._flags & OrtCompileApiFlags.ERROR_IF_NO_NODES_COMPILED:
                raise errors.make("FAIL", _NO_NODES)
            model = loading.read(self._source, self._options)
            for change in optimize(model, loading.LEVELS[self._level]):
                logs.DEFAULT.log(logs.INFO, f"Graph optimization: {change}")
            sink: writer.WeightSink | None = None
            if self._locate is not None:
                sink = _ToCallers(self._locate, _places(self._source))
            elif weights is not None:
                sink = writer.ExternalFile(weights, self._weights_path, self._threshold_nbytes + 1)
            content: bytes = writer.to_proto(model, sink).SerializeToString()
            return content


def _places(source: str | bytes) -> dict[str, OrtExternalInitializerInfo]:
    """Where a model's initializers lie that lie outside of it."""
    found = {}
    proto, _ = reader.parse(source)
    for tensor in proto.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if "location" in entries:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
            found[tensor.name] = OrtExternalInitializerInfo(entries["location"], offset, length)
    return found
