"""NVIDIA's cuda.pathfinder, as much as is used: it finds the libraries that are here instead of the real ones."""

from __future__ import annotations

from dataclasses import dataclass


class DynamicLibNotFoundError(RuntimeError):
    pass


@dataclass
class LoadedDL:
    abs_path: str
    was_already_loaded_from_elsewhere: bool = False
    found_via: str = "fake"


#: where CUDA's headers are; CuPy compiles nothing without them
headers: str | None = "/fake/cuda/include"


def find_nvidia_header_directory(libname: str) -> str | None:
    return headers if libname == "cudart" else None


#: libraries that the fake CuPy stands for itself
libraries = {"cufft", "cusolver"}


def load_nvidia_dynamic_lib(libname: str) -> LoadedDL:
    if libname == "cublasLt":
        import cublaslt  # lies next to this folder
        from cupy import fake

        cublaslt.library().fake_enqueue_with(fake.enqueue_from_c)
        cublaslt.library().fake_touch_with(fake.touch_from_c)
        return LoadedDL(cublaslt.path())
    if libname in libraries:
        return LoadedDL("libc.so.6")  # whichever: nobody calls it
    raise DynamicLibNotFoundError(f'Failure finding "lib{libname}.so"')
