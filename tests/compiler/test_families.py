"""Kernels of every family: on this machine, on lesser ones, and as code for others."""

from __future__ import annotations

import platform
import struct
from typing import Any

import numpy as np
import pytest

from distort.kernels.compiler.codegen import byte_dots, drive
from distort.kernels.compiler.codegen.target import Target, of_features
from distort.kernels.compiler.constants import Constants
from distort.kernels.compiler.flow import JUMP
from distort.kernels.compiler.ir import Host
from distort.kernels.compiler.keys import FAMILIES, Key
from distort.kernels.compiler.library import Library, compile_text, link, module_text, shared
from distort.kernels.compiler.program import CompiledProgram
from distort.kernels.compiler.specialise import Plan, specialise
from distort.kernels.program import Program

from .comparing import limited
from .families import EXAMPLES

ARM = of_features("aarch64-unknown-linux-gnu", "generic", {"neon": True})
#: classical models have tests of their own: test_classes.py
_CLASSICAL = {"couplings", "expect_ones", "find"}
#: and so have values whose shapes earlier runs have shown: test_expecting.py
_LEARNED = {"cache", "counting", "nonzero", "expect_same"}
#: whose result a NumPy kernel cuts (test_suppression.py), and what needs dot products of bytes (test_nbits.py)
_ELSEWHERE = {"suppression", "selected", "nbits_bytes"}
#: needs instructions for tiles of bfloat16, and to be asked for: see ``test_precision``
_TILES = "gemm_bf16"
_AMX = ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512bf16"]
_AMX += ["amx-tile", "amx-int8", "amx-bf16", "avx2", "fma", "f16c"]


def keys_of(plan: Plan) -> set[Key]:
    return {step.call.key for step in plan.steps if step.call is not None} - {JUMP}


def plan_of(name: str, target: Target, precision: str = "float32") -> Plan:
    graph, feeds = EXAMPLES[name]
    types = [(value.dtype, value.shape) for value in feeds.values()]
    return specialise(graph, graph.outputs, graph.inputs, types, target, 1, Constants(), {}, precision)


def machine_of(code: bytes) -> int:
    """The number of a processor in the header of an ELF file."""
    assert code[:4] == b"\x7fELF"
    return int(struct.unpack_from("<H", code, 18)[0])


@pytest.fixture(scope="module", params=["", "avx2", "sse4.2"])
def library(request: pytest.FixtureRequest) -> Library:
    if not request.param:
        return shared()
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("another machine")
    return limited(request.param)


@pytest.mark.parametrize("name", EXAMPLES)
def test_answers_as_numpy_kernels_do(name: str, library: Library) -> None:
    graph, feeds = EXAMPLES[name]
    program = CompiledProgram(graph, n_threads=2, library=library)
    results = program.run(feeds)
    ((_, plan),) = program.plans
    assert not [o.node.op_type for o in plan.operations if isinstance(o, Host)]
    for result, wanted in zip(results, Program(graph).run(feeds), strict=True):
        compare(result, wanted)


def compare(result: Any, wanted: Any) -> None:
    assert (result.dtype, result.shape) == (wanted.dtype, wanted.shape)
    if wanted.dtype.kind == "f":
        tolerance = 1e-4 if wanted.dtype == np.float32 else 4e-3
        np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance * max(1, np.abs(wanted).max()))
    elif wanted.dtype.itemsize == 1:  # a tie may be rounded the other way
        difference = np.abs(result.astype(int) - wanted.astype(int))
        assert difference.max() <= 1 and difference.mean() < 1e-2
    else:
        np.testing.assert_array_equal(result, wanted)


def test_code_for_arm() -> None:
    """And no family that has no example."""
    keys = {key for name in EXAMPLES for key in keys_of(plan_of(name, ARM))}
    assert {key.family for key in keys} == set(FAMILIES) - {_TILES} - _CLASSICAL - _LEARNED - _ELSEWHERE
    code = compile_text(module_text(sorted(keys, key=lambda key: key.symbol), ARM), ARM)
    assert machine_of(code) == 183  # EM_AARCH64
    for key in keys:
        assert key.symbol.encode() in code


def test_the_loop_over_steps_for_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert machine_of(compile_text(link(drive.functions(), ARM), ARM)) == 183


def test_code_for_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_dots, "_tiles_are_permitted", lambda: True)
    target = of_features("x86_64-unknown-linux-gnu", "sapphirerapids", dict.fromkeys(_AMX, True))
    keys = keys_of(plan_of("dense", target, "bf16")) | keys_of(plan_of("bytes", target))
    assert {_TILES, "quantized", "quantized_conv"} <= {key.family for key in keys}
    code = compile_text(module_text(sorted(keys, key=lambda key: key.symbol), target), target)
    assert machine_of(code) == 62  # EM_X86_64
