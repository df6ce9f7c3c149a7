"""Each kind of our CUDA kernels: the same source on the GPU and, by g++, on the CPU, over the same random bytes.

The operations are those of ``tests/gpu/corpus.py``. The tests hold the simulated kernels against NumPy; what a GPU adds
is what they can't show: races, real grids, the GPU's own arithmetic.
"""

from __future__ import annotations

import contextlib
import inspect
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gpu_checks.arrays import random_of
from gpu_checks.report import FAILED, FIGURE, OK, SKIPPED, WRONG, Report, Skipped, words_of

#: of single elements: |got - want| ≤ this · (1 + |want|); functions differ by some units in the last place
_CLOSE = {"float64": 1e-11, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}


def run(report: Report) -> None:
    import shutil

    if shutil.which("g++") is None:
        raise Skipped("g++ isn't there: it compiles the same kernels for the CPU")
    tally: dict[tuple[str, str], list[str]] = defaultdict(list)
    for family, operations in families().items():
        made = list(operations)
        if report.small:
            made = made[:2]
        left = [number for number in range(len(made)) if not report.is_done(f"{family} {number}")]
        _warm([made[number] for number in left])
        _load([made[number] for number in left])
        for number in left:
            operation = made[number]
            if report.left_s < 5:
                report.add(f"{family}, from {number} of {len(made)} on", SKIPPED, "no time left")
                break
            name = operation.outputs[0].dtype.name if operation.inputs == [] else operation.inputs[0].dtype.name
            for seed in (0, 1):
                try:
                    worst = compare(operation, seed)
                except Exception as error:  # noqa: BLE001  # its row says so; other kernels are to run
                    worst = words_of(error)
                tally[family, name].append(f"{number}: {worst}" if worst else "")
            report.go_on(f"{family} {number}", lambda: _tell(report, tally))
    _tell(report, tally)
    report.add("kernels compared", FIGURE, str(sum(map(len, tally.values()))))


def _tell(report: Report, tally: dict[tuple[str, str], list[str]]) -> None:
    for (family, name), found in sorted(tally.items()):
        bad = list(filter(None, found))
        failed = any("Error" in text for text in bad)
        figure = f"{len(found) - len(bad)} of {len(found)} agree" + (f"; {bad[0]}" if bad else "")
        report.add(f"{family} {name}", (FAILED if failed else WRONG) if bad else OK, figure, bad=bad[:20])


def families() -> dict[str, Iterator[Any]]:
    """All of the corpus: its functions that take nothing and give operations, by name."""
    from gpu import corpus

    found = {}
    for name, function in vars(corpus).items():
        if not inspect.isgeneratorfunction(function) or name.startswith("_") or inspect.signature(function).parameters:
            continue
        # some are there to be compiled, and have nothing to work on
        found[name] = (operation for operation in function() if operation.outputs)
    return found


def _warm(operations: list[Any]) -> None:
    """All simulated kernels compiled, many at once."""
    from gpu.simulating import compiled

    from distort.kernels.cuda.codegen import launches

    kernels = {launch.kernel for operation in operations for launch in launches(operation) or []}
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(compiled, kernels))


def _load(operations: list[Any]) -> None:
    """All kernels for the GPU in one module: each by itself takes longer. What doesn't compile says so by itself."""
    from distort.kernels.cuda.codegen import launches
    from distort.kernels.cuda.modules import modules_of
    from distort.kernels.errors import KernelError

    with contextlib.suppress(KernelError):
        modules_of(0).get(launch.kernel for operation in operations for launch in launches(operation) or [])


def compare(operation: Any, seed: int) -> str:
    """What differs, "" where nothing does. ``seed`` 0 has positive numbers alone, which every type can hold."""
    from gpu.simulating import Memory

    from distort.kernels.compiler.ir import Address, ErrorWord
    from distort.kernels.cuda.codegen import launches

    rng = np.random.default_rng(seed)
    memory, arrays = Memory(), {}
    for tensor in (*operation.inputs, *operation.outputs):
        if tensor.buffer not in arrays:
            n = tensor.buffer.nbytes // tensor.dtype.itemsize
            drawn = random_of((n,), tensor.dtype, rng)
            if tensor.dtype.kind == "f" or tensor.dtype.name == "bfloat16":
                drawn = (np.abs(drawn.astype(np.float32)) + 0.05).astype(drawn.dtype) if seed == 0 else drawn
            arrays[tensor.buffer] = drawn
            memory.bytes_of(tensor.buffer)[: drawn.nbytes] = drawn.view(np.uint8)
    made = launches(operation)
    assert made, f"nothing is printed for {operation.kind}"
    on_gpu = _on_gpu(made, {b: np.array(memory.bytes_of(b)) for b in _buffers(made, Address)}, ErrorWord, Address)
    for launch in made:
        memory.run(launch)
    memory.check()
    for tensor in operation.outputs:
        if tensor.buffer not in on_gpu:
            continue  # another phase's: this one has no use for it
        if seed and tensor.dtype.kind in "iub" and _is_cast(operation):
            continue  # whole numbers of negative ones are as the machine has them
        wanted = np.array(memory.bytes_of(tensor.buffer)).view(tensor.dtype)
        got = on_gpu[tensor.buffer].view(tensor.dtype)
        if text := _difference(got, wanted):
            return f"{operation.kind}, {tensor.dtype}{list(tensor.shape)}: {text}"
    return ""


def _buffers(launches: list[Any], address: type) -> list[Any]:
    found = {}
    for launch in launches:
        for argument in launch.arguments:
            if isinstance(argument, address):
                found[argument.buffer] = None  # type: ignore[attr-defined]
    return list(found)


def _on_gpu(launches: list[Any], contents: dict[Any, Any], error_word: type, address: type) -> dict[Any, Any]:
    import cupy

    from distort.kernels.cuda.modules import modules_of

    functions = modules_of(0).get(launch.kernel for launch in launches)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        there = {buffer: cupy.asarray(content) for buffer, content in contents.items()}
        word = cupy.zeros(1, cupy.int64)
        for launch in launches:
            arguments: list[Any] = []
            for argument in launch.arguments:
                if isinstance(argument, address):
                    arguments.append(there[argument.buffer].data.ptr + argument.offset)  # type: ignore[attr-defined]
                elif isinstance(argument, error_word):
                    arguments.append(word.data.ptr)
                else:
                    arguments.append(np.float32(argument) if isinstance(argument, float) else argument)
            grid = (launch.grid(2048),)
            functions[launch.kernel.name](grid, (launch.block,), tuple(arguments), shared_mem=launch.shared_nbytes)
        stream.synchronize()
        return {buffer: array.get(stream=stream) for buffer, array in there.items()}


def _is_cast(operation: Any) -> bool:
    body = getattr(getattr(operation, "expression", None), "body", ())
    return any(instruction.op == "cast" for instruction in body)


def _difference(got: Any, wanted: Any) -> str:
    close = _CLOSE.get(wanted.dtype.name)
    if close is None:
        differ = np.flatnonzero(got != wanted)
    else:
        one, other = got.astype(np.float64), wanted.astype(np.float64)
        with np.errstate(all="ignore"):
            near = np.abs(one - other) <= close * (1 + np.abs(other))
        differ = np.flatnonzero(~(near | (one == other) | (np.isnan(one) & np.isnan(other))))
    if not differ.size:
        return ""
    first = int(differ[0])
    return f"{differ.size} of {got.size} differ, at {first}: {got[first]} for {wanted[first]}"


__all__ = ["compare", "families", "run"]
