"""Operators of one's own, written in Python."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from distort.graph import type_hooks
from distort.graph.type_hooks import TensorSpec, TypeHook
from distort.kernels import registry

_Function = TypeVar("_Function", bound=Callable[..., Any])


def register_kernel(
    domain: str,
    op_type: str,
    since_version: int = 1,
    function: Callable[..., Any] | None = None,
    *,
    device: str = "any",
    host: tuple[int, ...] = (),
    prepare: Callable[..., dict[str, Any]] | None = None,
    shape_inference: TypeHook | None = None,
) -> Any:
    """Run nodes of ``domain``'s operator ``op_type``, from ``since_version`` on, by a function; or decorate it.

    ``function(xp, *inputs, **attributes)`` gets numpy (or cupy on a GPU), arrays by position (None where an optional
    input is absent), and the node's attributes as keyword-only parameters with their defaults. It returns one array,
    or a tuple with one an output, and changes no input. Sessions made afterwards use it; sessions on actors carry it
    there by value, so that only what it imports has to exist on their machines.

    ``device`` is "any", "cpu" or "cuda"; ``host`` are positions of inputs that are numpy arrays on any device;
    ``prepare(**attributes)`` runs once a node and returns the function's keywords instead of the attributes.
    ``shape_inference(inputs, attributes)`` gets and returns :class:`TensorSpec`, one a value: plans and
    ``get_outputs`` know shapes by it. A second registration replaces the first, and one for an operator of ONNX goes
    before distort's own.

    Raises TypeError for what is no function, ValueError for a device or version that does not exist.
    """
    if not isinstance(domain, str) or not isinstance(op_type, str) or not op_type:
        raise TypeError("domain and op_type are strings, and op_type is not empty")
    if isinstance(since_version, bool) or not isinstance(since_version, int) or since_version < 1:
        raise ValueError(f"since_version is {since_version!r}, expected 1 or more")
    if device not in ("any", "cpu", "cuda"):
        raise ValueError(f"device is {device!r}, expected 'any', 'cpu' or 'cuda'")

    def register(body: _Function) -> _Function:
        for item, what in ((body, "a kernel"), (prepare, "prepare")):
            if item is not None and not isinstance(item, FunctionType):
                raise TypeError(f"{what} is a Python function, not {type(item).__name__}")
        domain_here = "" if domain == "ai.onnx" else domain
        entry = registry.entry_of(
            domain_here, op_type, since_version, device, body, tuple(host), prepare, body.__module__
        )
        registry.add_custom(entry)
        if shape_inference is not None:
            type_hooks.register(domain_here, op_type, since_version, shape_inference)
        return body

    return register if function is None else register(function)


def unregister_kernel(domain: str, op_type: str, since_version: int = 1, *, device: str = "any") -> None:
    """Forget a kernel of :func:`register_kernel`; sessions that use it keep it. Raises KeyError where there is none."""
    domain = "" if domain == "ai.onnx" else domain
    if not registry.remove_custom(domain, op_type, since_version, device):
        raise KeyError(f"no kernel of yours for {domain or 'ai.onnx'}:{op_type}({since_version}) on {device}")
    type_hooks.remove(domain, op_type, since_version)


__all__ = ["TensorSpec", "register_kernel", "unregister_kernel"]
