"""Programs and sessions on the GPU, and what of a model isn't enqueued work."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx

CUDA = "CUDAExecutionProvider"


def program_of(model: onnx.ModelProto, **options: Any) -> Any:
    from distort.engine import load_model
    from distort.graph.inference import infer
    from distort.kernels.cuda.options import CudaOptions
    from distort.kernels.cuda.program import CudaProgram

    loaded = load_model(model.SerializeToString())
    infer(loaded)
    return CudaProgram(loaded.graph, CudaOptions.read({name: str(value) for name, value in options.items()}))


def reference_of(model: onnx.ModelProto) -> Any:
    """The same by NumPy kernels, node by node."""
    from distort.engine import load_model
    from distort.graph.inference import infer
    from distort.kernels.program import Program

    loaded = load_model(model.SerializeToString())
    infer(loaded)
    return Program(loaded.graph)


def context_of(**options: str) -> Any:
    """A GPU with its libraries. Raises RuntimeError where one can't be opened."""
    from distort.kernels.cuda.context import Context
    from distort.kernels.cuda.options import CudaOptions

    context = Context(CudaOptions.read(options))
    libraries = context.libraries
    if libraries.products is None or libraries.networks is None:
        raise RuntimeError("; ".join(libraries.missing.values()))
    return context


def session_of(model: onnx.ModelProto | str, **options: Any) -> Any:
    """A session on the first GPU, which doesn't fall back to the CPU. ``model``: or its path."""
    import distort

    made = distort.SessionOptions()
    made.log_severity_level = 3
    given = model if isinstance(model, str) else model.SerializeToString()
    chosen = {"device_id": "0", **{name: str(value) for name, value in options.items()}}
    session = distort.InferenceSession(given, made, providers=[(CUDA, chosen)], enable_fallback=0)
    if CUDA not in session.get_providers():
        from distort.kernels.cuda import device

        raise RuntimeError(
            f"the session is on {session.get_providers()}: {device.why_not() or 'though there is a GPU'}"
        )
    return session


def program_in(session: Any) -> Any:
    return session._sess._loaded.engine.gpu


def obstacles(program: Any) -> str:
    """What keeps the last plan from being one launch of a graph: operators whose bodies run by themselves."""
    refused = list(dict.fromkeys(program.refused.values()))
    if refused:
        return f"no plan: {refused[0]}"
    if not program.plans:
        return "no plan"
    plan = program.plans[-1][1]
    hosts = Counter(step.host.node.op_type for step in plan.steps if step.host is not None)
    on_cpu = Counter(node.op_type for node, _ in program.nodes.on_cpu)
    told = [f"over CuPy {_listed(hosts)}"] if hosts else []
    told += [f"of them on the CPU {_listed(on_cpu)}"] if on_cpu else []
    return ", ".join(told)


def _listed(counts: Counter[str]) -> str:
    return " ".join(f"{name}×{n}" for name, n in counts.most_common(6))


def steps_of(program: Any) -> dict[str, int]:
    """How many steps of the last plan are kernels, libraries' work, bodies."""
    if not program.plans:
        return {}
    steps = program.plans[-1][1].steps
    return {
        "launches": sum(len(step.launches) for step in steps),
        "library calls": sum(step.library is not None for step in steps),
        "bodies": sum(step.host is not None for step in steps),
    }
