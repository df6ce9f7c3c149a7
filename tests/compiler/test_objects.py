"""The cache of objects on disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from distort.kernels.compiler import codegen, library, objects
from distort.kernels.compiler.codegen.target import host
from distort.kernels.compiler.expression import Expression, Instruction
from distort.kernels.compiler.keys import Key
from distort.kernels.compiler.library import Library
from distort.kernels.compiler.objects import ObjectCache


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path / "a" / "b")
    assert cache.find("x", host()) is None
    cache.keep(["x", "y"], host(), b"code\n1")
    assert cache.find("x", host()) == cache.find("y", host()) == (["x", "y"], b"code\n1")
    assert cache.find("x", replace(host(), features="+other")) is None
    assert cache.find("z", host()) is None
    cache.keep(["y", "z"], host(), b"code 2", name="both")
    assert cache.find("both", host()) == (["y", "z"], b"code 2")
    assert cache.find("z", host()) is None


def test_names_of_an_object_take_no_room_of_their_own(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, most_nbytes=50_000)
    cache.keep([f"x{number}" for number in range(10)], host(), b"x" * 10_000)
    assert all(cache.find(f"x{number}", host()) for number in range(10))


def test_without_links_names_are_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    cache = ObjectCache(tmp_path)
    cache.keep(["x", "y"], host(), b"code")
    assert cache.find("y", host()) == (["x", "y"], b"code")


@pytest.mark.parametrize("damage", [b"", b"short", b"0" * 100])
def test_a_damaged_object_is_ignored_and_removed(tmp_path: Path, damage: bytes) -> None:
    cache = ObjectCache(tmp_path)
    cache.keep(["x"], host(), b"code" * 100)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    assert cache.find("x", host()) is None
    assert not list(tmp_path.iterdir())


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache = ObjectCache(tmp_path, most_nbytes=5000)
    for number in range(10):
        cache.keep([str(number)], host(), b"x" * 1000)
        os.utime(sorted(tmp_path.iterdir(), key=lambda p: p.stat().st_mtime)[-1], (number, number))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 5000
    assert cache.find("9", host()) and not cache.find("0", host())


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = ObjectCache(tmp_path / "file" / "folder")
    cache.keep(["x"], host(), b"code")
    assert cache.find("x", host()) is None


def _key(number: int = 0) -> Key:
    """Of max(x, 0) + number."""
    body = (
        Instruction("relu", (0,), "float32"),
        Instruction("constant", (0,), "float32", (float(number),)),
        Instruction("add", (1, 2), "float32"),
    )
    return Key("map", (Expression(("float32",), body, (3,)), 1, (1, 1)))


def test_a_second_library_compiles_nothing(tmp_path: Path) -> None:
    key = _key()
    first = Library(cache=ObjectCache(tmp_path))
    first.get([key])
    assert first.compile_s > 0
    second = Library(cache=ObjectCache(tmp_path))
    second.get([key])
    assert second.compile_s == 0


def test_a_kernel_is_found_whatever_it_was_compiled_with(tmp_path: Path) -> None:
    first = Library(cache=ObjectCache(tmp_path))
    first.get([_key(number) for number in range(11)])
    second = Library(cache=ObjectCache(tmp_path))
    found = second.get([_key(3), _key(20), _key(7)])
    assert len(set(found.values())) == 3
    third = Library(cache=ObjectCache(tmp_path))
    third.get([_key(number) for number in (20, 1, 10, 5)])
    assert second.compile_s > 0 == third.compile_s


_WRITER = """
import sys
from pathlib import Path
from distort.kernels.compiler.codegen.target import host
from distort.kernels.compiler.objects import ObjectCache

cache = ObjectCache(Path(sys.argv[1]), most_nbytes=200_000)
number = 0
while True:
    number += 1
    name, other = str(number % 20), str(number * 7 % 20)
    cache.keep([name, f"also {name}"], host(), name.encode() * 10_000)
    found = cache.find(f"also {other}", host())
    if found is not None and found[1] != other.encode() * 10_000:
        Path(sys.argv[1], "wrong").write_text("")
"""


def test_writers_that_are_killed_leave_whole_files(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)]) for _ in range(3)]
    deadline = time.monotonic() + 20
    while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    for writer in writers:
        assert writer.poll() is None
        writer.kill()
        writer.wait()
    assert not (tmp_path / "wrong").exists()
    cache = ObjectCache(tmp_path)
    found = [cache.find(str(number), host()) for number in range(20)]
    assert any(found)
    for number, code in enumerate(found):
        assert code is None or code[1] == str(number).encode() * 10_000


def test_all_that_prints_kernels_names_objects() -> None:
    """Modules of ``codegen`` import nothing else of the package that could change what they print."""
    around = {f"distort.kernels.compiler.{name.removesuffix('.py')}" for name in objects._AROUND}
    for path in Path(codegen.__file__).parent.glob("*.py"):
        for name in re.findall(r"^\s*(?:from|import) (distort[\w.]*)", path.read_text(), re.MULTILINE):
            assert name in around or name.startswith(codegen.__name__), f"{path.name} imports {name}"


def test_who_watches_is_told_how_many_kernels_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "BATCH", 2)
    keys = [_key(number) for number in range(5)]
    told: list[tuple[int, int]] = []
    for _ in range(2):  # from the disk there is nothing to tell
        found = Library(cache=ObjectCache(tmp_path))
        found.watch = lambda done, total: told.append((done, total))
        assert len(set(found.get(keys).values())) == 5
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]
