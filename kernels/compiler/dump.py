"""A plan as text: what became of the nodes, where values lie, the steps, and the kernels' LLVM IR."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distort.kernels.compiler.codegen.target import Target
from distort.kernels.compiler.ir import Address, Buffer, Host, Operation, Place, Tensor
from distort.kernels.compiler.library import module_text
from distort.kernels.compiler.specialise import Plan, Step


def dump(folder: Path, plan: Plan, target: Target, name: str) -> None:
    """Write ``name.txt`` and ``name.ll`` to a folder. Raises OSError where it can't."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / name
    (place.with_suffix(".txt")).write_text("\n".join([*_operations(plan), "", *_steps(plan), ""]))
    keys = sorted({step.call.key for step in plan.steps if step.call is not None}, key=lambda key: key.symbol)
    (place.with_suffix(".ll")).write_text(module_text(keys, target))


def describe(operation: Operation) -> str:
    """What an operation is, in a line."""
    if isinstance(operation, Host):
        return f"NumPy {operation.node.op_type}"
    expression = getattr(operation, "expression", None) or getattr(operation, "epilogue", None)
    body = " ".join(instruction.op for instruction in expression.body) if expression is not None else ""
    return f"{type(operation).__name__}{f' ({body})' if body else ''}"


def _operations(plan: Plan) -> Iterator[str]:
    yield f"{len(plan.operations)} operations, arena of {plan.arena_nbytes} bytes"
    for number, operation in enumerate(plan.operations):
        yield f"{number:4d} {describe(operation)}: {', '.join(dict.fromkeys(operation.names))}"
        for label, tensors in (("reads", operation.inputs), ("writes", operation.outputs)):
            for tensor in tensors:
                yield f"       {label} {_tensor(tensor)}"


def _tensor(tensor: Tensor) -> str:
    blocks = f" in blocks of {tensor.block}" if tensor.block else ""
    strides = "" if tensor.contiguous else f" strides {list(tensor.strides)}"
    return f"{tensor.element} {list(tensor.shape)}{blocks}{strides} at {_place(tensor.buffer, tensor.offset)}"


def _place(buffer: Buffer, elements: int = 0) -> str:
    if buffer.place is Place.ARENA:
        where = f"arena {buffer.offset}..{buffer.offset + buffer.nbytes}"
    elif buffer.place is Place.CONSTANT:
        where = f"constant of {buffer.nbytes} bytes"
    else:
        where = f"{buffer.place.name.lower()} {buffer.number}"
    return f"{where} + {elements} elements" if elements else where


def _steps(plan: Plan) -> Iterator[str]:
    yield f"{len(plan.steps)} steps"
    for number, step in enumerate(plan.steps):
        yield f"{number:4d} {_step(step)}"


def _step(step: Step) -> str:
    if step.call is None:
        return f"NumPy kernel of {step.host.node.op_type}" if step.host is not None else ""
    words = [
        f"[{_place(word.buffer)}+{word.offset}]" if isinstance(word, Address) else str(word) for word in step.call.words
    ]
    return (
        f"{step.call.key.symbol} by {step.n_threads} threads, {step.n_chunks} parts each, "
        f"about {step.call.work_ns / 1e3:.1f} us\n"
        f"       {step.call.key.parameters}\n       words {' '.join(words)}"
    )
