"""``python -m distort.kernels.ops`` writes index.py anew, after kernels were added or moved."""

from __future__ import annotations

from pathlib import Path

from distort.kernels.ops import families
from distort.kernels.registry import registered

_HEAD = '''"""Which family holds an operator: written by ``python -m distort.kernels.ops``, and checked by a test."""

from __future__ import annotations

# fmt: off
#: family -> domain -> operators
FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
'''
_TAIL = """}

MODULE_OF: dict[tuple[str, str], str] = {
    (domain, op_type): family
    for family, domains in FAMILIES.items()
    for domain, op_types in domains.items()
    for op_type in op_types
}
"""


def index_text() -> str:
    """The content that index.py should have."""
    found: dict[str, dict[str, set[str]]] = {family: {} for family in families()}
    for kernel in registered():
        family = kernel.module.rpartition(".")[2]
        if family in found:
            found[family].setdefault(kernel.domain, set()).add(kernel.op_type)
    lines = []
    for family, domains in found.items():
        if not domains:
            continue
        lines.append(f'    "{family}": {{\n')
        for domain in sorted(domains):
            lines.append(f'        "{domain}": (\n')
            lines += [f'            "{op_type}",\n' for op_type in sorted(domains[domain])]
            lines.append("        ),\n")
        lines.append("    },\n")
    return _HEAD + "".join(lines) + _TAIL


if __name__ == "__main__":
    Path(__file__).with_name("index.py").write_text(index_text())
