"""What a node needs to run stages, whether it has it, and how it gets it.

Every node that is to host an actor is asked once a process, by a task that needs nothing but Python there. distort
itself is sent along (as ``py_modules`` of the actors' runtime environment) to nodes that lack it or have another; what
it depends on must be there, or come with ``distort.runtime_env``.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from distort.cluster.errors import ClusterError, first_line
from distort.cluster.nodes import Node

#: how long a node may take to answer; a runtime environment may have packages to install
ASK_TIMEOUT_S = 120.0
#: folders of the installed package
PARTS = ("distort", "distort.kernels", "distort.scheduler", "distort.cluster")
#: packages that a stage imports, and what to say if the installed metadata is not there
NEEDED = {"numpy": ">=2.1", "onnx": ">=1.19", "ml_dtypes": ">=0.5.1", "threadpoolctl": ">=3.5"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a Python has."""

    python: str
    versions: Mapping[str, str]  # package -> version; those that are missing are not in it
    digest: str  # of distort's source; "" where it is missing


@dataclass(slots=True)
class _Known:
    """What this process found out; a cluster's nodes don't change their packages while it runs programs."""

    connection: str = ""  # of which cluster
    shipped: str = ""  # where distort was uploaded to
    ready: set[tuple[str, str]] = field(default_factory=set)  # node, runtime environment
    lock: threading.Lock = field(default_factory=threading.Lock)


_known = _Known()


def prepare(nodes: Sequence[Node], runtime_env: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The runtime environment for actors on these nodes: ``runtime_env``, with distort in it where a node lacks it.

    Local folders in it are uploaded. Raises :class:`ClusterError` naming each node, package, version and remedy.
    """
    ray: Any = import_module("ray")
    wanted = _uploaded(dict(runtime_env or {}))
    with _known.lock:
        job = ray.get_runtime_context().get_job_id()
        if _known.connection != job:
            _known.connection, _known.shipped = job, ""
            _known.ready.clear()
        own = report(PARTS, tuple(NEEDED))
        unknown = [node for node in nodes if (node.node_id, repr(wanted)) not in _known.ready]
        told = _ask(ray, unknown, wanted)
        if _known.shipped or any(facts.digest != own.digest for facts in told.values()):
            _known.shipped = _known.shipped or _ship()
            wanted = {**wanted, "py_modules": [*wanted.get("py_modules", ()), _known.shipped]}
            # a node that had all it needs is asked again: its actors, too, will run what is sent
            unknown = [node for node in nodes if (node.node_id, repr(wanted)) not in _known.ready]
            told = {**told, **_ask(ray, unknown, wanted)}
        lacking = [text for node in unknown for text in lacks(node, told[node.node_id], own)]
        if lacking:
            raise ClusterError(" ".join(lacking))
        _known.ready.update((node.node_id, repr(wanted)) for node in unknown)
    return wanted


def lacks(node: Node, has: Facts, own: Facts) -> list[str]:
    """What a node lacks, a sentence each."""
    name = f"Node {node.host} ({node.address})"
    found = []
    if has.python.split(".")[:2] != own.python.split(".")[:2]:
        found.append(f"{name} has Python {has.python}, and this process {own.python}: start it with the same.")
    for package, specifier in _specifiers().items():
        version = has.versions.get(package)
        if version is not None and _satisfies(version, specifier):
            continue
        here = f"{package} {own.versions.get(package, 'missing')}"
        state = f"lacks {package}" if version is None else f"has {package} {version}"
        found.append(
            f"{name} {state}, and stages want {specifier} (here: {here}): install it there, or set distort.runtime_env "
            f'to {{"pip": ["{package}{specifier}"]}}.'
        )
    if not found and has.digest != own.digest:
        state = "another distort" if has.digest else "no distort"
        found.append(
            f"{name} has {state}, and could not be sent this one: install distort "
            f"{own.versions.get('distort', '')} there."
        )
    return found


def _specifiers() -> dict[str, str]:
    """What the installed distort asks for, of what stages import."""
    found = dict(NEEDED)
    try:
        texts = requires("distort") or ()
    except PackageNotFoundError:
        return found
    for text in texts:
        requirement = text.partition(";")[0].strip()
        for name in NEEDED:
            rest = requirement.removeprefix(name)
            if rest != requirement and rest[:1] in "<>=!~" and "extra" not in text:
                found[name] = rest
    return found


def _satisfies(version: str, specifier: str) -> bool:
    try:
        specifiers: Any = import_module("packaging.specifiers")
    except ModuleNotFoundError:  # comes with Ray
        return True
    return bool(specifiers.SpecifierSet(specifier).contains(version, prereleases=True))


def report(parts: Sequence[str], packages: Sequence[str]) -> Facts:
    """Facts of the Python that runs this; a node gets :func:`_report` by value and need not have distort."""
    return Facts(*_report(parts, packages))


def _report(parts: Sequence[str], packages: Sequence[str]) -> tuple[str, dict[str, str], str]:
    # travels without its module: whatever it names, it imports
    import hashlib
    import importlib.metadata
    import importlib.util
    import pathlib
    import platform

    versions = {}
    for name in (*packages, "distort", "ray"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    digest = hashlib.sha256()
    for part in parts:
        try:
            spec = importlib.util.find_spec(part)
        except ModuleNotFoundError:
            spec = None
        if spec is None or not spec.origin:  # (a mere folder of that name has none)
            return platform.python_version(), versions, ""
        folder = pathlib.Path(spec.origin).parent
        inner = {other.rpartition(".")[2] for other in parts if other.startswith(part + ".")}
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            if relative.parts[0] not in inner:  # a wheel has those folders inside, a checkout beside it
                digest.update(f"{part}/{relative.as_posix()}\0".encode() + path.read_bytes())
    return platform.python_version(), versions, digest.hexdigest()


def _ask(ray: Any, nodes: Sequence[Node], runtime_env: Mapping[str, Any]) -> dict[str, Facts]:
    """Facts by node id."""
    if not nodes:
        return {}
    strategies: Any = import_module("ray.util.scheduling_strategies")
    task = ray.remote(num_cpus=0, max_retries=0, runtime_env=dict(runtime_env) or None)(_by_value(_report))
    asked = {
        node.node_id: task.options(
            scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        ).remote(PARTS, tuple(NEEDED))
        for node in nodes
    }
    told = {}
    for node in nodes:
        try:
            told[node.node_id] = Facts(*ray.get(asked[node.node_id], timeout=ASK_TIMEOUT_S))
        except ray.exceptions.GetTimeoutError:
            raise ClusterError(
                f"Node {node.host} ({node.address}) did not say within {ASK_TIMEOUT_S:g} s what it has. Look at its "
                "raylet's logs, and at its free memory."
            ) from None
        except ray.exceptions.RayError as error:
            raise ClusterError(
                f"Node {node.host} ({node.address}) can't start a worker for stages: {first_line(error)}"
            ) from error
    return told


def _by_value(function: Any) -> Any:
    """The function as one of no module, which cloudpickle sends as its code."""
    types: Any = import_module("types")
    copy = types.FunctionType(function.__code__, {"__builtins__": __builtins__}, function.__name__)
    copy.__module__ = "__main__"
    return copy


def _uploaded(runtime_env: dict[str, Any]) -> dict[str, Any]:
    """Local folders replaced by where Ray's own upload put them: actors' environments take addresses only."""
    if not any(key in runtime_env for key in ("working_dir", "py_modules")):
        return runtime_env
    modules: Any = import_module("ray._private.runtime_env.py_modules")
    folders: Any = import_module("ray._private.runtime_env.working_dir")
    with tempfile.TemporaryDirectory(prefix="distort-upload-") as scratch:
        try:
            runtime_env = modules.upload_py_modules_if_needed(runtime_env, True, scratch)
            return dict(folders.upload_working_dir_if_needed(runtime_env, True, scratch))
        except (ValueError, TypeError, OSError) as error:
            raise ClusterError(f"distort.runtime_env: {error}") from error


def _ship() -> str:
    """Upload distort as it is here; returns Ray's address of it."""
    with tempfile.TemporaryDirectory(prefix="distort-upload-") as scratch:
        package = Path(scratch) / "distort"
        for part in PARTS:
            folder = Path(str(import_module(part).__file__)).parent
            target = package.joinpath(*part.split(".")[1:])
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        (uploaded,) = _uploaded({"py_modules": [str(package)]})["py_modules"]
    return str(uploaded)
