"""Libraries that import onnxruntime themselves, unmodified, on distort.

They are large, so they are no part of the test extra: `pip install -e '.[compat]'` brings them, and what is not
installed is skipped.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).parent / "programs"


def _run(name: str, *libraries: str) -> Any:
    """What a program prints as JSON on its last line, with distort under onnxruntime's name."""
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    command = [sys.executable, "-m", "distort.compat", str(PROGRAMS / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_rapidocr_reads_a_line_of_text() -> None:
    assert _run("ocr.py", "rapidocr_onnxruntime", "PIL") == ["Hello world 2026"]


def test_silero_vad_finds_speech() -> None:
    found = _run("speech.py", "silero_vad", "torch")
    assert len(found) == 2
    for (start_s, end_s), (wanted_start_s, wanted_end_s) in zip(found, ((1.0, 2.5), (3.5, 4.5)), strict=True):
        assert abs(start_s - wanted_start_s) < 0.25
        assert abs(end_s - wanted_end_s) < 0.25


def test_magika_names_file_types() -> None:
    assert _run("file_types.py", "magika") == {"python": "python", "json": "json", "html": "html", "shell": "shell"}


def test_an_example_of_sklearn_onnx() -> None:
    assert _run("sklearn_example.py", "skl2onnx") == {
        "agree": True,
        "module": "distort.capi.onnxruntime_inference_collection",
    }


def test_torch_shares_memory() -> None:
    torch = pytest.importorskip("torch")
    import distort

    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    value = distort.OrtValue.from_dlpack(tensor)
    assert value.data_ptr() == tensor.data_ptr()
    back = torch.from_dlpack(value)
    back[0, 0] = 7
    assert tensor[0, 0] == 7
    half = distort.OrtValue.from_dlpack(torch.ones(4, dtype=torch.bfloat16))
    assert half.data_type() == "tensor(bfloat16)"
    assert torch.from_dlpack(half).dtype == torch.bfloat16
    assert distort.OrtValue.from_dlpack(torch.ones(2, dtype=torch.bool)).data_type() == "tensor(bool)"
