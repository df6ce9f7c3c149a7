"""NVIDIA's compute-sanitizer over the kernels' corpus and a captured graph: memcheck, racecheck, synccheck."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gpu_checks.report import FAILED, Report, Skipped

_SCRIPT = Path(__file__).resolve().parents[1] / "gpu_check.py"


def run(report: Report) -> None:
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        raise Skipped("compute-sanitizer isn't on PATH")
    for kind in ("memcheck", "racecheck", "synccheck"):
        with report.part(kind):
            _sanitize(report, tool, kind, report.left_s / 2)


def _sanitize(report: Report, tool: str, kind: str, limit_s: float) -> None:
    if limit_s < 5:
        raise Skipped("no time left")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        inner = [sys.executable, str(_SCRIPT), "--check", "kernels", "--limit-s", str(int(limit_s * 0.7))]
        command = [tool, "--tool", kind, "--print-limit", "20", "--log-file", str(log), *inner]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            raise Skipped(f"it took more than {limit_s:.0f} s") from None
        text = log.read_text(errors="replace") if log.exists() else ""
    ran = re.search(r"kernels compared +(\d+)", done.stdout)
    if ran is None:
        words = (text + done.stderr).strip().splitlines()
        report.add(kind, FAILED, f"the kernels didn't run under it: {words[-1] if words else done.returncode}")
        return
    summary = re.search(r"(ERROR|RACECHECK) SUMMARY: (.*)", text)
    clean = summary is not None and re.match(r"0 (errors|hazards)", summary[2]) is not None
    told = summary[2] if summary else f"no summary: {text[-200:]}"
    report.judge(f"{kind} over the kernels", clean, f"{ran[1]} comparisons, {told}", log=text[-4000:])
