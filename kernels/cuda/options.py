"""Options of CUDAExecutionProvider: read and checked as onnxruntime reads them, and what becomes of each here.

``python -m distort.kernels.cuda.options`` writes docs/provider_options.md; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

PROVIDER = "CUDAExecutionProvider"
#: no limit: the largest size_t, as in onnxruntime
NO_LIMIT = 2**64 - 1
_LARGEST_ADDRESS = 2**64 - 1
_TRUE, _FALSE = ("1", "True", "true"), ("0", "False", "false")

#: bits of ``sdpa_kernel`` that name attention kernels of onnxruntime
SDPA_CUDNN, SDPA_MATH = 8, 16
_SDPA_KNOWN = 0x3FF


class OptionError(ValueError):
    """An option that isn't known, can't be read, or can't be obeyed."""


class _Option(NamedTuple):
    """``read`` makes a value of text, or raises ValueError with the remedy. ``fate`` is what becomes of it here."""

    read: Callable[[str], Any]
    fate: str
    values: str  # in words
    #: value -> why there is no effect; None where it is obeyed
    idle: Callable[[Any], str | None] = lambda value: None


def _whole(least: int, most: int, remedy: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and least <= int(text) <= most):
            raise ValueError(remedy)
        return int(text)

    return read


def _flag(text: str) -> bool:
    if text not in (*_TRUE, *_FALSE):
        raise ValueError("1 or 0")
    return text in _TRUE


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return text

    return read


def _milliseconds(text: str) -> int:
    if not (text.isascii() and text.lstrip("-").isdecimal()):
        raise ValueError("milliseconds, or 0 for no limit")
    return int(text)


_address = _whole(0, _LARGEST_ADDRESS, "an address, as a number in tens")


def _unless(default: Any, why: str) -> Callable[[Any], str | None]:
    """Idle where it is set to anything but what happens anyway."""
    return lambda value: None if value == default else why


_TUNING = "tunable_op_enable=0 leaves the choice to the libraries"


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """What a session asks of one GPU. The fields are onnxruntime's options, with its defaults."""

    device_id: int = 0
    gpu_mem_limit: int = NO_LIMIT  # bytes
    gpu_external_alloc: int = 0  # addresses of void* alloc(size_t), void free(void*), void empty_cache(); 0: none
    gpu_external_free: int = 0
    gpu_external_empty_cache: int = 0
    arena_extend_strategy: str = "kNextPowerOfTwo"
    cudnn_conv_algo_search: str = "EXHAUSTIVE"
    do_copy_in_default_stream: bool = True
    has_user_compute_stream: bool = False
    user_compute_stream: int = 0  # a cudaStream_t; 0: the session's own
    cudnn_conv_use_max_workspace: bool = True
    enable_cuda_graph: bool = False
    cudnn_conv1d_pad_to_nc1d: bool = False
    tunable_op_enable: bool = False
    tunable_op_tuning_enable: bool = False
    tunable_op_max_tuning_duration_ms: int = 0
    enable_skip_layer_norm_strict_mode: bool = False
    prefer_nhwc: bool = False
    use_ep_level_unified_stream: bool = False
    use_tf32: bool = True
    fuse_conv_bias: bool = False
    enable_cudnn: bool = True
    sdpa_kernel: int = 0

    @classmethod
    def read(cls, given: Mapping[str, Any], *, n_devices: int | None = None, in_process: bool = True) -> CudaOptions:
        """Options of text, numbers and bools by name. ``n_devices``: how many GPUs there are, if that is to be checked.

        ``in_process`` is false for sessions whose stages run on actors, where addresses of this process mean nothing.
        Raises OptionError.
        """
        read: dict[str, Any] = {}
        for name, value in given.items():
            option = OPTIONS.get(str(name))
            if option is None:
                raise OptionError(f'Unknown provider option: "{name}". {PROVIDER} knows {", ".join(OPTIONS)}.')
            try:
                read[str(name)] = option.read(str(value))
            except ValueError as error:
                raise _unread(str(name), f"'{value}'. Give it {error}") from None
        if read.get("user_compute_stream"):
            read["has_user_compute_stream"] = True
        made = cls(**read)
        made._check(n_devices, in_process)
        return made

    def _check(self, n_devices: int | None, in_process: bool) -> None:
        """What one value alone doesn't tell. Raises OptionError."""
        if n_devices is not None and not self.device_id < max(1, n_devices):
            between = f"must be between 0 (inclusive) and {n_devices} (exclusive)"
            raise _unread("device_id", f"Invalid device ID: {self.device_id}, {between}")
        if self.has_user_compute_stream and not self.user_compute_stream:
            text = "the stream itself is to be given as user_compute_stream, the address of a cudaStream_t"
            raise _unread("has_user_compute_stream", f"'1', but {text}")
        if self.enable_cuda_graph and self.user_compute_stream in (1, 2):
            text = "CUDA's default streams can't be captured. Give it a stream of its own, or leave enable_cuda_graph"
            raise _unread("user_compute_stream", f"'{self.user_compute_stream}' with enable_cuda_graph: {text}")
        if bool(self.gpu_external_alloc) != bool(self.gpu_external_free):
            there, lacks = ("alloc", "free") if self.gpu_external_alloc else ("free", "alloc")
            raise _unread(f"gpu_external_{there}", f"it needs gpu_external_{lacks}: give both, or neither")
        if self.gpu_external_empty_cache and not self.gpu_external_alloc:
            raise _unread("gpu_external_empty_cache", "it needs gpu_external_alloc and gpu_external_free")
        if not in_process:
            for name in _ADDRESSES:
                if getattr(self, name):
                    text = "it is an address of this process, which means nothing on the actors of a parallel session"
                    raise _unread(name, f"{text}. Leave it, or use ExecutionMode.ORT_SEQUENTIAL")

    def as_strings(self) -> dict[str, str]:
        """All options as ``get_provider_options`` has them: text, with the defaults."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: str(int(value)) if isinstance(value, bool) else str(value) for name, value in found.items()}

    def notes(self) -> tuple[str, ...]:
        """For each option that is set and has no effect here, a sentence that says why."""
        found = []
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            why = option.idle(value) if value != _DEFAULTS[name] else None
            if why is not None:
                told = int(value) if isinstance(value, bool) else value
                found.append(f"{PROVIDER}'s {name}={told} has no effect: {why}")
        if not self.tunable_op_enable:
            names = ("tunable_op_tuning_enable", "tunable_op_max_tuning_duration_ms")
            given = [f"{name}={int(getattr(self, name))}" for name in names if getattr(self, name)]
            found += [f"{PROVIDER}'s {told} has no effect: {_TUNING}" for told in given]
        return tuple(found)

    # -- what others ask

    @property
    def limit_nbytes(self) -> int | None:
        """The most memory that the session may take of the GPU; None: all of it."""
        return None if self.gpu_mem_limit == NO_LIMIT else self.gpu_mem_limit

    @property
    def uses_cudnn_attention(self) -> bool:
        """Whether attention may be cuDNN's; else it is products and a softmax."""
        return self.enable_cudnn and (self.sdpa_kernel == 0 or bool(self.sdpa_kernel & SDPA_CUDNN))


def _unread(name: str, why: str) -> OptionError:
    return OptionError(f'Failed to parse provider option "{name}" of {PROVIDER}: {why}.')


def _sdpa_idle(value: int) -> str | None:
    if value & (SDPA_CUDNN | SDPA_MATH):
        return None
    return f"of onnxruntime's attention kernels there are cuDNN's ({SDPA_CUDNN}) and the unfused ones ({SDPA_MATH})"


_FLAG_VALUES = "`0`, `1`"
_IN_PROCESS = "refused on actors, where this process's addresses mean nothing"

#: in the order of get_provider_options
OPTIONS: dict[str, _Option] = {
    "device_id": _Option(
        _whole(0, 2**31 - 1, "a GPU's number, as 0"),
        "obeyed: the GPU, checked to be there; a parallel session takes the provider several times, with several",
        "a GPU's number",
    ),
    "gpu_mem_limit": _Option(
        _whole(1, NO_LIMIT, f"bytes without a unit, as {2 * 2**30}"),
        "obeyed: the limit of the session's memory, what other GPUs read of it included, and the planner's budget",
        "bytes",
    ),
    "gpu_external_alloc": _Option(
        _address, f"obeyed: memory comes from `void* alloc(size_t)`; {_IN_PROCESS}", "an address"
    ),
    "gpu_external_free": _Option(_address, f"obeyed: and goes to `void free(void*)`; {_IN_PROCESS}", "an address"),
    "gpu_external_empty_cache": _Option(
        _address, f"obeyed: `void empty_cache()` is called where an arena is shrunk; {_IN_PROCESS}", "an address"
    ),
    "arena_extend_strategy": _Option(
        _one_of("kNextPowerOfTwo", "kSameAsRequested"),
        "obeyed: the memory that plans have their values in grows to twice its size (1 GiB more at most), or by what "
        "is asked for",
        "`kNextPowerOfTwo`, `kSameAsRequested`",
    ),
    "cudnn_conv_algo_search": _Option(
        _one_of("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
        "obeyed: `EXHAUSTIVE` times cuDNN's plans for a second each, `HEURISTIC` and `DEFAULT` take the first",
        "`EXHAUSTIVE`, `HEURISTIC`, `DEFAULT`",
    ),
    "do_copy_in_default_stream": _Option(
        _flag,
        "copies are in the stream of the kernels, as with `1`",
        _FLAG_VALUES,
        _unless(True, "copies are in the stream of the kernels, so that no run waits for another's"),
    ),
    "has_user_compute_stream": _Option(_flag, "follows from `user_compute_stream`", _FLAG_VALUES),
    "user_compute_stream": _Option(_address, f"obeyed: runs are in this stream; {_IN_PROCESS}", "a `cudaStream_t`"),
    "cudnn_conv_use_max_workspace": _Option(
        _flag, "obeyed: `0` leaves out plans of convolutions that want more than 32 MiB beside", _FLAG_VALUES
    ),
    "enable_cuda_graph": _Option(
        _flag,
        "obeyed: runs are captured and replayed, by shapes and `gpu_graph_id`; refused where nodes run elsewhere",
        _FLAG_VALUES,
    ),
    "cudnn_conv1d_pad_to_nc1d": _Option(
        _flag,
        "a convolution of one dimension is one of two with a height of 1, as with `1`",
        _FLAG_VALUES,
    ),
    "tunable_op_enable": _Option(
        _flag, "obeyed: products use the fastest of cuBLASLt's algorithms that this process has timed", _FLAG_VALUES
    ),
    "tunable_op_tuning_enable": _Option(
        _flag, "obeyed with `tunable_op_enable`: what nobody has timed yet is timed when a plan is made", _FLAG_VALUES
    ),
    "tunable_op_max_tuning_duration_ms": _Option(
        _milliseconds, "obeyed: how long algorithms of one product are timed, the first one always", "milliseconds"
    ),
    "enable_skip_layer_norm_strict_mode": _Option(
        _flag, "sums of normalizations are always in single precision, as with `1`", _FLAG_VALUES
    ),
    "prefer_nhwc": _Option(
        _flag,
        "obeyed for convolutions of float16 and bfloat16, and what is element-wise or pools between them: channels "
        "are the last dimension there",
        _FLAG_VALUES,
    ),
    "use_ep_level_unified_stream": _Option(_flag, "a session has one stream, as with `1`", _FLAG_VALUES),
    "use_tf32": _Option(_flag, "obeyed: `0` keeps products and convolutions of single precision exact", _FLAG_VALUES),
    "fuse_conv_bias": _Option(_flag, "biases are always part of the convolution, as with `1`", _FLAG_VALUES),
    "enable_cudnn": _Option(
        _flag, "obeyed: `0` uses no cuDNN: convolutions and attention run on what else there is", _FLAG_VALUES
    ),
    "sdpa_kernel": _Option(
        _whole(0, _SDPA_KNOWN, f"the sum of the kernels that may be used, as {SDPA_CUDNN} for cuDNN's alone"),
        f"obeyed for cuDNN's ({SDPA_CUDNN}) and for unfused products ({SDPA_MATH}); there are no others",
        "a sum of bits; `0`: any",
        _sdpa_idle,
    ),
}
_DEFAULTS = {item.name: item.default for item in fields(CudaOptions)}
_ADDRESSES = ("gpu_external_alloc", "gpu_external_free", "gpu_external_empty_cache", "user_compute_stream")


def table_text() -> str:
    """docs/provider_options.md."""
    lines = [
        "# Provider options",
        "",
        f"What the options of `{PROVIDER}` do here, those of onnxruntime 1.32. Values are text, numbers or bools.",
        "An option that isn't known, or can't be read, raises `RuntimeError`, as in onnxruntime, and the session",
        "falls back to the CPU unless it was made with `enable_fallback=0`. An option that is set and has no effect is",
        "one of the plan's notes (`session.plan.explain()`) and is logged. `session.get_provider_options()` tells all.",
        "`python -m distort.kernels.cuda.options` writes this page; a test holds it against the code.",
        "",
        "| option | values | default | here |",
        "|---|---|---|---|",
    ]
    defaults = CudaOptions().as_strings()
    for name, option in OPTIONS.items():
        lines.append(f"| `{name}` | {option.values} | `{defaults[name]}` | {option.fate} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    Path("docs/provider_options.md").write_text(table_text(), encoding="utf-8")
