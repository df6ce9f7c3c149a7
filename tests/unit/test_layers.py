"""Imports point one way, nothing imports a rival, and what is slow to import is imported when it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx.parser
import pytest

ROOT = Path(__file__).resolve().parents[2]
#: what is installed as what
FOLDERS = {
    "distort": "distort",
    "kernels": "distort.kernels",
    "scheduler": "distort.scheduler",
    "cluster": "distort.cluster",
}
#: layer -> layers that it may import
LAYERS = {
    "graph": {"graph"},
    "kernels": {"graph", "kernels"},
    "scheduler": {"graph", "scheduler"},
    "cluster": {"graph", "kernels", "scheduler", "cluster"},
    "facade": {"graph", "kernels", "scheduler", "cluster", "facade"},
}
#: never, anywhere in the runtime
RIVALS = ("onnxruntime", "torch", "tensorflow", "jax", "onnx.reference")
#: not when a module is imported
LAZY = ("ray", "cupy", "llvmlite", "rich", "onnx", "threadpoolctl")
#: modules of an API that is the onnx package's own, which nothing of ours imports
ONNX_USERS = ("distort.backend", "distort.backend.backend", "distort.backend.backend_rep")


@dataclass(frozen=True)
class Import:
    module: str  # who
    name: str  # what, as an absolute name
    line: int
    at_import: bool  # not inside a function, nor for type checking alone


def modules() -> Iterator[tuple[str, Path]]:
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


def imports(module: str, path: Path) -> Iterator[Import]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def names(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            start = ".".join(part for part in (base, node.module) if part)
            # "from package import name" may import a module of the package
            yield from (f"{start}.{alias.name}" for alias in node.names)

    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            yield from (Import(module, name, child.lineno, at_import) for name in names(child))
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from walk(child, at_import and not inside and not typing_only)

    yield from walk(ast.parse(path.read_text()), True)


ALL = [item for module, path in modules() for item in imports(module, path)]


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer(name: str) -> str:
    for known in ("graph", "kernels", "scheduler", "cluster"):
        if within(name, f"distort.{known}"):
            return known
    return "facade"


def said(found: list[Import]) -> str:
    return "\n".join(f"{item.module}:{item.line} imports {item.name}" for item in found)


def test_there_is_something_to_look_at() -> None:
    names = {module for module, _ in modules()}
    assert names >= {
        "distort.graph.ir",
        "distort.kernels.program",
        "distort.scheduler.plan",
        "distort.cluster.executor",
    }
    assert any(item.name == "distort.graph.ir.Graph" and item.module == "distort.scheduler.plan" for item in ALL)


def test_imports_point_one_way() -> None:
    wrong = [i for i in ALL if within(i.name, "distort") and layer(i.name) not in LAYERS[layer(i.module)]]
    assert not wrong, said(wrong)


def test_the_bare_folders_are_never_imported() -> None:
    wrong = [i for i in ALL if i.name.split(".")[0] in ("kernels", "scheduler", "cluster")]
    assert not wrong, said(wrong)


def test_no_rival_is_imported() -> None:
    wrong = [i for i in ALL for rival in RIVALS if within(i.name, rival)]
    assert not wrong, said(wrong)


def test_slow_packages_are_imported_when_they_are_needed() -> None:
    wrong = [
        i
        for i in ALL
        if i.at_import and i.module not in ONNX_USERS and any(within(i.name, package) for package in LAZY)
    ]
    assert not wrong, said(wrong)


def test_the_modules_that_import_onnx_are_imported_by_nothing() -> None:
    wrong = [
        i
        for i in ALL
        if i.at_import and i.module not in ONNX_USERS and any(within(i.name, user) for user in ONNX_USERS)
    ]
    assert not wrong, said(wrong)


def test_the_scheduler_is_pure() -> None:
    """No clock, no randomness, no files, no processes: what it needs to know is an argument."""
    impure = (
        "time",
        "random",
        "secrets",
        "os",
        "pathlib",
        "io",
        "socket",
        "subprocess",
        "threading",
        "asyncio",
        "uuid",
    )
    wrong = [i for i in ALL if layer(i.module) == "scheduler" and i.name.split(".")[0] in impure]
    assert not wrong, said(wrong)


_SCRIPT = """
import json, sys
loaded = []
import distort
loaded.append(sorted(sys.modules))
import numpy
session = distort.InferenceSession(open(sys.argv[1], "rb").read())
loaded.append(sorted(sys.modules))
session.run(None, {"x": numpy.ones((2, 3), numpy.float32)})
loaded.append(sorted(sys.modules))
print(json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> list[set[str]]:
    """Modules there after ``import distort``, after a session was made, and after its first run."""
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    text = (
        '<ir_version: 10, opset_import: ["" : 21]> g (float[N,3] x) => (float[N,3] y) { a = Relu(x)  y = Softmax(a) }'
    )
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    command = [sys.executable, "-c", _SCRIPT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [set(names) for names in json.loads(done.stdout)]


def test_importing_distort_imports_most_of_what_a_session_needs(loaded: list[set[str]]) -> None:
    """What is left is its operators' own, and what prints kernels that aren't on the disk yet."""
    late = {name for name in loaded[1] - loaded[0] if within(name, "distort")}
    assert all(name.startswith(("distort.kernels.ops.", "distort.kernels.compiler.")) for name in late), late
    assert len({name for name in late if ".codegen." not in name}) < 10


@pytest.mark.parametrize("package", ["ray", "cupy", "onnx", "rich", "distort.cluster", "distort.scheduler"])
@pytest.mark.parametrize("moment", [0, 1, 2], ids=["import", "session", "run"])
def test_a_sequential_session_imports_none_of(loaded: list[set[str]], moment: int, package: str) -> None:
    assert package not in loaded[moment]
