"""torch.compile on the same graphs, in half precision: each model in a process of its own, for compiling takes long."""

from __future__ import annotations

import time

from gpu_checks.arrays import median_s, torch_on
from gpu_checks.models import BATCHES, Ours, case_of, decoding, runner
from gpu_checks.report import FIGURE, Report, Skipped

_SECONDS = 0.5


def run(report: Report, name: str) -> None:
    torch, device = torch_on()
    from gpu_checks.torch_graph import TorchGraph, tensor_of

    dtype = "float32" if report.small else "float16"
    for batch, mode in ((1, "reduce-overhead"), (2 if report.small else BATCHES[name], "default")):
        what = f"{name} {dtype} batch {batch}, compiled ({mode})"
        with report.part(what):
            if report.left_s < 20 and not report.small:
                raise Skipped("no time left")
            case = decoding(case_of(report, name, dtype, batch))
            ours = Ours(case)
            ours_ms = 1e3 * median_s(ours.run, _SECONDS)
            module = TorchGraph(case.model, case.feeds, device).eval()
            tensors = [tensor_of(case.feeds[one]).to(device) for one in module.inputs]
            torch._dynamo.reset()
            run_compiled = runner(torch.compile(module, mode=mode, dynamic=False), tensors, device)
            began = time.perf_counter()
            run_compiled()
            compile_s = time.perf_counter() - began
            ms = 1e3 * median_s(run_compiled, _SECONDS)
            figure = f"{ours_ms:.3f} ms; torch {ms:.3f} ms ({ms / ours_ms:.2f}) after {compile_s:.0f} s of compiling"
            report.add(what, FIGURE, figure, ms={"ours": ours_ms, "compiled": ms}, compile_s=compile_s)
