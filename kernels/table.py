"""``python -m distort.kernels.table`` writes docs/operators.md: every version of every operator, and what runs it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from distort.graph.onnx_parts import native
from distort.kernels.compiler.account import has_code
from distort.kernels.registry import Kernel, find, registered

_DOMAINS = {
    "": "ai.onnx",
    "ai.onnx.ml": "ai.onnx.ml",
    "ai.onnx.preview.training": "ai.onnx.preview.training",
    "ai.onnx.preview": "ai.onnx.preview",
}
_HEAD = """# Operators

Every version of every operator of onnx's domains, and what runs it. `python -m distort.kernels.table`
writes it; a test holds it against the registry.

*CPU kernel* is the module and function beneath `kernels/ops/`. *GPU body*: `common` is the same function over cupy,
`own` one for the GPU alone, `host` one over numpy whose inputs and outputs travel. *Compiled*: whether the
CPU compiler has code for it; nodes with odd attributes or types go to the CPU kernel all the same. *body* stands for
operators that are run by the function body that onnx defines, whose operators are in this table too.

"""


def schemas() -> dict[tuple[str, str], list[int]]:
    """(domain, operator) -> its versions, ascending."""
    found: dict[tuple[str, str], list[int]] = {}
    for schema in native().defs.get_all_schemas_with_history():
        if schema.domain in _DOMAINS:
            found.setdefault((schema.domain, schema.name), []).append(int(schema.since_version))
    return {key: sorted(found[key]) for key in sorted(found)}


def has_body(domain: str, op_type: str, version: int) -> bool:
    schema = native().defs.get_schema(op_type, version, domain)
    return bool(schema.has_function or schema.has_context_dependent_function)


def _cpu(kernel: Kernel) -> str:
    return f"{kernel.module.rpartition('.')[2]}.{kernel.function.__name__}"


def _gpu(domain: str, op_type: str, version: int) -> str:
    kernel = find(domain, op_type, version, "cuda")
    return "" if kernel is None else "own" if kernel.device == "cuda" else "common"


def _compiled(domain: str, op_type: str) -> str:
    return "yes" if has_code(domain, op_type) else ""


def _cells(domain: str, op_type: str, version: int) -> tuple[str, str, str]:
    kernel = find(domain, op_type, version)
    if kernel is not None:
        return f"`{_cpu(kernel)}`", _gpu(domain, op_type, version) or "host", _compiled(domain, op_type)
    if op_type == "Gradient":
        return "nodes of the derivative", "as they are", ""
    return ("body", "as its nodes", "") if has_body(domain, op_type, version) else ("missing", "missing", "")


def _lines(domain: str) -> Iterator[str]:
    yield "| operator | version | CPU kernel | GPU body | compiled |\n|---|---|---|---|---|\n"
    for (of, op_type), versions in schemas().items():
        if of == domain:
            for version in versions:
                cpu, gpu, compiled = _cells(domain, op_type, version)
                yield f"| {op_type} | {version} | {cpu} | {gpu} | {compiled} |\n"


def _others() -> Iterator[str]:
    """Operators that onnx has no schema of."""
    known = schemas()
    yield "| operator | CPU kernel | GPU body | compiled |\n|---|---|---|---|\n"
    ours = (kernel for kernel in registered() if kernel.module.startswith("distort.kernels.ops."))
    names = {(kernel.domain, kernel.op_type) for kernel in ours}.difference(known)
    for domain, op_type in sorted(names):
        kernel = find(domain, op_type, 1)
        if kernel is not None:
            gpu = _gpu(domain, op_type, 1) or "host"
            yield f"| {domain or 'ai.onnx'}.{op_type} | `{_cpu(kernel)}` | {gpu} | {_compiled(domain, op_type)} |\n"


def table_text() -> str:
    """The content that docs/operators.md should have."""
    parts = [_HEAD]
    for domain, title in _DOMAINS.items():
        parts += [f"## {title}\n\n", *_lines(domain), "\n"]
    parts += ["## onnxruntime's\n\n", *_others()]
    return "".join(parts)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "docs" / "operators.md"
    target.write_text(table_text())
