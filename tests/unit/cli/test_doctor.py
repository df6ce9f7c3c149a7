"""``distort doctor``: what is there, what is missing, and the command that adds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pytest

from distort.cli import doctor, installed, machine

from .conftest import Ran

Distort = Callable[..., Ran]


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the metadata ask for these."""

    def ask(**extras: list[installed.Wanted]) -> None:
        found = {"" if extra == "required" else extra: wanted for extra, wanted in extras.items()}
        monkeypatch.setattr(installed, "packages", lambda: found)

    return ask


def by_what(ran: Ran) -> dict[tuple[str, str], dict]:
    return {(item["section"], item["what"]): item for item in json.loads(ran.out)}


def test_tells_what_is_here(distort: Distort) -> None:
    ran = distort("doctor", "--json")
    assert (ran.code, ran.err) == (0, "")
    found = by_what(ran)
    assert found["packages", "numpy"]["detail"] == f"numpy {np.__version__}"
    assert found["devices", "cpu"]["detail"].startswith(f"{machine.n_cores()} core")
    assert found["providers", "CPUExecutionProvider"]["state"] == "ok"
    assert found["ray", "import"]["detail"] == f"ray {version('ray')}"
    assert {what for section, what in found if section == "extras"} >= {"test", "dev", "bench", "cuda12", "cuda13"}


def test_a_missing_requirement_fails_with_its_command(distort: Distort, packages: Callable[..., None]) -> None:
    packages(required=[installed.Wanted("frobnicate", ">=2", None)])
    ran = distort("doctor", "--json")
    assert ran.code == 1
    finding = by_what(ran)["packages", "frobnicate"]
    assert finding["state"] == "missing" and finding["remedy"] == "pip install 'frobnicate>=2'"


def test_a_missing_extra_does_not_fail(distort: Distort, packages: Callable[..., None]) -> None:
    packages(required=[], fast=[installed.Wanted("frobnicate", ">=2", "1.0")])
    ran = distort("doctor")
    assert ran.code == 0
    assert "frobnicate 1.0, wanted >=2" in ran.out
    assert "pip install 'distort[fast]'  extras: fast" in ran.out


def test_little_shared_memory_is_missing(distort: Distort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "shared_memory_nbytes", lambda: 64 * 1024 * 1024)
    ran = distort("doctor", "--json")
    assert ran.code == 1
    assert "/dev/shm" in by_what(ran)["ray", "/dev/shm"]["remedy"]


def test_gpus_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        version = (12, 8)

        def gpus(self) -> list[machine.Gpu]:
            return [machine.Gpu(0, "Null 9000", 80 * 10**9)]

    monkeypatch.setattr(machine, "cuda", Driver)
    found = {finding.what: finding for finding in doctor.examine()}
    assert found["cuda:0"].detail == "Null 9000, 80 GB, driver for CUDA 12.8"


@pytest.mark.parametrize(
    ("have", "specifier", "fits"),
    [("2.4.1", ">=2.1", True), ("2.0", ">=2.1", False), (None, "", False), ("1", "", True)],
)
def test_versions_are_compared(have: str | None, specifier: str, fits: bool) -> None:
    assert installed.Wanted("p", specifier, have).satisfied is fits


def test_an_extra_of_an_extra_brings_its_packages() -> None:
    packages = installed.packages()
    assert packages is not None
    assert {wanted.name for wanted in packages["test"]} < {wanted.name for wanted in packages["dev"]}
    assert "numpy" in {wanted.name for wanted in packages[""]}
