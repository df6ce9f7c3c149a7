"""What is installed: the list of packages, their data, and a wheel that works by itself."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import distort

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("distort", "kernels", "scheduler", "cluster")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def installed_name(path: Path) -> str:
    """Where a file of the four folders is installed: kernels/ops/cast.py -> distort/kernels/ops/cast.py."""
    relative = path.relative_to(ROOT)
    return str(relative if relative.parts[0] == "distort" else Path("distort") / relative)


def tree(pattern: str) -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob(pattern)) if path.is_file()]


def package_of(path: Path) -> str:
    return ".".join(Path(installed_name(path)).parent.parts)


def test_every_folder_with_modules_is_a_listed_package() -> None:
    found = {package_of(path) for path in tree("*.py")}
    assert len(SETUPTOOLS["packages"]) == len(set(SETUPTOOLS["packages"]))
    assert set(SETUPTOOLS["packages"]) == found


def test_every_package_has_an_init() -> None:
    folders = {path.parent for path in tree("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_the_four_folders_are_mapped() -> None:
    mapped = {folder: package for package, folder in SETUPTOOLS["package-dir"].items()}
    assert mapped == {"distort": "distort", **{folder: f"distort.{folder}" for folder in FOLDERS[1:]}}


def test_every_data_file_is_listed() -> None:
    data = SETUPTOOLS["package-data"]
    left_out = [
        str(path)
        for path in tree("*")
        if path.suffix not in (".py", ".pyc")
        and not any(fnmatch.fnmatch(path.name, pattern) for pattern in data.get(package_of(path), ()))
    ]
    assert not left_out


def test_one_version() -> None:
    assert distort.__version__ == PROJECT["project"]["version"]
    assert f"## {distort.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_command_is_there() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="distort")
    assert entry.value == PROJECT["project"]["scripts"]["distort"]
    assert callable(entry.load())


def setuptools_builds() -> bool:
    """Whether the setuptools that is installed is one that the project builds with."""
    try:
        return int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout gains no build folder."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(copy)]
    if setuptools_builds():
        command.append("--no-build-isolation")
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("distort-*.whl")
    return built


@pytest.mark.slow
def test_a_wheel_holds_the_tree(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {installed_name(path) for path in tree("*") if path.suffix != ".pyc"}
    assert held == expected


_SCRIPT = """
import importlib, json, pkgutil, sys
import distort
names = [found.name for found in pkgutil.walk_packages(distort.__path__, "distort.")]
names = [name for name in names if not name.startswith("distort.backend") and not name.endswith("__main__")]
places = {name: importlib.import_module(name).__file__ for name in names}
places["distort"] = distort.__file__
from distort.cli import digits, main
session = distort.InferenceSession(digits.model())
assert session.run(None, {"image": digits.held_out().images[:2]})[0].shape == (2, 10)
assert main(["plan", sys.argv[1], "--actors", "2", "--json"]) == 0
print(json.dumps(places), file=sys.stderr)
"""


@pytest.mark.slow
def test_a_wheel_works_by_itself(wheel: Path, tmp_path: Path) -> None:
    """Unpacked and imported, from a folder that is not the checkout, with this environment's other packages."""
    import json

    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    path = os.pathsep.join([str(site), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    # -S: no .pth files, and so no editable install of the checkout
    command = [sys.executable, "-S", "-P", "-c", _SCRIPT, str(site / "distort" / "cli" / "digits.onnx")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env={"PYTHONPATH": path}, check=False
    )
    assert done.returncode == 0, done.stderr
    places = json.loads(done.stderr.splitlines()[-1])
    assert {"distort.kernels.ops.cast", "distort.scheduler.plan", "distort.cluster.executor"} <= set(places)
    assert not [name for name, place in places.items() if not place.startswith(str(site))]
