"""OpSchema: what the ONNX standard says of each operator's versions."""

from __future__ import annotations

from typing import Any

from distort.graph.onnx_parts import native


def __getattr__(name: str) -> Any:
    if name == "OpSchema":
        return native().defs.OpSchema
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_all_operator_schema() -> list[Any]:
    """Schemas of the standard, all versions, and names and versions of the other operators that run here."""
    from distort.kernels import registry

    found = list(native().defs.get_all_schemas_with_history())
    known = {(schema.domain, schema.name) for schema in found}
    for entry in registry.registered():
        if (entry.domain, entry.op_type) not in known:
            known.add((entry.domain, entry.op_type))
            found.append(native().defs.OpSchema(entry.op_type, entry.domain, entry.since))
    return found
