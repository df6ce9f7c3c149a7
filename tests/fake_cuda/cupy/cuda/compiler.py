"""cupy.cuda.compiler: what it raises."""

from .._raw import CompileException

__all__ = ["CompileException"]
