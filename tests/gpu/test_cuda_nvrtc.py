"""Sources of every kind of kernel are what NVIDIA's compiler takes, joined in one module, for old and new GPUs."""

from __future__ import annotations

import pytest

from distort.kernels.cuda.codegen import launches

from . import corpus, nvrtc

pytestmark = pytest.mark.skipif(nvrtc.library() is None, reason="NVRTC is not installed (extra cuda-test)")


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_maps(architecture: str) -> None:
    kernels = [launch.kernel for operation in corpus.maps() for launch in launches(operation) or []]
    assert nvrtc.compile_all(kernels, architecture) > 0
