"""The fake CuPy's arrays: they compute as NumPy's, and refuse what CuPy's refuse."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from .conftest import FOLDER


def test_what_computes_is_numpy(fake_cuda: Any) -> None:
    a = fake_cuda.arange(12, dtype=np.float32).reshape(3, 4)
    got = (fake_cuda.exp(a[:, ::2]) + 1).sum(axis=1, keepdims=True)
    assert isinstance(got, fake_cuda.ndarray)
    want = (np.exp(np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]) + 1).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(got.get(), want)


@pytest.mark.parametrize("what", ["add", "call", "assign", "asarray", "list"])
def test_host_arrays_do_not_mix(fake_cuda: Any, what: str) -> None:
    a, host = fake_cuda.zeros(3), np.ones(3)
    with pytest.raises(TypeError):
        if what == "add":
            a + host
        elif what == "call":
            fake_cuda.sum(host)
        elif what == "assign":
            a[1:] = host[1:]
        elif what == "asarray":
            np.asarray(a)
        else:
            fake_cuda.concatenate([a, host])


@pytest.mark.parametrize("dtype", [object, "U3", "M8[s]", ml_dtypes.float8_e4m3fn, ml_dtypes.int4])
def test_types_that_cupy_lacks(fake_cuda: Any, dtype: Any) -> None:
    with pytest.raises(ValueError, match="Unsupported dtype"):
        fake_cuda.zeros(2, dtype)


def test_bfloat16_has_the_loops_that_cupy_has(fake_cuda: Any) -> None:
    a = fake_cuda.ones(3, ml_dtypes.bfloat16)
    assert (a + a).dtype == ml_dtypes.bfloat16
    assert fake_cuda.where(a > 0, a, a).dtype == np.float32, "CuPy's where has no loop for bfloat16"
    assert fake_cuda.clip(a, 0, 1).dtype == np.float32


def test_keywords_that_cupy_lacks(fake_cuda: Any) -> None:
    a = fake_cuda.ones((2, 2))
    with pytest.raises(TypeError):
        fake_cuda.sum(a, where=a > 0)
    with pytest.raises(TypeError):
        fake_cuda.take(a, a.astype(int), mode="clip")
    with pytest.raises(TypeError):
        fake_cuda.exp(a, where=a > 0)
    with pytest.raises(NotImplementedError):
        fake_cuda.maximum.reduce(a)
    assert not hasattr(fake_cuda, "block")


def test_indices_wrap_around(fake_cuda: Any) -> None:
    a = fake_cuda.arange(3)
    assert a[fake_cuda.array([1, 3, 5])].tolist() == [1, 0, 2]
    assert fake_cuda.take(a, fake_cuda.array([4])).tolist() == [1]
    with pytest.raises(IndexError):
        a[3]


def test_of_several_writes_the_last_does_not_win(fake_cuda: Any) -> None:
    a = fake_cuda.zeros(2)
    a[fake_cuda.array([1, 1])] = fake_cuda.array([5.0, 7.0])
    assert a.tolist() == [0, 5]


def test_numbers_that_no_integer_holds(fake_cuda: Any) -> None:
    a = fake_cuda.array([np.nan, 1e30, -1e30, -1.5], np.float32)
    assert a.astype(np.int32).tolist() == [0, 2**31 - 1, -(2**31), -1]


def test_reductions_stay_on_the_device(fake_cuda: Any) -> None:
    total = fake_cuda.arange(4).sum()
    assert isinstance(total, fake_cuda.ndarray)
    assert total.shape == ()


def test_synchronizations_are_counted(fake_cuda: Any) -> None:
    a = fake_cuda.arange(6)
    fake_cuda.fake.counts().clear()
    a + 1
    a.sum()
    a[fake_cuda.array([1])]
    assert fake_cuda.fake.synchronizations() == 0
    for n, wait in enumerate([lambda: a[a > 2], lambda: int(a[0]), a.nonzero, a.get, lambda: bool(a[1])], 1):
        wait()
        assert fake_cuda.fake.synchronizations() == n


def test_arrays_of_another_device(fake_cuda: Any) -> None:
    with fake_cuda.cuda.Device(1):
        there = fake_cuda.ones(2)
        assert there.device.id == 1
    with pytest.raises(ValueError, match="Array device must be same"):
        there + 1
    fake_cuda.cuda.runtime.deviceEnablePeerAccess(1)
    assert (there + 1).tolist() == [2, 2]


def test_interfaces_to_others(fake_cuda: Any) -> None:
    a = fake_cuda.arange(6, dtype=np.int32).reshape(2, 3)
    assert a.__dlpack_device__() == (2, 0)
    b = fake_cuda.asarray(type("Foreign", (), {"__cuda_array_interface__": a.T.__cuda_array_interface__})())
    assert b.data.ptr == a.data.ptr
    assert b.tolist() == a.T.tolist()
    a[0, 1] = 40
    assert int(b[1, 0]) == 40


def test_views_share_memory_and_copies_do_not(fake_cuda: Any) -> None:
    a = fake_cuda.zeros((2, 3))
    a.reshape(6)[1:3] = 1
    a.T.copy().fill(5)
    assert a.tolist() == [[0, 1, 1], [0, 0, 0]]


def test_numpys_functions_go_to_cupys(fake_cuda: Any) -> None:
    a = fake_cuda.ones(3)
    assert isinstance(np.exp(a), fake_cuda.ndarray)
    assert isinstance(np.concatenate([a, a]), fake_cuda.ndarray)
    with pytest.raises(TypeError):
        np.block([a, a])


def test_the_names_are_the_real_ones() -> None:
    """signatures.json is what the CuPy that is installed here says of itself."""
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    import cupy

    spec = importlib.util.spec_from_file_location("signatures", FOLDER / "signatures.py")
    assert spec is not None
    assert spec.loader is not None
    signatures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(signatures)
    known = json.loads((FOLDER / "signatures.json").read_text())
    if cupy.__version__ != known["version"]:
        pytest.skip(f"the names are those of CuPy {known['version']}")
    found = signatures.collect()
    if found["nccl"] is None:  # its library is not installed
        del found["nccl"], known["nccl"]
    assert found == known


def test_every_name_of_the_fake_is_one_of_the_real(fake_cuda: Any) -> None:
    """What the fake has for itself in modules of the real one's names is listed here."""
    own = {"may_access", "device_of", "free_if_there", "malloc_raw", "default_pool"}
    known = json.loads((FOLDER / "signatures.json").read_text())["names"]
    every = set().union(*known.values())
    for module in known:
        there: Any = fake_cuda
        for part in module.split("."):
            there = getattr(there, part)
        for name, value in vars(there).items():
            if not name.startswith("_") and str(getattr(value, "__module__", "")).startswith("cupy"):
                assert name in every | own, f"cupy.{module}.{name}"
