"""Sources of every kind of kernel are what NVIDIA's compiler takes, joined in one module, for old and new GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from distort.kernels.compiler.ir import Operation
from distort.kernels.cuda.codegen import _PRINTERS, launches

from . import corpus, nvrtc

pytestmark = pytest.mark.skipif(nvrtc.library() is None, reason="NVRTC is not installed (extra cuda-test)")


#: the newest and the oldest take all, others what has instructions that came in between
_OF_ALL = [(corpus.maps, architecture) for architecture in nvrtc.ARCHITECTURES]
_OF_ALL += [(kind, nvrtc.ARCHITECTURES[end]) for kind in (corpus.rows, corpus.moves, corpus.steps) for end in (0, -1)]


@pytest.mark.parametrize(("kind", "architecture"), _OF_ALL)
def test_kernels(kind: Callable[[], Iterator[Operation]], architecture: str) -> None:
    kernels = [launch.kernel for operation in kind() for launch in launches(operation) or []]
    assert nvrtc.compile_all(kernels, architecture) > 0


def test_kernels_of_every_printer_are_compiled() -> None:
    kinds = {operation.kind for kind in (corpus.maps, corpus.rows, corpus.moves, corpus.steps) for operation in kind()}
    assert set(_PRINTERS) <= kinds
