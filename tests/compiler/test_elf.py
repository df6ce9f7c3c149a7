"""Objects in executable memory, loaded without LLVM."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distort.kernels.compiler import elf, library
from distort.kernels.compiler.codegen import drive, entering
from distort.kernels.compiler.codegen.target import host
from distort.kernels.compiler.library import compile_text, link, load

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="other objects are loaded by LLVM"
)

#: a constant, a jump table, a function of the C library, another function of the module by its address
_TEXT = """
target triple = "{triple}"
@table = private unnamed_addr constant [4 x double] [double 1.5, double 2.5, double 3.5, double 4.5]
declare double @cbrt(double)
define i64 @helper(i64 %x) noinline {{
  %r = mul i64 %x, 3
  ret i64 %r
}}
define double @look(i64 %i) {{
  %at = getelementptr double, ptr @table, i64 %i
  %x = load double, ptr %at
  %r = call double @cbrt(double %x)
  ret double %r
}}
define i64 @choose(i64 %x) {{
  switch i64 %x, label %other [i64 0, label %a  i64 1, label %b  i64 2, label %c  i64 3, label %d  i64 4, label %e]
a: ret i64 17
b: %y = call i64 @helper(i64 %x)
  ret i64 %y
c: ret i64 -4
d: ret i64 99
e: %z = ptrtoint ptr @helper to i64
  ret i64 %z
other: ret i64 1
}}
"""
_NAMES = ["look", "choose", "helper"]


@pytest.fixture(scope="module")
def code() -> bytes:
    return compile_text(_TEXT.format(triple=host().triple), host())


def test_code_runs_as_llvm_loads_it(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[object] = []
    ours = elf.load(code, _NAMES)
    assert ours is not None
    monkeypatch.setattr(elf, "load", lambda code, symbols: None)
    for look, choose, helper in (ours, load(code, _NAMES, engines)):
        call = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64)(look)
        np.testing.assert_allclose([call(i) for i in range(4)], np.cbrt([1.5, 2.5, 3.5, 4.5]), rtol=1e-15)
        chosen = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(choose)
        assert [chosen(i) for i in range(6)] == [17, 3, -4, 99, helper, 1]
    assert len(engines) == 1


def test_memory_is_not_writable_once_it_is_executable(code: bytes) -> None:
    loaded = elf.load(code, _NAMES)
    assert loaded is not None
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(word, 16) for word in line.split()[0].split("-"))
        if first <= loaded[0] < last:
            assert line.split()[1] == "r-xp"
            return
    raise AssertionError("the code is in no mapping")


def test_the_driver_is_loaded_here() -> None:
    functions = [*drive.functions(), *entering.functions()]
    code = compile_text(link(functions, host()), host())
    assert elf.load(code, [f"distort_{name}" for name in ("drive", "serve", "publish", "go", "enter")]) is not None


@pytest.mark.parametrize(
    "text",
    [
        "@count = global i64 0\ndefine ptr @f() { ret ptr @count }",  # is written to
        "declare void @no_such_function()\ndefine void @f() { call void @no_such_function()\nret void }",
        "@count = thread_local global i64 0\ndefine ptr @f() { ret ptr @count }",
    ],
)
def test_what_is_not_known_is_left_to_llvm(text: str) -> None:
    assert elf.load(compile_text(f'target triple = "{host().triple}"\n{text}\n', host()), ["f"]) is None


def test_what_is_no_object_of_this_machine_is_left_to_llvm(code: bytes) -> None:
    assert elf.load(b"", []) is None
    assert elf.load(b"no object", []) is None
    assert elf.load(code[:18] + b"\xb7\0" + code[20:], _NAMES) is None  # arm
    assert elf.load(code, ["nosuch"]) is None


def test_an_object_that_ends_early_is_refused(code: bytes) -> None:
    for end in range(0, len(code) - 64, 64):
        assert elf.load(code[:end], _NAMES) is None


_SCRIPT = """
import sys
from distort.kernels.compiler.codegen.target import host
from distort.kernels.compiler import team
team._addresses()
print(host().cpu, "llvmlite.binding" in sys.modules)
"""


def test_with_a_warm_cache_llvm_is_not_imported(tmp_path: Path) -> None:
    environment = {**os.environ, "DISTORT_CACHE_DIR": str(tmp_path)}
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT], check=True, capture_output=True, text=True, env=environment, timeout=60
        )
        said.append(done.stdout.split())
    assert said == [[host().cpu, "True"], [host().cpu, "False"]]


def test_a_library_uses_it(code: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[object] = []
    monkeypatch.setattr(library, "_initialize", lambda: pytest.fail("LLVM is asked to load"))
    assert len(load(code, _NAMES, held)) == 3 and not held
