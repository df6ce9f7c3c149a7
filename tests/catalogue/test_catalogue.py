"""What onnxruntime does with some hundred calls: distort does the same, on actors too, but where the table says so."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

import distort

from . import all_rows
from .table import UNSTABLE, Env, Row, agrees, assert_outcome, outcome, text_of

MakeEnv = Callable[..., Env]


def rows(chosen: Callable[[Row], bool] = lambda row: True) -> pytest.MarkDecorator:
    """The rows as parameters."""
    return pytest.mark.parametrize("row", [pytest.param(row, id=row.call) for row in all_rows.ROWS if chosen(row)])


def check_result(row: Row, env: Env) -> None:
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        if row.plain:
            patch.setenv("DISTORT_COMPILE", "0")
        got = outcome(row, env)
    assert_outcome(got, row.wanted(env.ort.__name__, env.parallel), env)


def check_output(row: Row, env: Env, capfd: pytest.CaptureFixture[str]) -> None:
    """What a call prints, with the lines of the log without their colour and place, and what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcome(row, env)
    out, err = capfd.readouterr()
    warned = [text_of(f"{item.category.__name__}: {item.message}", env) for item in caught]
    assert agrees(text_of(out, env), row.stdout)
    if row.quiet and env.ort is distort:
        return
    assert not row.stderr or agrees(re.sub(r"\x1b\[[0-9;]*m", "", text_of(err, env)), f"…{row.stderr}…")
    for text in row.warns:
        assert any(agrees(item, f"{text}…") for item in warned), warned
    assert row.warns or not warned


def prints(row: Row) -> bool:
    return bool(row.stdout or row.stderr or row.warns)


@rows()
def test_result(row: Row, make_env: MakeEnv) -> None:
    check_result(row, make_env(distort))


@rows(prints)
def test_output(row: Row, make_env: MakeEnv, capfd: pytest.CaptureFixture[str]) -> None:
    check_output(row, make_env(distort), capfd)


@pytest.mark.parallel
@pytest.mark.usefixtures("no_actor_outlives")
@rows(lambda row: row.parallel)
def test_result_with_actors(row: Row, make_env: MakeEnv) -> None:
    check_result(row, make_env(distort, parallel=True))


@pytest.fixture(scope="module")
def onnxruntime() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Any = pytest.importorskip("onnxruntime")
    return module


@rows(lambda row: row.expected is not UNSTABLE)
def test_onnxruntime_itself(row: Row, onnxruntime: ModuleType, make_env: MakeEnv) -> None:
    """The table holds for what it was made from."""
    check_result(row, make_env(onnxruntime))


@rows(lambda row: prints(row) and row.expected is not UNSTABLE)
def test_output_of_onnxruntime_itself(
    row: Row, onnxruntime: ModuleType, make_env: MakeEnv, capfd: pytest.CaptureFixture[str]
) -> None:
    check_output(row, make_env(onnxruntime), capfd)


def test_every_call_stands_once() -> None:
    calls = [(row.section, row.call) for row in all_rows.ROWS]
    assert len(set(calls)) == len(calls)
    assert not {row.call for row in all_rows.ROWS} & set(all_rows.LEFT_OUT)
