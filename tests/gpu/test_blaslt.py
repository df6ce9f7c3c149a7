"""cuBLASLt through ctypes: products on a library with its functions, descriptors on the real one where there is one."""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distort.kernels.cuda import blaslt_api as api
from distort.kernels.cuda.blaslt import ProductPlan, Products
from distort.kernels.cuda.libraries import LibraryFailed, LibraryMissing, open_library
from distort.kernels.cuda.product_problems import Matrix, ProductProblem

from .device_memory import Block

FAKES = Path(__file__).resolve().parents[1] / "fake_cuda"
DTYPES = {"bfloat16": ml_dtypes.bfloat16}
TOLERANCES = {"float32": 1e-5, "float64": 1e-12, "float16": 2e-3, "bfloat16": 2e-2, "int32": 0}


def _fake() -> Any:
    spec = importlib.util.spec_from_file_location("fake_cublaslt", FAKES / "cublaslt" / "__init__.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.library()


LIBRARY = _fake()
LIBRARY.fake_enqueue_with(None)
LIBRARY.fake_touch_with(None)
PRODUCTS = Products(90, LIBRARY)


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(DTYPES.get(name, name))


class Operand:
    """A matrix, or a batch of them, that lies as ``matrix`` says."""

    def __init__(self, dtype: str, batch: int, rows: int, columns: int, matrix: Matrix, offset: int = 0) -> None:
        steps = (1, matrix.leading) if matrix.transposed else (matrix.leading, 1)
        n = matrix.batch_stride * (batch - 1) + (rows - 1) * steps[0] + (columns - 1) * steps[1] + 1
        self.block = Block(n * dtype_of(dtype).itemsize, offset)
        self.array = self.block.view(dtype_of(dtype), (batch, rows, columns), (matrix.batch_stride, *steps))

    @property
    def address(self) -> int:
        return self.block.address


def expected(p: ProductProblem, a: Any, b: Any, c: Any, bias: Any) -> Any:
    wide = np.int64 if p.dtype == "int8" else np.float64
    made = p.alpha * (a.astype(wide) @ b.astype(wide))
    if p.c is not None:
        made = made + p.beta * c.astype(wide)
    if p.bias:
        made = made + bias.astype(wide)
    if p.activation == "relu":
        made = np.maximum(made, 0)
    if p.activation == "gelu_tanh":
        made = 0.5 * made * (1 + np.tanh(np.sqrt(2 / np.pi) * (made + 0.044715 * made**3)))
    return made


def compare(p: ProductProblem, offset: int = 0, seed: int = 0, plan: ProductPlan | None = None) -> None:
    """Run a problem, and hold it against numpy."""
    rng = np.random.default_rng(seed)
    plan = plan or PRODUCTS.plan(p)
    assert plan is not None, PRODUCTS.reasons[p]
    a = Operand(p.dtype, p.batch, p.rows, p.depth, p.a, offset)
    b = Operand(p.dtype, p.batch, p.depth, p.columns, p.b, offset)
    c = Operand(p.result, p.batch, p.rows, p.columns, p.c or p.out, offset)
    out = Operand(p.result, p.batch, p.rows, p.columns, p.out, offset)
    bias = Block(p.columns * dtype_of(p.result).itemsize, offset)
    biases = bias.view(dtype_of(p.result), (p.columns,))
    for array in (a.array, b.array, c.array, biases):
        if array.dtype.kind == "i":
            array[...] = rng.integers(-128 if array.dtype == np.int8 else -1000, 127, array.shape)
        else:
            array[...] = rng.standard_normal(array.shape)
    workspace = Block(plan.workspace_nbytes)
    plan.run(a.address, b.address, out.address, bias.address, 0, c.address, workspace.address)
    want = expected(p, a.array, b.array, c.array, biases)
    tolerance = TOLERANCES[p.result] if not p.tf32 else 5e-3
    scale = max(1.0, float(np.abs(want).max()))
    np.testing.assert_allclose(out.array.astype(want.dtype), want, rtol=0, atol=tolerance * scale)
    for block in (a.block, b.block, c.block, out.block, bias, workspace):
        block.check()


@st.composite
def problems(draw: st.DrawFn) -> tuple[ProductProblem, int]:
    dtype = draw(st.sampled_from(["float32", "float64", "float16", "bfloat16"]))
    rows, columns, depth = (draw(st.integers(1, 19)) for _ in range(3))
    batch = draw(st.sampled_from([1, 1, 2, 3]))

    def matrix(rows: int, columns: int, result: bool = False) -> Matrix:
        transposed = not result and draw(st.booleans())
        lines, line = (columns, rows) if transposed else (rows, columns)
        leading = line + draw(st.integers(0, 3))
        stride = leading * lines + draw(st.integers(0, 5)) if batch > 1 else 0
        if not result and draw(st.booleans()):
            stride = 0
        return Matrix(leading, transposed, stride)

    plain = dtype == "float64"
    c = matrix(rows, columns, True) if draw(st.booleans()) else None
    problem = ProductProblem(
        dtype,
        rows,
        columns,
        depth,
        matrix(rows, depth),
        matrix(depth, columns),
        matrix(rows, columns, True),
        batch,
        draw(st.sampled_from([dtype, "float32"])) if not plain else dtype,
        draw(st.sampled_from([1.0, 0.5, -2.0])),
        draw(st.sampled_from([1.0, -0.5])) if c else 0.0,
        c,
        not plain and draw(st.booleans()),
        "" if plain else draw(st.sampled_from(["", "relu", "gelu_tanh"])),
        dtype == "float32" and draw(st.booleans()),
    )
    return problem, draw(st.sampled_from([0, 64, 16, 8]))


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(0, 1000))
def test_products_are_those_of_numpy(case: tuple[ProductProblem, int], seed: int) -> None:
    compare(case[0], case[1], seed)


def plain(dtype: str, rows: int, columns: int, depth: int, **more: Any) -> ProductProblem:
    return ProductProblem(dtype, rows, columns, depth, Matrix(depth), Matrix(columns), Matrix(columns), **more)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 1000))
def test_products_of_bytes(rows: int, columns: int, depth: int, batch: int, seed: int) -> None:
    columns, depth = 4 * columns, 4 * depth
    stride = (rows * depth, 0, rows * columns) if batch > 1 else (0, 0, 0)
    problem = ProductProblem(
        "int8",
        rows,
        columns,
        depth,
        Matrix(depth, False, stride[0]),
        Matrix(depth, True, stride[1]),
        Matrix(columns, False, stride[2]),
        batch,
    )
    compare(problem, seed=seed)


def test_products_of_bytes_that_the_library_has_not() -> None:
    turned = replace(plain("int8", 4, 8, 8), b=Matrix(8, True))
    assert PRODUCTS.plan(turned) is not None
    for problem, reason in (
        (plain("int8", 4, 8, 8), "b by columns"),
        (replace(turned, a=Matrix(8, True)), "a by rows"),
        (replace(turned, depth=6, a=Matrix(8)), "multiples of 4"),
        (replace(turned, out=Matrix(9)), "multiples of 4"),
        (replace(turned, bias=True), "no epilogue"),
        (plain("float64", 2, 2, 2, activation="relu"), "no epilogue"),
    ):
        assert PRODUCTS.plan(problem) is None
        assert reason in PRODUCTS.reasons[problem]


def test_a_refusal_of_the_library_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(api.DATA_TYPES, "float16", 4)  # a complex number
    problem = plain("float16", 3, 5, 7)
    assert Products(80, LIBRARY).plan(problem) is None
    products = Products(80, LIBRARY)
    assert products.plan(problem) is None
    text = products.reasons[problem]
    assert "float16 a [3, 7] (leading dimension 7) · b [7, 5]" in text and "looking for an algorithm" in text


def test_another_status_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    products = Products(80, LIBRARY)
    monkeypatch.setattr(products, "functions", _Failing(products.functions, "cublasLtMatmulAlgoGetHeuristic", 3))
    with pytest.raises(LibraryFailed, match=r"ALLOC_FAILED while looking for .*\[3, 7\].*Remedy: lower gpu_mem_limit"):
        products.plan(plain("float32", 3, 5, 7))


class _Failing:
    """A library, one of whose functions fails."""

    def __init__(self, functions: Any, name: str, status: int) -> None:
        self._functions, self._name, self._status = functions, name, status

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: self._status) if name == self._name else getattr(self._functions, name)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "complex64"},
        {"result": "float16"},
        {"activation": "tanh"},
        {"rows": 0},
        {"a": Matrix(3)},
        {"b": Matrix(6, True)},
        {"out": Matrix(9, True)},
        {"beta": 1.0},
        {"c": Matrix(5)},
        {"batch": 2},
    ],
)
def test_problems_that_contradict_themselves(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(plain("float32", 3, 5, 7), **change)


def test_plans_are_kept_and_descriptors_given_back() -> None:
    gc.collect()  # what other tests left
    before = LIBRARY.fake_live()
    products = Products(75, LIBRARY)
    problem = plain("float32", 3, 5, 7, bias=True)
    assert products.plan(problem) is products.plan(replace(problem))
    assert products.plan(replace(problem, rows=4)) is not products.plan(problem)
    half = plain("float16", 3, 5, 7)
    assert products.plan(replace(half, tf32=True)) is products.plan(half)
    assert LIBRARY.fake_live() > before
    products.close()
    assert LIBRARY.fake_live() == before


def test_what_nobody_has_any_more_is_given_back() -> None:
    gc.collect()  # what other tests left
    before = LIBRARY.fake_live()
    products = Products(75, LIBRARY)
    assert products.plan(plain("float32", 3, 5, 7)) is not None
    del products
    gc.collect()
    assert LIBRARY.fake_live() == before


def test_a_refused_plan_leaves_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    products = Products(80, LIBRARY)
    before = LIBRARY.fake_live()
    monkeypatch.setitem(api.DATA_TYPES, "float16", 4)
    assert products.plan(plain("float16", 3, 5, 7)) is None
    assert LIBRARY.fake_live() == before


def test_workspaces_by_device() -> None:
    assert [Products(sm, LIBRARY).workspace_nbytes >> 20 for sm in (75, 89, 90, 100)] == [4, 4, 32, 32]


def test_a_missing_workspace_is_an_error() -> None:
    problem = plain("float32", 2, 2, 64)
    plan = PRODUCTS.plan(problem)
    assert plan is not None and plan.workspace_nbytes == 4096
    with pytest.raises(LibraryFailed, match="a workspace of 4096 bytes"):
        plan.run(256, 256, 256, 0, 0)


def test_addresses_that_are_hardly_aligned() -> None:
    """An algorithm is looked for again, for less aligned addresses."""
    problem = plain("float16", 5, 6, 7, bias=True)
    for offset in (0, 2, 32, 4, 0, 2):
        compare(problem, offset)
    plan = PRODUCTS.plan(problem)
    assert plan is not None
    with pytest.raises(LibraryFailed, match="aligned to 1 bytes"):
        plan.run(257, 256, 256, 256, 0)


def test_the_fastest_of_several_is_kept() -> None:
    problem = plain("float32", 4, 4, 32, bias=True)
    plan = ProductPlan(PRODUCTS, problem)
    times = {0: 3.0, 1: 1.0, 2: 2.0}

    def timer(enqueue: Any, stream: int) -> float:
        enqueue(stream)
        return times[LIBRARY.fake_last_algorithm()]

    blocks = [Block(512) for _ in range(4)]
    a, b, out, bias = (block.address for block in blocks)
    workspace = Block(plan.most_workspace_nbytes)
    found = plan.tuned(a, b, out, bias, 0, timer, workspace=workspace.address)
    assert (found.number, found.n_timed, found.ms, found.first_ms) == (1, 3, 1.0, 3.0)
    plan.adopt(found)
    assert plan.workspace_nbytes == 0  # the library's own choice wants one
    compare(problem, plan=plan)
    assert LIBRARY.fake_last_algorithm() == 1
    assert plan.tuned(a, b, out, bias, 0, timer, workspace=workspace.address, limit_s=-1).n_timed == 1
    plan.close()


def test_threads_with_biases_of_their_own() -> None:
    """A bias's address is part of the library's descriptor, which they share."""
    problem = plain("float32", 1, 4, 1, bias=True)
    plan = PRODUCTS.plan(problem)
    assert plan is not None
    failed: list[int] = []

    def work(number: int) -> None:
        a, b, out, bias = (Block(16) for _ in range(4))
        for block in (a, b):
            block.view(np.float32, (4,))[...] = 0
        bias.view(np.float32, (4,))[...] = number
        for _ in range(200):
            plan.run(a.address, b.address, out.address, bias.address, 0)
            if not (out.view(np.float32, (4,)) == number).all():
                failed.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(LibraryMissing, match=r"cublasLt can't be looked for.*distort\[cuda12\]"):
        open_library("cublasLt")


# -- the real library


@pytest.fixture(scope="module")
def real() -> Iterator[Any]:
    pathfinder = pytest.importorskip("cuda.pathfinder")
    try:
        found = pathfinder.load_nvidia_dynamic_lib("cublasLt")
    except RuntimeError:
        pytest.skip("libcublasLt is not installed")
    yield ctypes.CDLL(found.abs_path)


def test_the_real_library_has_all_functions(real: Any) -> None:
    assert api.functions_of(real) is real


def test_the_real_library_takes_our_descriptors(real: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attributes are read back as they were given; an algorithm is only looked for with a GPU."""

    class Without:
        functions, workspace_nbytes, handle = api.functions_of(real), 1 << 20, None
        made: ClassVar[set[Any]] = set()

    first = api.HeuristicResult()
    monkeypatch.setattr(ProductPlan, "_candidates", lambda *_: [first])
    problem = ProductProblem(
        "bfloat16",
        3,
        5,
        7,
        Matrix(9, True, 70),
        Matrix(6, False, 0),
        Matrix(8, False, 40),
        2,
        "float32",
        bias=True,
        activation="relu",
    )
    plan = ProductPlan(Without(), problem)  # type: ignore[arg-type]  # all that is asked of it
    desc, (a, b, c, d) = plan._desc, plan._layouts
    wanted = {api.DESC_TRANSA: 0, api.DESC_TRANSB: 1, api.DESC_EPILOGUE: 6, api.DESC_BIAS_DATA_TYPE: 0, 0: 68, 1: 0}
    assert {attribute: desc.get(attribute, ctypes.c_int32) for attribute in wanted} == wanted
    plan._set_bias(4096)
    assert desc.get(api.DESC_BIAS_POINTER, ctypes.c_void_p) == 4096
    for layout, dtype, *sizes in ((a, 14, 5, 7, 6, 0), (b, 14, 3, 7, 9, 70), (c, 0, 5, 3, 8, 40), (d, 0, 5, 3, 8, 40)):
        assert layout.get(api.LAYOUT_TYPE, ctypes.c_uint32) == dtype
        numbers = (api.LAYOUT_ROWS, api.LAYOUT_COLS, api.LAYOUT_LD, api.LAYOUT_BATCH_STRIDE)
        assert [layout.get(number, ctypes.c_int64) for number in numbers] == sizes
        assert layout.get(api.LAYOUT_BATCH_COUNT, ctypes.c_int32) == 2
    preference = api.Descriptor(plan._functions, "MatmulPreference", "")
    preference.set(api.PREFERENCE_WORKSPACE, 1 << 20, ctypes.c_uint64)
    for attribute in range(api.PREFERENCE_ALIGNMENT_A, api.PREFERENCE_ALIGNMENT_A + 4):
        preference.set(attribute, 16, ctypes.c_uint32)
    preference.close()
    plan.close()


def test_numbers_are_those_of_the_headers() -> None:
    folder = pytest.importorskip("nvidia.cublas.include")
    headers = [path.read_text() for path in Path(next(iter(folder.__path__))).glob("cublas*.h")]

    def number(name: str) -> int:
        found = re.search(rf"\b{name}\s*=\s*(\d+)", "\n".join(headers))
        assert found is not None, name
        return int(found[1])

    for ours, theirs in {
        "DESC_TRANSA": "CUBLASLT_MATMUL_DESC_TRANSA",
        "DESC_TRANSB": "CUBLASLT_MATMUL_DESC_TRANSB",
        "DESC_EPILOGUE": "CUBLASLT_MATMUL_DESC_EPILOGUE",
        "DESC_BIAS_POINTER": "CUBLASLT_MATMUL_DESC_BIAS_POINTER",
        "DESC_BIAS_DATA_TYPE": "CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE",
        "LAYOUT_TYPE": "CUBLASLT_MATRIX_LAYOUT_TYPE",
        "LAYOUT_ROWS": "CUBLASLT_MATRIX_LAYOUT_ROWS",
        "LAYOUT_COLS": "CUBLASLT_MATRIX_LAYOUT_COLS",
        "LAYOUT_LD": "CUBLASLT_MATRIX_LAYOUT_LD",
        "LAYOUT_BATCH_COUNT": "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT",
        "LAYOUT_BATCH_STRIDE": "CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET",
        "PREFERENCE_WORKSPACE": "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES",
        "PREFERENCE_ALIGNMENT_A": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES",
        "EPILOGUE_DEFAULT": "CUBLASLT_EPILOGUE_DEFAULT",
        "EPILOGUE_RELU": "CUBLASLT_EPILOGUE_RELU",
        "EPILOGUE_BIAS": "CUBLASLT_EPILOGUE_BIAS",
        "EPILOGUE_GELU": "CUBLASLT_EPILOGUE_GELU",
        "COMPUTE_32F": "CUBLAS_COMPUTE_32F",
        "COMPUTE_64F": "CUBLAS_COMPUTE_64F",
        "COMPUTE_32I": "CUBLAS_COMPUTE_32I",
        "COMPUTE_32F_FAST_TF32": "CUBLAS_COMPUTE_32F_FAST_TF32",
    }.items():
        assert getattr(api, ours) == number(theirs), ours
    for status, name in api.STATUSES.items():
        assert number(name) == status


_NAMES = {
    "DESC_TRANSA": "CUBLASLT_MATMUL_DESC_TRANSA",
    "DESC_TRANSB": "CUBLASLT_MATMUL_DESC_TRANSB",
    "DESC_EPILOGUE": "CUBLASLT_MATMUL_DESC_EPILOGUE",
    "DESC_BIAS_POINTER": "CUBLASLT_MATMUL_DESC_BIAS_POINTER",
    "DESC_BIAS_DATA_TYPE": "CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE",
    "LAYOUT_BATCH_COUNT": "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT",
    "LAYOUT_BATCH_STRIDE": "CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET",
    "PREFERENCE_WORKSPACE": "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES",
    "PREFERENCE_ALIGNMENT_A": "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES",
    "EPILOGUE_RELU": "CUBLASLT_EPILOGUE_RELU",
    "EPILOGUE_BIAS": "CUBLASLT_EPILOGUE_BIAS",
    "EPILOGUE_GELU": "CUBLASLT_EPILOGUE_GELU",
    "COMPUTE_32F": "CUBLAS_COMPUTE_32F",
    "COMPUTE_64F": "CUBLAS_COMPUTE_64F",
    "COMPUTE_32I": "CUBLAS_COMPUTE_32I",
    "COMPUTE_32F_FAST_TF32": "CUBLAS_COMPUTE_32F_FAST_TF32",
}
_TYPES = {"float32": "32F", "float64": "64F", "float16": "16F", "int8": "8I", "int32": "32I", "bfloat16": "16BF"}


def test_numbers_are_those_of_nvidias_headers() -> None:
    """Where their wheels are installed."""
    text = ""
    for library, header in (("cublas", "cublasLt.h"), ("cublas", "cublas_api.h"), ("cuda_runtime", "library_types.h")):
        found = importlib.util.find_spec("nvidia")
        folders = [] if found is None else list(found.submodule_search_locations or ())
        paths = [Path(folder) / library / "include" / header for folder in folders]
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            pytest.skip(f"{header} isn't installed")
        text += path.read_text()
    known = {name: getattr(api, name) for name in _NAMES} | {
        f"CUDA_R_{t}": api.DATA_TYPES[d] for d, t in _TYPES.items()
    }
    for name, number in known.items():
        there = re.search(rf"\b{_NAMES.get(name, name)}\s*=\s*(\d+)", text)
        assert there is not None and int(there[1]) == number, name
    assert ctypes.sizeof(api.Algorithm) == 64 and "uint64_t data[8];" in text
