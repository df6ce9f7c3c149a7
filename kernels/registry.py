"""(domain, operator, since_version, device) -> kernel.

A kernel is a pure function ``f(xp, *inputs, **attributes)``:

* ``xp`` is numpy or cupy; inputs are its arrays, positional, None where an optional input is absent;
  strings are object arrays, sequences are lists, maps are dicts, an empty optional is None;
* attributes are keyword-only parameters with ONNX's names and defaults; an attribute that the signature lacks is
  an error when the model is lowered, so each must be read or named;
* three more keyword-only parameters are filled where the signature names them: ``opset`` (the version of the
  node's domain), ``n_outputs`` (outputs up to the last one that somebody wants) and ``wanted`` (a tuple of bool,
  one an output);
* it returns one value, or a tuple with one value an output.

A kernel whose attributes are tables (trees, vocabularies) names a function ``prepare``: it takes the attributes as
keyword-only parameters, once, when the node is lowered; what it returns are the kernel's keywords instead of them.

``host`` names inputs that steer the computation (shapes, axes, sizes): they are numpy arrays on any device.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import FrameType
from typing import Any

KernelFunction = Callable[..., Any]
_SPECIAL = ("opset", "n_outputs", "wanted")


@dataclass(frozen=True, slots=True)
class Kernel:
    domain: str
    op_type: str
    since: int  # serves this version of the operator and later ones, up to the next registered
    device: str  # "any": one body over xp; "cpu" or "cuda": that device only
    function: KernelFunction
    parameters: frozenset[str]  # attributes it takes
    special: tuple[str, ...]  # of opset, n_outputs, wanted: those it takes
    takes_any_attribute: bool
    host: tuple[int, ...]  # positions of inputs that stay on the host
    prepare: Callable[..., dict[str, Any]] | None = None  # attributes -> keywords of ``function``, once a node
    module: str = ""  # whose import registered it
    n_inputs: tuple[int, int] = (0, sys.maxsize)  # least, most
    present: tuple[int, ...] = ()  # positions that must not be absent: no default, and None not in the annotation


_KERNELS: dict[tuple[str, str, str], list[Kernel]] = {}  # (domain, operator, device) -> by since, ascending
_CUSTOM: dict[tuple[str, str, str], list[Kernel]] = {}  # the same for kernels that users add; they come first
_SOUGHT: set[tuple[str, str]] = set()  # operators whose family was imported, or that have none
_ALL_DOMAINS_ALIASES = {"ai.onnx": ""}


def kernel(
    op_type: str,
    since: int | tuple[int, ...] = 1,
    *,
    domain: str = "",
    device: str = "any",
    host: tuple[int, ...] = (),
    prepare: Callable[..., dict[str, Any]] | None = None,
) -> Callable[[KernelFunction], KernelFunction]:
    """Register a function for ``op_type`` from version ``since`` on (several: each of them)."""

    module = _importing()

    def register(function: KernelFunction) -> KernelFunction:
        for version in since if isinstance(since, tuple) else (since,):
            entry = entry_of(domain, op_type, version, device, function, host, prepare, module)
            known = _KERNELS.setdefault((domain, op_type, device), [])
            if any(other.since == version for other in known):
                raise ValueError(f"two kernels for {domain or 'ai.onnx'}:{op_type}({version}) on {device}")
            known.append(entry)
            known.sort(key=lambda item: item.since)
        return function

    return register


def entry_of(
    domain: str,
    op_type: str,
    since: int,
    device: str,
    function: KernelFunction,
    host: tuple[int, ...] = (),
    prepare: Callable[..., dict[str, Any]] | None = None,
    module: str = "",
) -> Kernel:
    """A kernel with what its signature says of it."""
    keyword_only = _keyword_only(function)
    special = tuple(name for name in keyword_only if name in _SPECIAL)
    takes = function if prepare is None else prepare
    # to ``prepare`` nothing but attributes is given, whatever they are called
    parameters = frozenset(_keyword_only(takes)) - frozenset(_SPECIAL if prepare is None else ())
    any_attribute = bool(takes.__code__.co_flags & 0x08)  # **kwargs
    code = function.__code__
    n_positional = code.co_argcount - 1  # without xp
    least = max(n_positional - len(function.__defaults__ or ()), 0)
    n_inputs = (least, sys.maxsize if code.co_flags & 0x04 else n_positional)  # 0x04: *inputs
    names = code.co_varnames[1 : 1 + least]
    # before a list of any length Python has no defaults: an input there may be absent all the same
    present = tuple(i for i, name in enumerate(names) if not code.co_flags & 0x04 and not _takes_none(function, name))
    return Kernel(
        domain,
        op_type,
        since,
        device,
        function,
        parameters,
        special,
        any_attribute,
        host,
        prepare,
        module,
        n_inputs,
        present,
    )


def _takes_none(function: KernelFunction, name: str) -> bool:
    return "None" in str(function.__annotations__.get(name, ""))


def add_custom(entry: Kernel) -> None:
    """Add a user's kernel; it replaces the one that it is a new form of, and goes before our own."""
    known = _CUSTOM.setdefault((entry.domain, entry.op_type, entry.device), [])
    known[:] = sorted([other for other in known if other.since != entry.since] + [entry], key=lambda k: k.since)


def remove_custom(domain: str, op_type: str, since: int, device: str) -> bool:
    """Forget a user's kernel; whether there was one."""
    known = _CUSTOM.get((domain, op_type, device), [])
    kept = [other for other in known if other.since != since]
    found = len(kept) < len(known)
    known[:] = kept
    return found


def has_custom() -> bool:
    """Whether a user has kernels for any operator."""
    return any(_CUSTOM.values())


def custom_of(domain: str, op_type: str) -> list[Kernel]:
    """A user's kernels for an operator, for every device and version."""
    if not _CUSTOM:
        return []
    domain = _ALL_DOMAINS_ALIASES.get(domain, domain)
    return [entry for key, entries in _CUSTOM.items() if key[:2] == (domain, op_type) for entry in entries]


def _importing() -> str:
    """The module whose body runs: families register through functions that they share."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def _keyword_only(function: Callable[..., Any]) -> tuple[str, ...]:
    code = function.__code__
    return code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]


def find(domain: str, op_type: str, opset: int, device: str = "cpu") -> Kernel | None:
    """The kernel for an operator at an opset version of its domain: the device's own, else the common body."""
    domain = _ALL_DOMAINS_ALIASES.get(domain, domain)
    if (domain, op_type) not in _SOUGHT:
        _seek(domain, op_type)
    for kernels in (_CUSTOM, _KERNELS) if _CUSTOM else (_KERNELS,):
        for where in (device, "any"):
            known = kernels.get((domain, op_type, where))
            if known:
                position = bisect_right(known, opset, key=lambda item: item.since)
                if position:
                    return known[position - 1]
    return None


def _seek(domain: str, op_type: str) -> None:
    """Import the family of an operator, where there is one: a process pays for the families that its models use."""
    from distort.kernels.ops.index import MODULE_OF

    _SOUGHT.add((domain, op_type))
    module = MODULE_OF.get((domain, op_type))
    if module is not None:
        import_module(f"distort.kernels.ops.{module}")


def registered() -> Iterator[Kernel]:
    """Every kernel, by domain, operator and version."""
    from distort.kernels.ops import load_all

    load_all()
    for key in sorted(_KERNELS):
        yield from _KERNELS[key]
