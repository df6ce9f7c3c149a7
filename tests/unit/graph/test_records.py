"""Dataclasses that are made fast: each case holds for the standard library's too."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

import distort
from distort.graph import records
from distort.graph.types import TensorType

ROOT = Path(distort.__file__).parents[1]
BOTH = pytest.mark.parametrize("make", [records.dataclass, dataclasses.dataclass], ids=["ours", "standard"])


@BOTH
def test_arguments_defaults_and_what_follows(make: Callable[..., Any]) -> None:
    class Plain:
        kind: ClassVar[str] = "plain"
        a: int
        b: str = "b"
        c: list[int] = dataclasses.field(default_factory=list)
        d: int = dataclasses.field(init=False, repr=False, compare=False)

        def __post_init__(self) -> None:
            self.d = self.a + 1

    made = make(slots=True)(Plain)
    one = made(1)
    assert (one.a, one.b, one.c, one.d, one.kind) == (1, "b", [], 2, "plain")
    assert repr(one).endswith("Plain(a=1, b='b', c=[])")
    assert one == made(1, c=[]) and one != made(1, "c") and one != (1, "b", [])
    assert made(1).c is not one.c
    assert not hasattr(one, "__dict__")
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        made()
    with pytest.raises(TypeError, match="unexpected keyword"):
        made(1, e=2)
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    assert [field.name for field in dataclasses.fields(made)] == ["a", "b", "c", "d"]
    assert dataclasses.replace(one, b="x") == made(1, "x")
    assert dataclasses.asdict(one) == {"a": 1, "b": "b", "c": [], "d": 2}
    match one:
        case made(a, b):
            assert (a, b) == (1, "b")


@BOTH
@pytest.mark.parametrize("slots", [False, True])
def test_frozen(make: Callable[..., Any], slots: bool) -> None:
    class Point:
        x: int
        y: int = 0

    made = make(frozen=True, slots=slots)(Point)
    assert hash(made(1, 2)) == hash((1, 2)) and made(1, 2) in {made(1, 2)}
    for change in (lambda: setattr(made(1), "x", 2), lambda: delattr(made(1), "x")):
        with pytest.raises(dataclasses.FrozenInstanceError, match=r"cannot (assign to|delete) field 'x'"):
            change()
    assert copy.deepcopy(made(3)) == made(3) == copy.copy(made(3))


@BOTH
def test_inheritance(make: Callable[..., Any]) -> None:
    class Base:
        a: int
        b: list[int] = dataclasses.field(default_factory=list, kw_only=True)

    base = make(eq=False)(Base)
    below = make(eq=False)(type("Below", (base,), {"__annotations__": {"c": "int"}, "c": 5}))
    one = below(1)
    assert (one.a, one.b, one.c) == (1, [], 5)
    assert below(1, 2, b=[3]).b == [3] and below.__match_args__ == ("a", "c")
    assert one == one and one != below(1) and hash(one) is not None
    assert base(2).a == 2


def test_either_kind_inherits_from_the_other() -> None:
    @dataclasses.dataclass(eq=False)
    class Theirs:
        a: int

    @records.dataclass(eq=False)
    class Ours(Theirs):
        b: int

    @dataclasses.dataclass(eq=False)
    class Again(Ours):
        c: int = 3

    one = Again(1, 2)
    assert (one.a, one.b, one.c) == (1, 2, 3)


def test_what_a_class_defines_itself_stays() -> None:
    @records.dataclass(frozen=True, slots=True)
    class Own:
        a: int

        def __hash__(self) -> int:
            return 7

        def __repr__(self) -> str:
            return "own"

    assert (hash(Own(1)), repr(Own(1))) == (7, "own")


def test_a_default_that_all_would_share_is_refused() -> None:
    class Shared:
        a: list[int] = []  # noqa: RUF012

    with pytest.raises(ValueError, match="default_factory"):
        records.dataclass(Shared)


def test_values_that_are_compared_as_tuples_are() -> None:
    @records.dataclass(frozen=True, slots=True)
    class One:
        a: Any

    array = np.arange(3)
    assert One(array) == One(array)  # the same array, as in tuples
    assert One(float("nan")) != One(float("nan"))


def test_a_class_of_ours_crosses_processes() -> None:
    one = TensorType(1, (1, "N", None))
    assert pickle.loads(pickle.dumps(one)) == one


def test_every_class_of_ours_can_be_made() -> None:
    """Their methods are compiled when they are first used: here, of all of them."""
    for folder, package in (("distort", "distort"), ("kernels", "distort.kernels")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "graph.records import" in path.read_text():
                import_module(".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]))
    known = [cls for cls in _below(object) if "__dataclass_params__" in vars(cls) and "distort." in cls.__module__]
    ours = [cls for cls in known if isinstance(vars(cls)["__dataclass_params__"], SimpleNamespace)]
    assert len(ours) > 80
    for cls in ours:
        records._initializer(cls, cls.__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _below(cls: type) -> set[type]:
    below: set[type] = set()
    for one in type.__subclasses__(cls):
        if one is not type and one not in below:
            below |= {one, *_below(one)}
    return below
