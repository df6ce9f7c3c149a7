"""Sessions on a GPU of the fake, and what they were asked and copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
import onnx.parser

import distort
from distort.kernels.cuda.program import CudaProgram

CUDA = "CUDAExecutionProvider"


class Noting(CudaProgram):
    """Notes what each run was asked."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.runs: list[dict[str, Any]] = []
        self.n_shrunk = 0

    def run(self, feeds: Any, *args: Any, **kwargs: Any) -> list[Any]:
        self.runs.append({**kwargs, "feeds": dict(feeds)})
        return super().run(feeds, *args, **kwargs)

    def shrink(self) -> None:
        self.n_shrunk += 1
        super().shrink()


def session_of(
    text: str, device_id: int = 0, entries: Mapping[str, str] | None = None, **options: Any
) -> distort.InferenceSession:
    """A session of a model in ONNX's text. ``entries`` are of its config, ``options`` the provider's."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {text}')
    chosen = {"device_id": device_id, **options}
    made = distort.SessionOptions()
    for name, value in (entries or {}).items():
        made.add_session_config_entry(name, value)
    with mock.patch("distort.kernels.cuda.program.CudaProgram", Noting):
        return distort.InferenceSession(proto.SerializeToString(), made, providers=[(CUDA, chosen)], enable_fallback=0)


def program_of(session: distort.InferenceSession) -> Noting:
    program: Noting = session._sess._loaded.engine.gpu
    return program


def crossed(session: distort.InferenceSession) -> dict[tuple[str, str], int]:
    """Bytes that the session copied so far, by value and direction."""
    return {(row["value"], row["transport"]): row["nbytes"] for row in session.get_transfer_stats()}


def floats(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)
