"""distort under the name of onnxruntime, for programs and libraries that import that themselves.

``distort.compat.install()`` before the first ``import onnxruntime``, or ``python -m distort.compat SCRIPT [ARGUMENT]``
(``-m MODULE`` too). The modules ``onnxruntime``, ``onnxruntime.backend``, ``onnxruntime.capi...`` and
``onnxruntime.datasets`` are then distort's, whether an onnxruntime is installed or not; its tools
(``onnxruntime.quantization``, ``onnxruntime.tools``, ``onnxruntime.transformers``) are not here.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import distort

NAME = "onnxruntime"
#: the onnxruntime whose API this is; libraries look at it to see what they may use
API_VERSION = "1.32.0"

_SUBMODULES = frozenset(
    {
        "backend",
        "backend.backend",
        "backend.backend_rep",
        "capi",
        "capi._pybind_state",
        "capi.build_and_package_info",
        "capi.onnxruntime_inference_collection",
        "capi.onnxruntime_pybind11_state",
        "capi.onnxruntime_validation",
        "datasets",
    }
)


class _Alias(ModuleType):
    """The module ``onnxruntime``: distort, with the version that libraries look for."""

    def __init__(self) -> None:
        super().__init__(NAME, distort.__doc__)
        self.__file__ = distort.__file__
        self.__path__: list[str] = []  # submodules come from the finder alone
        self.__package__ = NAME
        self.__version__ = self.version = API_VERSION
        self.package_name = NAME
        self.__all__ = list(distort.__all__)

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(distort, name)
        except AttributeError:
            raise AttributeError(f"module {NAME!r} has no attribute {name!r} (it is distort here)") from None

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *dir(distort)})


class _Distribution(importlib.metadata.Distribution):
    """What ``importlib.metadata`` tells of onnxruntime."""

    def read_text(self, filename: str) -> str | None:
        if filename in ("METADATA", "PKG-INFO"):
            return f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {API_VERSION}\nSummary: distort in its place\n"
        return None

    def locate_file(self, path: Any) -> Any:
        import pathlib

        return pathlib.Path(str(distort.__file__)).parent / path


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds distort's modules under onnxruntime's names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        head, _, rest = fullname.partition(".")
        if head != NAME or (rest and rest not in _SUBMODULES):
            return None
        package = rest in ("", "backend", "capi", "datasets")
        return importlib.machinery.ModuleSpec(fullname, self, origin=distort.__file__, is_package=package)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return _Alias() if spec.name == NAME else None

    def exec_module(self, module: ModuleType) -> None:
        """Put distort's own module in the new one's place: its classes exist once, under whatever name."""
        if not isinstance(module, _Alias):
            sys.modules[module.__name__] = importlib.import_module(f"distort{module.__name__.removeprefix(NAME)}")

    def find_distributions(self, context: Any = None) -> Iterable[importlib.metadata.Distribution]:
        """Part of ``importlib.metadata``'s protocol for finders."""
        name = getattr(context, "name", None)
        return [_Distribution()] if name is not None and name.lower().replace("_", "-") == NAME else []


_finder = _Finder()


def install() -> None:
    """Make ``import onnxruntime`` mean distort in this process. Safe to call twice.

    Raises RuntimeError where the other onnxruntime was imported before: its classes are in use by then.
    """
    if is_installed():
        return
    loaded = sys.modules.get(NAME)
    if loaded is not None:
        where = getattr(loaded, "__file__", None) or "an unknown place"
        raise RuntimeError(
            f"{NAME} was imported before, from {where}. Call distort.compat.install() before anything imports it, or "
            "run the program by `python -m distort.compat`."
        )
    sys.meta_path.insert(0, _finder)


def uninstall() -> None:
    """Undo :func:`install`; what was imported meanwhile stays with who imported it."""
    if is_installed():
        sys.meta_path.remove(_finder)
        for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
            del sys.modules[name]


def is_installed() -> bool:
    return _finder in sys.meta_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a script or a module with distort as its onnxruntime."""
    import runpy

    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help") or (given[0] == "-m" and len(given) < 2):
        print("usage: python -m distort.compat {SCRIPT | -m MODULE} [ARGUMENT ...]")
        return 0 if given and given[0] in ("-h", "--help") else 2
    install()
    if given[0] == "-m":
        sys.argv = given[1:]
        sys.path.insert(0, "")
        runpy.run_module(given[1], run_name="__main__", alter_sys=True)
    else:
        import os

        if not os.path.exists(given[0]):
            print(f"distort.compat: there is no file {given[0]}", file=sys.stderr)
            return 2
        sys.argv = given
        sys.path.insert(0, os.path.dirname(os.path.abspath(given[0])))
        runpy.run_path(given[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    # the module that runs is not the one that libraries import: its state must be
    from distort.compat import main as run

    sys.exit(run())
