"""Small models as files, and the command run in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx.parser
import pytest

from distort.cli import main

_HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'
AFFINE = """affine (float[N,2] x, float[2] bias) => (float[N,2] y, float[N,2] doubled) {
    [sum_1] y = Add(x, bias)
    [double_1] doubled = Add(y, y)
}"""


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., str]:
    """A graph in ONNX's text form -> the path of a model."""

    def write(graph: str = AFFINE, header: str = _HEADER) -> str:
        path = tmp_path / "model.onnx"
        path.write_bytes(onnx.parser.parse_model(header + graph).SerializeToString())
        return str(path)

    return write


@pytest.fixture
def distort(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """The command, its exit code and what it printed."""

    def run(*argv: str) -> Ran:
        try:
            code = main(argv)
        except SystemExit as stop:  # argparse's own end
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
