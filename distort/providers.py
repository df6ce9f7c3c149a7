"""Execution providers: which there are, which are here, and the checks of what a session is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from distort import errors

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

#: every provider that onnxruntime knows, in its order of priority
ALL_PROVIDERS = (
    "TensorrtExecutionProvider",
    "CUDAExecutionProvider",
    "MIGraphXExecutionProvider",
    "OpenVINOExecutionProvider",
    "DnnlExecutionProvider",
    "VitisAIExecutionProvider",
    "QNNExecutionProvider",
    "NnapiExecutionProvider",
    "VSINPUExecutionProvider",
    "JsExecutionProvider",
    "CoreMLExecutionProvider",
    "DmlExecutionProvider",
    "RknpuExecutionProvider",
    "WebNNExecutionProvider",
    "WebGpuExecutionProvider",
    "XnnpackExecutionProvider",
    "CANNExecutionProvider",
    "AzureExecutionProvider",
    CPU,
)


def get_all_providers() -> list[str]:
    """Names of every provider that onnxruntime has; most are not here."""
    return list(ALL_PROVIDERS)


def available_providers() -> list[str]:
    """Providers that a session's nodes can really run on."""
    return [CPU]


def get_available_providers() -> list[str]:
    """Providers that a session's nodes can really run on, the preferred first."""
    return available_providers()


def get_device() -> str:
    """CPU or GPU: where sessions run unless told otherwise."""
    return "GPU" if CUDA in available_providers() else "CPU"


def check_and_normalize_provider_args(
    providers: Sequence[str | tuple[str, dict[Any, Any]]] | None,
    provider_options: Sequence[dict[Any, Any]] | None,
    available_provider_names: Sequence[str],
) -> tuple[list[str], list[dict[str, str]]]:
    """Names and options of the wanted providers, each once, in order. Raises ValueError for what can't be read.

    A name that is not available gives a warning, and stays in the answer.
    """
    if providers is None:
        return [], []
    if not isinstance(providers, Sequence):
        raise ValueError("'providers' should be a sequence.")
    wanted: dict[str, dict[str, str]] = {}

    def add(name: str, options: dict[Any, Any]) -> None:
        if name not in available_provider_names:
            warnings.warn(
                f"Specified provider '{name}' is not in available provider names."
                f"Available providers: '{', '.join(available_provider_names)}'",
                stacklevel=5,
            )
        if name in wanted:
            warnings.warn(f"Duplicate provider '{name}' encountered, ignoring.", stacklevel=5)
        else:
            wanted[name] = {str(key): str(value) for key, value in options.items()}

    if provider_options is not None:
        if not isinstance(provider_options, Sequence):
            raise ValueError("'provider_options' should be a sequence.")
        if len(providers) != len(provider_options):
            raise ValueError("'providers' and 'provider_options' should be the same length if both are given.")
        if not all(isinstance(name, str) for name in providers):
            raise ValueError("Only string values for 'providers' are supported if 'provider_options' is given.")
        if not all(isinstance(options, dict) for options in provider_options):
            raise ValueError("'provider_options' values must be dicts.")
        for name, options in zip(providers, provider_options, strict=True):
            add(str(name), options)
        return list(wanted), list(wanted.values())
    for provider in providers:
        if isinstance(provider, str):
            add(provider, {})
        elif (
            isinstance(provider, tuple)
            and len(provider) == 2
            and isinstance(provider[0], str)
            and isinstance(provider[1], dict)
        ):
            add(*provider)
        else:
            raise ValueError("'providers' values must be either strings or (string, dict) tuples.")
    return list(wanted), list(wanted.values())


def usable(names: Sequence[str], options: Sequence[dict[str, str]]) -> list[tuple[str, dict[str, str]]]:
    """The wanted providers that are here, the CPU always last.

    Raises RuntimeError for a name that nobody has, InvalidArgument for options of those here that can't be read.
    """
    here = available_providers()
    found: dict[str, dict[str, str]] = {}
    for name, chosen in zip(names, options, strict=True):
        if name not in ALL_PROVIDERS:
            raise RuntimeError(f"Unknown Provider Type: {name}")
        if name in here:
            found[name] = {} if name == CPU else chosen  # the CPU has no options
    found.setdefault(CPU, {})
    cuda_memory(found.get(CUDA, {}))
    return list(found.items())


#: what onnxruntime takes for no limit: the largest size_t
_NO_LIMIT = 2**64 - 1


def cuda_memory(options: Mapping[str, str]) -> tuple[int | None, int | None]:
    """The GPU (None: each) and the bytes (None: not limited) of ``device_id`` and ``gpu_mem_limit``.

    Raises InvalidArgument for what is no number.
    """
    device = _whole(options, "device_id", 0, 2**31 - 1, "a GPU's number, as 0")
    nbytes = _whole(options, "gpu_mem_limit", 1, _NO_LIMIT, f"bytes without a unit, as {2 * 2**30}")
    return device, None if nbytes == _NO_LIMIT else nbytes


def memory_limits(chosen: Sequence[tuple[str, Mapping[str, str]]]) -> dict[int | None, int]:
    """Bytes that providers' options leave of a GPU, by its number; by None of each that isn't named."""
    found: dict[int | None, int] = {}
    for name, given in chosen:
        if name == CUDA:
            device, nbytes = cuda_memory(given)
            if nbytes is not None:
                found[device] = nbytes
    return found


def _whole(options: Mapping[str, str], option: str, least: int, most: int, remedy: str) -> int | None:
    text = options.get(option)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
        raise errors.make(
            "INVALID_ARGUMENT", f"Failed to parse provider option \"{option}\" of {CUDA}: '{text}'. Give it {remedy}."
        )
    return int(text)
