"""Each kernel against onnxruntime on a realistic shape: in turns in one process, medians and ratios, as a table.

    python benchmarks/kernels.py [--only REGEX] [--threads 1] [--seconds 0.3] [--limit 20] [--publish]

A ratio above 1 means that distort is faster. Ends with exit code 1 where a kernel is more than ``limit`` times slower
than onnxruntime's. One node is a session of its own, so what a run costs on top of its kernel counts on both sides.

The last two columns are about the kernel alone, by the events of profiled runs: GFLOP/s of products and convolutions,
with their share of what multiplications and additions of float32 in registers reach; GB/s, read and written, of all
others, with their share of copies of as many bytes. Both peaks are measured in the same run. Products of bytes, and
convolutions that multiply less than their definition does, may be above 1. Means of the shares follow by class; kernels
that are NumPy's are one of their own. ``--publish`` puts all of it into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from kernel_cases import KernelCase, feeds_of, groups, model_of
from peaks import Copying, peak_gflop_per_s
from side_by_side import machine, medians_ms, publish, table

from distort.cli.operations import measure
from distort.kernels.compiler.ir import Host
from distort.scheduler.flops import is_free, is_product, reads_selected

_CONVOLUTIONS = re.compile("Conv")


@dataclass(slots=True)
class Row:
    name: str
    kind: str  # the class that its share counts for
    ms: float
    rival_ms: float | None = None
    rate: str = ""
    share: float | None = None
    error: str = ""

    def cells(self) -> list[str]:
        if self.error:
            return [self.name, self.error, "", "", "", ""]
        rival = "no kernel" if self.rival_ms is None else f"{self.rival_ms:.3f}"
        ratio = "" if self.rival_ms is None else f"{self.rival_ms / self.ms:.2f}"
        share = "" if self.share is None else f"{self.share:.2f}"
        return [self.name, f"{self.ms:.3f}", rival, ratio, self.rate, share]


def sessions(case: KernelCase, threads: int) -> tuple[Any, Any]:
    """Ours and onnxruntime's; None where it has no kernel."""
    import distort

    modules: list[Any] = [distort]
    if find_spec("onnxruntime") is not None:
        import onnxruntime

        modules.append(onnxruntime)
    made: list[Any] = []
    for module in modules:
        options = module.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
        if module is distort:
            options.add_session_config_entry("distort.compile", "1")
        try:
            made.append(module.InferenceSession(model_of(case), options, providers=["CPUExecutionProvider"]))
        except Exception:
            if module is distort:
                raise
    return made[0], made[1] if len(made) > 1 else None


def measured(case: KernelCase, group: str, threads: int, seconds: float, flop_peak: float, copying: Copying) -> Row:
    name = f"{case.domain}.{case.name}" if case.domain else case.name
    feeds = feeds_of(case)
    try:
        ours, theirs = sessions(case, threads)
        sides: dict[str, Callable[[], Any]] = {"ours": partial(ours.run, None, feeds)}
        if theirs is not None:
            theirs.run(None, feeds)
            sides["theirs"] = partial(theirs.run, None, feeds)
        ms = medians_ms(sides, seconds)
    except Exception as error:  # noqa: BLE001  # the rival may load what it can't run
        return Row(name, group, 0.0, error=f"{type(error).__name__}: {str(error)[:80]}")
    row = Row(name, _kind(case, group), ms["ours"], ms.get("theirs"))
    if is_free(case.op_type):
        return row
    profile = measure(ours, feeds, 0.05)
    if not profile.kernels_us:  # the result is known beforehand
        return row
    if is_product(case.op_type):
        flops = sum(operation.flops or 0.0 for operation in profile.operations)
        rate = flops / profile.kernels_us / 1e3
        row.rate, row.share = f"{rate:.3g} GFLOP/s", rate / flop_peak / threads
    elif (nbytes := _nbytes(case, ours.run(None, feeds))) is not None:
        rate = nbytes / profile.kernels_us / 1e3
        row.rate, row.share = f"{rate:.3g} GB/s", rate / copying.gb_per_s(nbytes)
    plans = ours._sess._loaded.engine.program.plans
    if not plans or any(isinstance(operation, Host) for operation in plans[-1][1].operations):
        row.kind = "NumPy kernels"
        row.rate += " (NumPy)"
    return row


def _kind(case: KernelCase, group: str) -> str:
    if not is_product(case.op_type):
        return "normalization, pooling, quantization" if group == "dense" else group
    if any(np.asarray(value).dtype.itemsize == 1 for value in case.inputs if value is not None):
        return "8-bit products and convolutions"
    return "convolutions" if _CONVOLUTIONS.search(case.op_type) else "products"


def _nbytes(case: KernelCase, outputs: list[Any]) -> float | None:
    """What a run must read and write; None for text."""
    read = [np.asarray(value) for value in case.inputs if value is not None]
    written = [np.asarray(value) for value in outputs]
    if any(array.dtype == object for array in (*read, *written)):
        return None
    total = float(sum(array.nbytes for array in (*read, *written)))
    return total - read[0].nbytes + written[0].nbytes if reads_selected(case.op_type) and read else total


def shares(rows: list[Row]) -> list[str]:
    """Means of the shares of a peak, by class."""
    kinds: dict[str, list[float]] = {}
    for row in rows:
        if row.share:
            kinds.setdefault(row.kind, []).append(row.share)
    return [
        f"{kind}: mean share {statistics.geometric_mean(of):.2f}, lowest {min(of):.2f}, {len(of)} kernels"
        for kind, of in kinds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="regular expression on the operator's name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each operator")
    parser.add_argument("--limit", type=float, default=20.0, help="how many times slower a kernel may be")
    parser.add_argument("--publish", action="store_true", help="write the tables into docs/benchmarks.md")
    arguments = parser.parse_args()
    packages = ["distort", "numpy", *(["onnxruntime"] if find_spec("onnxruntime") else [])]
    where = machine(packages)
    flop_peak, copying = peak_gflop_per_s(), Copying()
    peaks = f"Peak of one core {flop_peak:.0f} GFLOP/s; copies "
    peaks += ", ".join(f"{copying.gb_per_s(size):.0f} GB/s at {size >> 10} KiB" for size in (1 << 16, 1 << 20, 1 << 26))
    print(f"{where}\n{peaks}\n", flush=True)
    rows: list[Row] = []
    for group, cases in groups().items():
        for case in cases:
            if re.search(arguments.only, case.name):
                one = measured(case, group, arguments.threads, arguments.seconds, flop_peak, copying)
                rows.append(one)
                print(f"| {' | '.join(one.cells())} |", flush=True)
    ratios = [row.rival_ms / row.ms for row in rows if row.rival_ms is not None]
    told = []
    if ratios:
        mean = statistics.geometric_mean(ratios)
        of = f"over {len(ratios)} kernels at {arguments.threads} thread(s)"
        told.append(f"against onnxruntime: geometric mean {mean:.2f}, lowest {min(ratios):.2f}, {of}")
    told += shares(rows)
    text = "\n".join(f"- {line}" for line in told)
    print(f"\n{text}")
    if arguments.publish:
        columns = ["operator", "distort ms", "onnxruntime ms", "ratio", "rate of the kernel", "share of the peak"]
        every = table(columns, [row.cells() for row in rows])
        folded = f"<details>\n<summary>All of them</summary>\n\n{every}\n\n</details>"
        publish("docs/benchmarks.md", "kernels", f"{where}. {peaks}.\n\n{text}\n\n{folded}")
    limit = arguments.limit
    slow = [row for row in rows if row.rival_ms is not None and row.ms > limit * row.rival_ms]
    if slow:
        sys.exit("\n".join(f"{row.name}: {row.ms / (row.rival_ms or 1):.1f} times slower" for row in slow))


if __name__ == "__main__":
    main()
