"""Dataclasses that cost an import little: methods are made when they are first used, by whoever uses them.

``dataclass`` here is ``dataclasses.dataclass`` to type checkers and, for the options it has, at run time. The standard
one compiles up to five methods of every class at import: for the classes of a session that is 30 ms, more than making
a session of a small model. ``dataclasses.replace``, ``fields`` and ``asdict`` take these classes too, and either kind
may inherit from the other.
"""

from __future__ import annotations

import dataclasses
import inspect
import reprlib
from collections.abc import Callable
from dataclasses import MISSING, Field, field
from operator import attrgetter
from types import MemberDescriptorType, SimpleNamespace
from typing import TYPE_CHECKING, Any

_FIELDS = "__dataclass_fields__"
_KIND: Any = dataclasses._FIELD  # type: ignore[attr-defined]  # ``fields`` and ``replace`` look for it


def _made(cls: type, frozen: bool, slots: bool, eq: bool) -> type:
    all_fields: dict[str, Field[Any]] = {}
    for base in reversed(cls.__mro__[1:]):
        all_fields.update(base.__dict__.get(_FIELDS, {}))
    inherited = frozenset(all_fields)
    names = [name for name, kind in inspect.get_annotations(cls).items() if not str(kind).startswith("ClassVar")]
    values = dict(cls.__dict__)
    for name in names:
        values.pop(name, None)
        given = getattr(cls, name, MISSING)  # a base's default too
        if isinstance(given, MemberDescriptorType):
            given = MISSING
        one: Any = given if isinstance(given, Field) else field(default=given)
        if one.default.__class__.__hash__ is None:
            raise ValueError(f"{cls.__name__}.{name}: each instance needs a default of its own: use default_factory")
        one.name, one.type, one._field_type = name, cls.__annotations__[name], _KIND
        one.kw_only = one.kw_only is True
        all_fields[name] = one
        if one.default is not MISSING and not slots:
            values[name] = one.default
    values[_FIELDS] = all_fields
    values["__dataclass_params__"] = SimpleNamespace(frozen=frozen)
    values["__match_args__"] = tuple(name for name, one in all_fields.items() if one.init and not one.kw_only)
    values.setdefault("__repr__", _repr)
    if eq:
        _compare(values, all_fields, frozen)
    if frozen:
        values.setdefault("__setattr__", _refuse_setting)
        values.setdefault("__delattr__", _refuse_deleting)
    if slots:
        values.pop("__dict__", None)
        values.pop("__weakref__", None)
        values["__slots__"] = tuple(name for name in names if name not in inherited)
        if frozen:
            values.setdefault("__getstate__", _state)
            values.setdefault("__setstate__", _set_state)
        made = type(cls)(cls.__name__, cls.__bases__, values)
        made.__qualname__ = cls.__qualname__
    else:
        made = cls
        for name in names:
            if name in cls.__dict__ and name not in values:
                delattr(cls, name)
        for name, value in values.items():
            if cls.__dict__.get(name) is not value:
                setattr(cls, name, value)
    if "__init__" not in cls.__dict__:

        def first(self: Any, *args: Any, **kwargs: Any) -> None:
            made.__init__ = initialize = _initializer(made, frozen)  # type: ignore[misc]
            initialize(self, *args, **kwargs)

        made.__init__ = first  # type: ignore[misc]
    return made


def _initializer(cls: Any, frozen: bool) -> Any:
    """``__init__``, compiled."""
    known: dict[str, Any] = {"_missing": MISSING, "_set": object.__setattr__}
    arguments, lines = ["self"], []
    named: list[str] = []
    for name, one in getattr(cls, _FIELDS).items():
        value = name
        if one.default_factory is not MISSING:
            known[f"_make_{name}"] = one.default_factory
            value = f"_make_{name}()" + (f" if {name} is _missing else {name}" if one.init else "")
            default = "=_missing"
        elif one.default is not MISSING:
            known[f"_default_{name}"] = one.default
            value = name if one.init else f"_default_{name}"
            default = f"=_default_{name}"
        elif not one.init:
            continue  # __post_init__ sets it
        else:
            default = ""
        if one.init:
            (named if one.kw_only else arguments).append(name + default)
        lines.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    if named:
        arguments += ["*", *named]
    exec(f"def __init__({', '.join(arguments)}):\n " + "\n ".join(lines or ["pass"]), known)
    initialize = known["__init__"]
    initialize.__qualname__ = f"{cls.__qualname__}.__init__"
    return initialize


def _compare(values: dict[str, Any], all_fields: dict[str, Field[Any]], frozen: bool) -> None:
    """``__eq__`` by the fields that are compared, and ``__hash__`` where the class is frozen and has none."""
    key = _key([name for name, one in all_fields.items() if one.compare])

    def equal(self: Any, other: Any) -> bool:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    hashed = values.get("__hash__")
    values.setdefault("__eq__", equal)
    if hashed is None:
        values["__hash__"] = (lambda self: hash(key(self))) if frozen else None


def _key(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if not names:
        return lambda one: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda one: (get(one),)


@reprlib.recursive_repr()
def _repr(self: Any) -> str:
    said = [f"{name}={getattr(self, name)!r}" for name, one in getattr(self, _FIELDS).items() if one.repr]
    return f"{self.__class__.__qualname__}({', '.join(said)})"


def _refuse_setting(self: Any, name: str, value: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deleting(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in getattr(self, _FIELDS)]


def _set_state(self: Any, state: list[Any]) -> None:
    for name, value in zip(getattr(self, _FIELDS), state, strict=True):
        object.__setattr__(self, name, value)


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(
        cls: type | None = None, /, *, frozen: bool = False, slots: bool = False, eq: bool = True
    ) -> type | Callable[[type], type]:
        """As the standard library's."""
        if cls is None:
            return lambda cls: _made(cls, frozen, slots, eq)
        return _made(cls, frozen, slots, eq)


__all__ = ["dataclass", "field"]
