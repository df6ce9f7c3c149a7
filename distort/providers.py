"""Execution providers: which there are, which are here, and the checks of what a session is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distort.kernels.cuda.options import CudaOptions

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
    """Providers that a session's nodes can really run on, the preferred first."""
    return [CPU] if why_no_gpu() else [CUDA, CPU]


def why_no_gpu() -> str:
    """Nothing where CUDAExecutionProvider can be used; else a sentence that says why it can't, and the remedy."""
    from distort.kernels.cuda import device

    return device.why_not()


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
    chosen = _distinct(_entries(providers, provider_options), available_provider_names, several_gpus=False)
    return [name for name, _ in chosen], [options for _, options in chosen]


def normalize(
    providers: Sequence[str | tuple[str, dict[Any, Any]]] | None,
    provider_options: Sequence[dict[Any, Any]] | None,
    *,
    several_gpus: bool,
    elsewhere: bool = False,
) -> tuple[list[str], list[dict[str, str]]]:
    """As above, for a session. With ``several_gpus`` the CUDA provider may be there once for each GPU.

    ``elsewhere``: its stages run on a cluster, which may have GPUs that this machine lacks.
    """
    # the CPU is always here: a session that wants nothing else has no GPU looked for, which takes a while
    known = providers is None or (isinstance(providers, list) and all(name == CPU for name in providers))
    here = [CPU] if known else [CUDA, CPU] if elsewhere else available_providers()
    chosen = _distinct(_entries(providers, provider_options), here, several_gpus=several_gpus)
    return [name for name, _ in chosen], [options for _, options in chosen]


def _entries(
    providers: Sequence[str | tuple[str, dict[Any, Any]]] | None, provider_options: Sequence[dict[Any, Any]] | None
) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Name and options of each wanted provider. Raises ValueError at the first that is none."""
    if providers is None:
        return
    if not isinstance(providers, Sequence):
        raise ValueError("'providers' should be a sequence.")
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
            yield str(name), options
        return
    for provider in providers:
        if isinstance(provider, str):
            yield provider, {}
        elif (
            isinstance(provider, tuple)
            and len(provider) == 2
            and isinstance(provider[0], str)
            and isinstance(provider[1], dict)
        ):
            yield provider
        else:
            raise ValueError("'providers' values must be either strings or (string, dict) tuples.")


_ONE_GPU = (
    " A sequential session runs in one process on one GPU, that of device_id {}; with ExecutionMode.ORT_PARALLEL it "
    "may have several."
)


def _distinct(
    entries: Iterable[tuple[str, dict[Any, Any]]], here: Sequence[str], *, several_gpus: bool
) -> list[tuple[str, dict[str, str]]]:
    """Each provider once, the first time it comes; with ``several_gpus`` the CUDA provider once for each of them."""
    wanted: list[tuple[str, dict[str, str]]] = []
    for name, options in entries:
        if name not in here:
            warnings.warn(
                f"Specified provider '{name}' is not in available provider names."
                f"Available providers: '{', '.join(here)}'",
                stacklevel=5,
            )
        chosen = {str(key): str(value) for key, value in options.items()}
        before = [had for known, had in wanted if known == name]
        other_gpu = name == CUDA and _gpu(chosen) not in map(_gpu, before)
        if before and not (other_gpu and several_gpus):
            why = _ONE_GPU.format(_gpu(before[0])) if other_gpu else ""
            warnings.warn(f"Duplicate provider '{name}' encountered, ignoring.{why}", stacklevel=5)
        else:
            wanted.append((name, chosen))
    return wanted


def _gpu(options: Mapping[str, str]) -> str:
    return options.get("device_id", "0")


def usable(
    names: Sequence[str], options: Sequence[dict[str, str]], *, parallel: bool = False, elsewhere: bool = False
) -> list[tuple[str, dict[str, str]]]:
    """The wanted providers that are here, the CPU always last. A parallel session may have CUDA for several GPUs.

    ``elsewhere``: on a cluster, whose GPUs nobody has looked at yet.

    Raises RuntimeError for a name that nobody has, and for options of CUDA that can't be read or obeyed.
    """
    here = [CPU] if all(name == CPU for name in names) else [CUDA, CPU] if elsewhere else available_providers()
    found: list[tuple[str, dict[str, str]]] = []
    for name, chosen in zip(names, options, strict=True):
        if name not in ALL_PROVIDERS:
            raise RuntimeError(f"Unknown Provider Type: {name}")
        if name in here:
            found.append((name, {} if name == CPU else chosen))  # the CPU has no options
    found = _distinct(found, here, several_gpus=parallel)
    if CPU not in [name for name, _ in found]:
        found.append((CPU, {}))
    for name, chosen in found:
        if name == CUDA:
            from distort.kernels.cuda import device

            cuda_options(chosen, n_devices=None if elsewhere else device.count(), in_process=not parallel)
    return found


def cuda_options(given: Mapping[str, Any], *, n_devices: int | None = None, in_process: bool = True) -> CudaOptions:
    """Options of CUDAExecutionProvider. Raises RuntimeError, as onnxruntime does."""
    from distort.kernels.cuda.options import CudaOptions, OptionError

    try:
        return CudaOptions.read(given, n_devices=n_devices, in_process=in_process)
    except OptionError as error:
        raise RuntimeError(str(error)) from None


def told_options(name: str, given: Mapping[str, str]) -> dict[str, str]:
    """A provider's options as a session tells them: all of CUDA's, with their defaults."""
    return cuda_options(given).as_strings() if name == CUDA else dict(given)


def notes(chosen: Sequence[tuple[str, Mapping[str, str]]]) -> list[str]:
    """For each option that is set and has no effect, a sentence that says why."""
    found = [note for name, given in chosen if name == CUDA for note in cuda_options(given).notes()]
    return list(dict.fromkeys(found))


def memory_limits(chosen: Sequence[tuple[str, Mapping[str, str]]]) -> dict[int | None, int]:
    """Bytes that providers' options leave of a GPU, by its number; by None of each that isn't named.

    Raises RuntimeError for options that can't be read.
    """
    found: dict[int | None, int] = {}
    for name, given in chosen:
        if name == CUDA:
            options = cuda_options(given)
            if options.limit_nbytes is not None:
                found[options.device_id if "device_id" in given else None] = options.limit_nbytes
    return found
