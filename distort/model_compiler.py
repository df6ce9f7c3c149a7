"""ModelCompiler: a model read, optimized and written anew, with its weights where they are wanted."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from distort.enums import GraphOptimizationLevel, OrtCompileApiFlags
from distort.native import compiler
from distort.native.base import public
from distort.native.compiler import OrtExternalInitializerInfo
from distort.ortvalue import OrtValue

GetInitializerLocationFunc = Callable[
    [str, OrtValue, OrtExternalInitializerInfo | None], OrtExternalInitializerInfo | None
]
GetInitializerLocationWrapperFunc = compiler.Locate


def make_get_initializer_location_func_wrapper(
    get_initializer_location_func: GetInitializerLocationFunc,
) -> GetInitializerLocationWrapperFunc:
    """A function over native values, of one over users' OrtValues."""

    def place(name: str, value: Any, info: OrtExternalInitializerInfo | None) -> OrtExternalInitializerInfo | None:
        return get_initializer_location_func(name, OrtValue(value), info)

    return place


@public
class ModelCompiler:
    """Compiles a model's subgraphs for providers that do; see :mod:`distort.native.compiler` for the CPU."""

    def __init__(
        self,
        sess_options: Any,
        input_model_path_or_bytes: str | os.PathLike[str] | bytes,
        embed_compiled_data_into_model: bool = False,
        external_initializers_file_path: str | os.PathLike[str] | None = None,
        external_initializers_size_threshold: int = 1024,
        flags: int = OrtCompileApiFlags.NONE,
        graph_optimization_level: GraphOptimizationLevel = GraphOptimizationLevel.ORT_DISABLE_ALL,
        get_initializer_location_func: GetInitializerLocationFunc | None = None,
    ) -> None:
        """Initializers larger than the threshold [bytes] go into the external file, or where the function says."""
        source: str | bytes
        if isinstance(input_model_path_or_bytes, (str, os.PathLike)):
            source = os.fspath(input_model_path_or_bytes)
            if not source:
                raise ValueError("Input model path is empty")
        elif isinstance(input_model_path_or_bytes, bytes):
            source = input_model_path_or_bytes
            if not source:
                raise ValueError("Input model bytes array is empty")
        else:
            raise TypeError(f"Unable to load from type '{type(input_model_path_or_bytes)}'")
        weights = external_initializers_file_path or ""
        if not isinstance(weights, (str, os.PathLike)):
            raise TypeError(f"Output external initializer filepath is of unexpected type '{type(weights)}'")
        if get_initializer_location_func is not None and weights:
            raise ValueError(
                "Cannot initialize ModelCompiler with both `external_initializers_file_path` "
                "and `get_initializer_location_func`"
            )
        place = get_initializer_location_func
        self._model_compiler = compiler.ModelCompiler(
            sess_options,
            source,
            isinstance(source, str),
            embed_compiled_data_into_model,
            os.fspath(weights),
            external_initializers_size_threshold,
            flags,
            graph_optimization_level,
            None if place is None else make_get_initializer_location_func_wrapper(place),
        )
        self._path = source if isinstance(source, str) else None

    def compile_to_file(self, output_model_path: str | None = None) -> None:
        """Write the model; without a path, beside the input: ``model.onnx`` becomes ``model_ctx.onnx``."""
        if output_model_path and not isinstance(output_model_path, (str, os.PathLike)):
            raise TypeError(f"Output model's filepath is of unexpected type '{type(output_model_path)}'")
        if output_model_path is None and self._path is not None:
            stem, extension = os.path.splitext(self._path)
            output_model_path = f"{stem}_ctx{extension or '.onnx'}"
        self._model_compiler.compile_to_file(os.fspath(output_model_path) if output_model_path else output_model_path)  # type: ignore[arg-type]  # None raises the TypeError that onnxruntime raises

    def compile_to_bytes(self) -> bytes:
        return self._model_compiler.compile_to_bytes()

    def compile_to_stream(self, write_function: Callable[[bytes], None]) -> None:
        """Hand the model's bytes to a function."""
        self._model_compiler.compile_to_stream(write_function)

    def set_ep_context_data_write_func(self, write_func: Callable[[str, compiler.OrtEpContextData], None]) -> None:
        self._model_compiler.set_ep_context_data_write_func(write_func)

    def clear_ep_context_data_write_func(self) -> None:
        self._model_compiler.clear_ep_context_data_write_func()

    def set_ep_context_binary_information(self, output_directory: str | os.PathLike[str], model_name: str) -> None:
        self._model_compiler.set_ep_context_binary_information(os.fspath(output_directory), model_name)
