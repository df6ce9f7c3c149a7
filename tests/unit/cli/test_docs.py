"""What the documents say is there: commands, links, paths, and code that runs."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import onnx.parser
import pytest

from distort.cli import make_parser
from distort.options import DISTORT_KEYS

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/usage.md", "docs/architecture.md")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
MODEL = '<ir_version: 10, opset_import: ["" : 21]> g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }'


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (document, text)
        for document in DOCUMENTS
        for kind, text in _BLOCK.findall((ROOT / document).read_text())
        if kind == language
    ]


COMMANDS = [
    (document, part.strip())
    for document, text in blocks("sh")
    for line in text.splitlines()
    for part in line.split("&&")
]
PYTHON = blocks("python")


def test_there_is_something_to_look_at() -> None:
    said = {command for _, command in COMMANDS}
    assert {"distort demo", "pip install -e .", "pip install -e '.[test]'", "pytest"} <= said
    assert len(PYTHON) >= 4


@pytest.mark.parametrize(("document", "command"), [c for c in COMMANDS if c[1].startswith("distort ")])
def test_commands_are_ones_that_the_parser_takes(document: str, command: str) -> None:
    arguments = make_parser().parse_args(shlex.split(command)[1:])
    assert callable(arguments.run)


@pytest.mark.parametrize(("document", "command"), [c for c in COMMANDS if c[1].startswith("pip ")])
def test_extras_exist(document: str, command: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in re.findall(r"\[(\w+)\]", command):
        assert extra in project["optional-dependencies"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or ((ROOT / document).parent / target).exists(), target
    for path in re.findall(r"`((?:tests|benchmarks|docs|examples|\.ci)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


def test_every_key_that_is_documented_is_known() -> None:
    documented = set(re.findall(r"`distort\.(\w+)` \|", (ROOT / "docs/usage.md").read_text()))
    assert documented and documented <= set(DISTORT_KEYS)


@pytest.mark.parametrize(("document", "code"), PYTHON)
def test_code_runs(document: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs actors is in tests/local; what needs a cluster is compiled."""
    compiled = compile(code, document, "exec")
    if "ORT_PARALLEL" in code or "InferenceSession" not in code:
        return
    (tmp_path / "model.onnx").write_bytes(onnx.parser.parse_model(MODEL).SerializeToString())
    monkeypatch.chdir(tmp_path)
    exec(compiled, {})


def test_the_tree_is_the_tree() -> None:
    """Every module that the page names exists, and every folder with modules is on it."""
    (tree,) = [text for document, text in blocks("") if document == "docs/architecture.md"]
    folders: list[tuple[int, Path]] = []
    named: set[Path] = set()
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        folders = [item for item in folders if item[0] < indent]
        parent = folders[-1][1] if folders else ROOT
        paths = [parent / word for word in re.split(r"\s{2,}", line.strip())[0].split()]
        missing = [path for path in paths if not path.exists()]
        assert not missing
        named.update(paths)
        if len(paths) == 1 and paths[0].is_dir():
            folders.append((indent, paths[0]))
    parts = ("distort", "kernels", "scheduler", "cluster")
    packages = {path.parent for part in parts for path in (ROOT / part).rglob("__init__.py")}
    assert packages <= named
