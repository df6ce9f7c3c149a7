"""What onnxruntime exposes of adapters: AdapterFormat makes and reads their files, LoraAdapter is what a run takes."""

from __future__ import annotations

import os

from distort.adapters import native
from distort.adapters.native import LoraAdapter
from distort.native.base import public
from distort.ortvalue import OrtValue

__all__ = ["AdapterFormat", "LoraAdapter"]


@public
class AdapterFormat:
    """Makes adapter files from OrtValues, and reads them."""

    def __init__(self, adapter: native.AdapterFormat | None = None) -> None:
        self._adapter = native.AdapterFormat() if adapter is None else adapter

    @staticmethod
    def read_adapter(file_path: os.PathLike[str] | str) -> AdapterFormat:
        """Read a file. Raises RuntimeError where it is no adapter file."""
        return AdapterFormat(native.AdapterFormat.read_adapter(file_path))

    def export_adapter(self, file_path: os.PathLike[str] | str) -> None:
        """Write a file, whole or not at all.

        Raises RuntimeError for parameters that no file may have: without dimensions, or of an element type other than
        the integers and floats of 8 to 64 bits. onnxruntime writes those, and can't read them again.
        """
        self._adapter.export_adapter(file_path)

    def get_format_version(self) -> int:
        """The version of the file's format."""
        return self._adapter.format_version

    def set_adapter_version(self, adapter_version: int) -> None:
        """Say which adapter this is."""
        self._adapter.adapter_version = adapter_version

    def get_adapter_version(self) -> int:
        """Which adapter this is."""
        return int(self._adapter.adapter_version)

    def set_model_version(self, model_version: int) -> None:
        """Say which model the adapter is for."""
        self._adapter.model_version = model_version

    def get_model_version(self) -> int:
        """Which model the adapter is for."""
        return int(self._adapter.model_version)

    def set_parameters(self, params: dict[str, OrtValue]) -> None:
        """Take the tensors of the adapter, by the names of the initializers that they replace."""
        self._adapter.parameters = {name: value._ortvalue for name, value in params.items()}

    def get_parameters(self) -> dict[str, OrtValue]:
        """The tensors by name; those of a file are views of memory that lives as long as any of them."""
        return {name: OrtValue(value) for name, value in self._adapter.parameters.items()}
