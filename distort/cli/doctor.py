"""Say what this installation has, what it lacks, and the command that adds it.

Exit code 1 where something is missing that distort can't do without.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from distort.cli import console, installed, machine
from distort.cli.errors import FAILED, OK

#: Ray falls back to files, or refuses, below this
_LEAST_SHARED_MEMORY_NBYTES = 80 * 1024 * 1024
HERE, MISSING, OPTIONAL = "ok", "missing", "not here"
_PURPOSE = {
    "test": "the tests",
    "dev": "changing distort",
    "image": "the operator ImageDecoder",
    "compat": "the tests with libraries that import onnxruntime",
    "bench": "comparing with onnxruntime",
    "cuda12": "NVIDIA GPUs, CUDA 12",
    "cuda13": "NVIDIA GPUs, CUDA 13",
}


@dataclass(frozen=True, slots=True)
class Finding:
    section: str
    what: str
    state: str  # HERE, MISSING (distort can't do without), OPTIONAL
    detail: str
    remedy: str = ""  # a command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--start-ray", action="store_true", help="also start an embedded Ray cluster, and time it")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    with console.progress("looking"):
        findings = list(examine(arguments.start_ray))
    if arguments.json:
        fields = ("section", "what", "state", "detail", "remedy")
        console.print_json([{name: getattr(finding, name) for name in fields} for finding in findings])
    else:
        _show(findings)
    return FAILED if any(finding.state == MISSING for finding in findings) else OK


def examine(start_ray: bool = False) -> Iterator[Finding]:
    from distort import __version__

    yield Finding("distort", f"distort {__version__}", HERE, os.path.dirname(os.path.dirname(__file__)))
    yield Finding("distort", f"Python {platform.python_version()}", HERE, f"{sys.executable}, {platform.platform()}")
    wanted = installed.packages()
    if wanted is None:
        yield Finding("distort", "package", MISSING, "not installed; run from the checkout", "pip install -e .")
        wanted = {}
    for package in wanted.get("", ()):
        state = HERE if package.satisfied else MISSING
        remedy = "" if package.satisfied else f"pip install '{package.name}{package.specifier}'"
        yield Finding("packages", package.name, state, package.text, remedy)
    yield from _devices()
    yield from _providers()
    yield from _ray(start_ray)
    for extra, packages in wanted.items():
        if extra:
            yield _extra(extra, packages)


def _devices() -> Iterator[Finding]:
    from distort.scheduler.device import format_nbytes

    cores = machine.n_cores()
    yield Finding("devices", "cpu", HERE, f"{cores} core{'s' * (cores != 1)}, {format_nbytes(machine.memory_nbytes())}")
    cuda = machine.cuda()
    if cuda is None:
        yield Finding("devices", "cuda", OPTIONAL, "no NVIDIA driver (libcuda.so.1)")
        return
    major, minor = cuda.version
    gpus = cuda.gpus()
    if not gpus:
        yield Finding("devices", "cuda", OPTIONAL, f"the driver (CUDA {major}.{minor}) shows no GPU")
    for gpu in gpus:
        detail = f"{gpu.name}, {format_nbytes(gpu.memory_nbytes)}, driver for CUDA {major}.{minor}"
        yield Finding("devices", f"cuda:{gpu.index}", HERE, detail)


def _providers() -> Iterator[Finding]:
    try:
        import numpy
    except ModuleNotFoundError:
        return
    from distort import providers
    from distort.kernels.cuda import device

    yield Finding("providers", providers.CPU, HERE, f"numpy {numpy.__version__}, {_blas()}")
    obstacle = device.obstacle()
    if obstacle is not None:
        yield Finding("providers", providers.CUDA, OPTIONAL, str(obstacle), obstacle.command)
        return
    import cupy

    found = [device.properties(index) for index in range(device.count())]
    gpus = ", ".join(f"{gpu.name} (compute capability {'.'.join(map(str, gpu.capability))})" for gpu in found)
    yield Finding("providers", providers.CUDA, HERE, f"cupy {cupy.__version__}, {gpus}")


def _blas() -> str:
    """Which BLAS numpy multiplies with, and by how many threads."""
    try:
        from threadpoolctl import threadpool_info  # type: ignore[import-untyped]  # it has no types
    except ModuleNotFoundError:
        return "BLAS not known"
    for library in threadpool_info():
        if library["user_api"] == "blas":
            return f"{library['internal_api']} {library['version'] or ''} with {library['num_threads']} threads"
    return "BLAS not known"


def _ray(start: bool) -> Iterator[Finding]:
    from distort.scheduler.device import format_nbytes

    free = machine.shared_memory_nbytes()
    if free is None or free < _LEAST_SHARED_MEMORY_NBYTES:
        detail = "none" if free is None else f"{format_nbytes(free)} free, Ray's object store wants 80 MiB or more"
        yield Finding("ray", "/dev/shm", MISSING, detail, "mount -o remount,size=2G /dev/shm")
    else:
        yield Finding("ray", "/dev/shm", HERE, f"{format_nbytes(free)} free")
    try:
        import ray
    except ImportError as error:
        yield Finding("ray", "import", MISSING, str(error), "pip install ray")
        return
    yield Finding("ray", "import", HERE, f"ray {ray.__version__}")
    address = os.environ.get("RAY_ADDRESS")
    if address:
        yield Finding("ray", "RAY_ADDRESS", HERE, f"{address}; sessions use it with distort.address = {address}")
    if start:
        yield _started()


def _started() -> Finding:
    from distort.cluster.errors import ClusterError
    from distort.cluster.resources import attach

    began = time.perf_counter()
    try:
        connection = attach()
    except ClusterError as error:
        return Finding("ray", "embedded cluster", MISSING, error.text)
    seconds = time.perf_counter() - began
    return Finding("ray", "embedded cluster", HERE, f"{connection.n_cpus:g} CPUs, started in {seconds:.1f} s")


def _extra(extra: str, packages: list[installed.Wanted]) -> Finding:
    purpose = _PURPOSE.get(extra, "")
    missing = [package for package in packages if not package.satisfied]
    detail = f"for {purpose}: {', '.join(package.text for package in missing or packages)}"
    if missing:
        return Finding("extras", extra, OPTIONAL, detail, f"pip install 'distort[{extra}]'")
    return Finding("extras", extra, HERE, detail)


def _show(findings: list[Finding]) -> None:
    screen = console.Screen()
    for section in dict.fromkeys(finding.section for finding in findings):
        screen.heading(section.capitalize())
        rows = [(f.what, f.state, f.detail) for f in findings if f.section == section]
        screen.table(("what", "state", "detail"), rows)
    remedies = {finding.remedy: finding for finding in findings if finding.remedy}
    if remedies:
        screen.heading("What adds what is missing")
        screen.table(("command", "adds"), [(command, f"{f.section}: {f.what}") for command, f in remedies.items()])
