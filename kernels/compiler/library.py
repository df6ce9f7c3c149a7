"""Compiled kernels of this process, and the objects on disk that they come from."""

from __future__ import annotations

import functools
import importlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from distort.kernels.compiler import elf
from distort.kernels.compiler.codegen.target import Target, host
from distort.kernels.compiler.codegen.text import Function
from distort.kernels.compiler.keys import FAMILIES, Key
from distort.kernels.compiler.objects import ObjectCache

#: kernels of an object: so that somebody who waits sees that they get done, and their common parts are printed once
BATCH = 8


def module_text(keys: Iterable[Key], target: Target) -> str:
    """LLVM IR of a module with these kernels."""
    return link([function_of(key, target) for key in keys], target)


def function_of(key: Key, target: Target) -> Function:
    """The kernel, printed."""
    where, _, name = FAMILIES[key.family].partition(":")
    emit: Callable[..., None] = getattr(importlib.import_module(where), name)
    function = Function(key.symbol)
    function.target = target
    emit(function, target, *key.parameters)
    return function


def link(functions: Sequence[Function], target: Target) -> str:
    """One module of several functions."""
    declared: dict[str, str] = {}
    bodies = []
    parts = {name: part for function in functions for name, part in function.parts.items()}
    for function in [*parts.values(), *functions]:
        body, needs = function.text()
        bodies.append(body)
        declared.update(needs)
    own = {function.name for function in functions}
    outside = [f"declare {text}" for text in declared.values() if text.split("@")[1].split("(")[0] not in own]
    attributes = ['"no-trapping-math"="true"', '"no-signed-zeros-fp-math"="false"', "nounwind"]
    if target.vector_nbytes == 64:
        attributes += ['"prefer-vector-width"="512"', '"min-legal-vector-width"="512"']
    return "\n".join(
        [f'target triple = "{target.triple}"', *outside, *bodies, f"attributes #0 = {{ {' '.join(attributes)} }}", ""]
    )


def compile_text(text: str, target: Target) -> bytes:
    """Object code of a module. Raises RuntimeError with LLVM's words where the text is wrong."""
    from llvmlite import binding

    _initialize()
    machine = _machine(target)
    module = binding.parse_assembly(text)
    options = binding.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = binding.create_pass_builder(machine, options)
    passes = binding.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_new_gvn_pass()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return bytes(machine.emit_object(module))


@functools.cache
def _initialize() -> None:
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()


_machine_of = threading.local()


def _machine(target: Target) -> Any:
    """LLVM's machine of a target. One for each thread: LLVM's own are not to be shared."""
    from llvmlite import binding

    machines: dict[Target, Any] = _machine_of.__dict__.setdefault("by_target", {})
    if target not in machines:
        found = binding.Target.from_triple(target.triple)
        machines[target] = found.create_target_machine(
            cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="jitdefault", jit=True
        )
    return machines[target]


class Library:
    """Kernels by their keys, as addresses. Thread-safe; what was loaded stays."""

    def __init__(self, target: Target | None = None, cache: ObjectCache | None = None) -> None:
        self.target = target or host()
        self._cache = cache
        self._addresses: dict[Key, int] = {}
        self._by_symbol: dict[str, int] = {}
        self.engines: list[Any] = []
        self._lock = threading.Lock()
        #: seconds spent in LLVM and in printing for it
        self.compile_s = 0.0
        #: told how many kernels there are, and of how many, while some are compiled
        self.watch: Callable[[int, int], None] | None = None

    def get(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Addresses of kernels, compiled where they are not there yet, ``BATCH`` of them in a module."""
        wanted = list(dict.fromkeys(keys))
        with self._lock:
            missing = sorted((key for key in wanted if key not in self._addresses), key=lambda key: key.symbol)
            if missing:
                self._add(missing)
            return {key: self._addresses[key] for key in wanted}

    def _add(self, keys: Sequence[Key]) -> None:
        symbols = {key: key.symbol for key in keys}
        missing = [key for key in keys if not self._load_kept(symbols[key], symbols[key])]
        for first in range(0, len(missing), BATCH):
            self._tell(first, len(missing))
            batch = missing[first : first + BATCH]
            self._compile([symbols[key] for key in batch], partial(module_text, batch, self.target))
        if missing:
            self._tell(len(missing), len(missing))
        self._addresses.update({key: self._by_symbol[symbol] for key, symbol in symbols.items()})

    def named(self, name: str, symbols: Sequence[str], text: Callable[[], str]) -> list[int]:
        """Addresses of functions that are no kernels. ``text`` prints their module, where it is not on disk."""
        with self._lock:
            if not self._load_kept(name, symbols[0]):
                self._compile(symbols, text, name)
            return [self._by_symbol[symbol] for symbol in symbols]

    def _load_kept(self, name: str, symbol: str) -> bool:
        """Load a function, and all that its object has. False where it is neither here nor on disk."""
        if symbol in self._by_symbol:
            return True
        found = self._cache.find(name, self.target) if self._cache is not None else None
        if found is None or symbol not in found[0]:
            return False
        self._load(*found)
        return True

    def _compile(self, symbols: Sequence[str], text: Callable[[], str], name: str = "") -> None:
        began = time.perf_counter()
        code = compile_text(text(), self.target)
        self.compile_s += time.perf_counter() - began
        if self._cache is not None:
            self._cache.keep(symbols, self.target, code, name)
        self._load(symbols, code)

    def _load(self, symbols: Sequence[str], code: bytes) -> None:
        for symbol, address in zip(symbols, load(code, symbols, self.engines), strict=True):
            self._by_symbol.setdefault(symbol, address)  # one that is here is in use

    def _tell(self, done: int, total: int) -> None:
        if self.watch is not None:
            self.watch(done, total)


def load(code: bytes, symbols: Sequence[str], engines: list[Any]) -> list[int]:
    """Addresses of an object's functions, valid as long as what may be appended to ``engines``.

    LLVM loads what ``elf`` doesn't. Each such object has an engine of its own: an engine finds internal functions by
    name in all of its objects, and what two objects name alike need not be the same.
    """
    loaded = elf.load(code, symbols)
    if loaded is not None:
        return loaded
    from llvmlite import binding

    _initialize()
    empty = binding.parse_assembly("")
    engine = binding.create_mcjit_compiler(empty, binding.Target.from_default_triple().create_target_machine(jit=True))
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    engines.append(engine)
    return [engine.get_function_address(symbol) for symbol in symbols]


@functools.cache
def shared() -> Library:
    """The library of this process."""
    return Library(cache=ObjectCache.default())


__all__ = ["Library", "compile_text", "link", "load", "module_text", "shared"]
