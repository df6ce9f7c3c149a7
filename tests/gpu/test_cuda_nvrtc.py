"""Sources of every kind of kernel are what NVIDIA's compiler takes, joined in one module, for old and new GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from distort.kernels.compiler.ir import Operation
from distort.kernels.cuda.codegen import launches

from . import corpus, nvrtc

pytestmark = pytest.mark.skipif(nvrtc.library() is None, reason="NVRTC is not installed (extra cuda-test)")


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("kind", [corpus.maps, corpus.rows, corpus.moves], ids=lambda kind: kind.__name__)
def test_kernels(kind: Callable[[], Iterator[Operation]], architecture: str) -> None:
    kernels = [launch.kernel for operation in kind() for launch in launches(operation) or []]
    assert nvrtc.compile_all(kernels, architecture) > 0
