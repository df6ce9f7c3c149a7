"""KernelDef: which versions and types of an operator have a kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distort import providers
from distort.graph import onnx_parts
from distort.native.base import Made

_OPEN_END = 2**31 - 1


class KernelDef(Made):
    """An operator that a provider runs: name, domain, first and last version, types by constraint."""

    _fields: tuple[str, str, tuple[int, int], str, dict[str, list[str]]]

    @property
    def op_name(self) -> str:
        return self._fields[0]

    @property
    def domain(self) -> str:
        return self._fields[1]

    @property
    def version_range(self) -> tuple[int, int]:
        """The first and the last version."""
        return self._fields[2]

    @property
    def provider(self) -> str:
        return self._fields[3]

    @property
    def type_constraints(self) -> dict[str, list[str]]:
        """The types of each type parameter: those that the operator's schema allows."""
        return self._fields[4]


def _defined() -> Iterator[KernelDef]:
    from distort.kernels import registry

    by_operator: dict[tuple[str, str], list[Any]] = {}
    for schema in onnx_parts.native().defs.get_all_schemas_with_history():
        by_operator.setdefault((schema.domain, schema.name), []).append(schema)
    for (domain, name), versions in sorted(by_operator.items()):
        versions.sort(key=lambda schema: schema.since_version)
        for i, schema in enumerate(versions):
            if registry.find(domain, name, schema.since_version) is None:
                continue
            last = versions[i + 1].since_version - 1 if i + 1 < len(versions) else _OPEN_END
            types = {c.type_param_str: list(c.allowed_type_strs) for c in schema.type_constraints}
            yield _make(name, domain, (schema.since_version, last), types)
    for entry in registry.registered():
        if (entry.domain, entry.op_type) not in by_operator:
            yield _make(entry.op_type, entry.domain, (entry.since, _OPEN_END), {})


def _make(name: str, domain: str, versions: tuple[int, int], types: dict[str, list[str]]) -> KernelDef:
    made: KernelDef = KernelDef.__new__(KernelDef)
    made._fields = (name, domain, versions, providers.CPU, types)
    return made


def get_all_opkernel_def() -> list[KernelDef]:
    """Every operator version that runs here."""
    return list(_defined())


def get_registered_ep_kernel_defs(ep_name: str) -> list[KernelDef]:
    """Those of one provider. Raises RuntimeError for one that is not here."""
    if ep_name not in providers.available_providers():
        raise RuntimeError(
            f"No devices found for EP '{ep_name}'. Ensure the plugin EP library is registered via "
            "register_execution_provider_library()."
        )
    return list(_defined())
