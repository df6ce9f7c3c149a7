"""onnxruntime's native classes for adapters, as ``capi.onnxruntime_pybind11_state`` has them."""

from __future__ import annotations

import operator
import os
from typing import Any

from distort import errors
from distort.adapters.format import FORMAT_VERSION, AdapterFile, Parameter, read, write
from distort.native.base import native
from distort.native.values import OrtValue

_INT32 = range(-(2**31), 2**31)


def _path(function: str, signature: str, path: Any, *receiver: object) -> str:
    """A path as text: a str, or what stands for one, which onnxruntime's annotations promise and its checks refuse."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise errors.incompatible(function, signature, *receiver, path)
    return text


def _unpicklable(instance: object) -> TypeError:
    return TypeError(f"cannot pickle '{errors.MODULE}.{type(instance).__name__}' object")


class _Version:
    """A settable 32-bit number."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._slot = "_" + name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else getattr(instance, self._slot)

    def __set__(self, instance: Any, value: Any) -> None:
        if not hasattr(value, "__index__") or operator.index(value) not in _INT32:
            signature = "(arg0: C.AdapterFormat, arg1: typing.SupportsInt | typing.SupportsIndex) -> None"
            raise errors.incompatible("", signature, instance, value)
        setattr(instance, self._slot, operator.index(value))


@native
class AdapterFormat:
    """The content of an adapter file: parameters by name, and versions."""

    __slots__ = ("__weakref__", "_adapter_version", "_format_version", "_model_version", "_parameters")

    adapter_version = _Version("Which adapter this is; chosen by who makes it.")
    model_version = _Version("Which model it is for; chosen by who makes it.")

    def __init__(self) -> None:
        self._format_version = FORMAT_VERSION
        self._adapter_version = 0
        self._model_version = 0
        self._parameters: dict[Any, Any] = {}

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise _unpicklable(self)

    @property
    def format_version(self) -> int:
        """The version of the file's format."""
        return self._format_version

    @property
    def parameters(self) -> dict[Any, Any]:
        """Name -> OrtValue; the very dict that was set."""
        return self._parameters

    @parameters.setter
    def parameters(self, value: dict[Any, Any]) -> None:
        if not isinstance(value, dict):
            raise errors.incompatible("", "(arg0: C.AdapterFormat, arg1: dict) -> None", self, value)
        self._parameters = value

    @staticmethod
    def read_adapter(arg0: str | os.PathLike[str], /) -> AdapterFormat:
        """Read a file. Raises RuntimeError where it is no adapter file."""
        path = _path("read_adapter", "(arg0: str) -> C.AdapterFormat", arg0)
        file = read(path)
        made = AdapterFormat()
        made._adapter_version, made._model_version = file.adapter_version, file.model_version
        made._parameters = _ort_values(file)
        return made

    def export_adapter(self, arg0: str | os.PathLike[str], /) -> None:
        """Write a file, whole or not at all. Raises RuntimeError where the file would not be read again."""
        path = _path("export_adapter", "(self: C.AdapterFormat, arg0: str) -> None", arg0, self)
        parameters: dict[str, Parameter] = {}
        for key, value in self._parameters.items():
            name = str(key)
            if not isinstance(value, OrtValue):
                raise RuntimeError(f"Lora adapter parameter '{name}' must be an OrtValue, and is a {type(value)}")
            if not value.is_tensor():
                raise RuntimeError(f"Lora adapter parameter '{name}' must be a Tensor OrtValue.")
            if name in parameters:
                raise RuntimeError(f"Lora adapter parameter '{name}' is there twice")
            try:
                parameters[name] = Parameter.of(value._tensor())
            except ValueError as error:
                raise RuntimeError(f"Lora Param '{name}': {error}") from error
        write(path, AdapterFile(self._format_version, self._adapter_version, self._model_version, parameters))


@native
class LoraAdapter:
    """The parameters of an adapter file, in place of a model's initializers for the runs that it is added to."""

    __slots__ = ("__weakref__", "_parameters")

    def __init__(self) -> None:
        #: name -> value, read-only; nothing before a file is loaded
        self._parameters: dict[str, OrtValue] = {}

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise _unpicklable(self)

    def Load(self, arg0: str | os.PathLike[str], /) -> None:
        """Map a file into memory, in place of the one before. Raises RuntimeError where it is no adapter file.

        Parameters that are not aligned in the file for their elements are copied. The file may be replaced or removed
        later, but not shortened or written into.
        """
        path = _path("Load", "(self: C.LoraAdapter, arg0: str) -> None", arg0, self)
        self._parameters = _ort_values(read(path, mapped=True))


def _ort_values(file: AdapterFile) -> dict[str, OrtValue]:
    return {name: OrtValue._of(parameter.values) for name, parameter in file.parameters.items()}
