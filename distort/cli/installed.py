"""Which packages distort wants, from its own metadata, and which of them are installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version

_REQUIREMENT = re.compile(r"\s*(?P<name>[A-Za-z0-9._-]+)\s*(?:\[(?P<extras>[^]]*)\])?\s*\(?(?P<specifier>[^;)]*)\)?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A package that distort, or one of its extras, asks for."""

    name: str
    specifier: str  # ">=2.1"
    installed: str | None  # its version

    @property
    def satisfied(self) -> bool:
        """Whether it is there in a version that fits; any version does where `packaging` is missing."""
        if self.installed is None:
            return False
        try:
            from packaging.specifiers import SpecifierSet
        except ModuleNotFoundError:  # comes with Ray
            return True
        return SpecifierSet(self.specifier).contains(self.installed, prereleases=True)

    @property
    def text(self) -> str:
        if self.installed is None:
            return f"{self.name} is missing"
        return f"{self.name} {self.installed}" + ("" if self.satisfied else f", wanted {self.specifier}")


def packages() -> dict[str, list[Wanted]] | None:
    """By extra ("" is what distort can't do without), extras of extras included; None where distort isn't installed."""
    try:
        found = distribution("distort")
    except PackageNotFoundError:
        return None
    parsed = _parse(found)
    return {extra: _with_nested(extra, parsed) for extra in parsed}


def _parse(found: Distribution) -> dict[str, list[tuple[Wanted, list[str]]]]:
    parsed: dict[str, list[tuple[Wanted, list[str]]]] = {"": []}
    parsed.update((extra, []) for extra in found.metadata.get_all("Provides-Extra") or ())
    for text in found.requires or ():
        requirement, _, marker = text.partition(";")
        match = _REQUIREMENT.match(requirement)
        if match is None:
            continue
        of_extra = _EXTRA.search(marker)
        name = match["name"]
        nested = [item.strip() for item in (match["extras"] or "").split(",")] if name == "distort" else []
        wanted = Wanted(name, match["specifier"].strip(), _version(name))
        parsed.setdefault(of_extra[1] if of_extra else "", []).append((wanted, nested))
    return parsed


def _with_nested(extra: str, parsed: dict[str, list[tuple[Wanted, list[str]]]]) -> list[Wanted]:
    flat = []
    for wanted, nested in parsed.get(extra, ()):
        if nested:
            flat += [item for inner in nested if inner != extra for item in _with_nested(inner, parsed)]
        else:
            flat.append(wanted)
    return flat


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
