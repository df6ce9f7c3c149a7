"""Errors that kernels and programs raise. The facade gives them onnxruntime's class and prefix."""

from __future__ import annotations


class KernelError(Exception):
    """A node that failed while running. ``text`` names it as onnxruntime does."""

    def __init__(self, text: str, *, node: str = "", op_type: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.node = node
        self.op_type = op_type

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.text, self.node, self.op_type))


class InvalidInput(KernelError):
    """A kernel's inputs contradict each other or the operator's definition (shape, range, type)."""


class Failed(InvalidInput):
    """As InvalidInput, where onnxruntime's kernel says FAIL: shapes that don't broadcast, axes beyond the rank, ..."""


class MissingKernel(KernelError):
    """No kernel for a node's operator and version."""


class InvalidGraph(KernelError):
    """A node that no kernel could run whatever its inputs hold: too few of them, or too many."""


class OutOfMemory(KernelError):
    """A device has no room for what is asked of it."""


class RunCancelled(KernelError):
    """The run was told to stop (``RunOptions.terminate``)."""


def _rebuild(cls: type[KernelError], text: str, node: str, op_type: str) -> KernelError:
    return cls(text, node=node, op_type=op_type)
