"""The threads of a program: the caller goes through its steps, others take parts of them, look for more, then sleep.

Control words (64-bit), each group in a cache line of its own: the number of the job, odd while there is one; the ticket
of the step that is up, its kernel and words; how many of its parts are done; for each thread whether it sleeps.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
import weakref
from typing import Any

import numpy as np

from distort.kernels.compiler.codegen import drive, entering
from distort.kernels.compiler.codegen.target import host
from distort.kernels.compiler.library import link

#: how often a thread looks for work before it sleeps: about half a millisecond
DEFAULT_SPINS = 10_000


@functools.cache
def _addresses() -> list[int]:
    """Of ``drive``, ``serve``, ``publish``, ``go`` and ``enter``."""
    from distort.kernels.compiler.library import shared

    library = shared()
    target = host()
    functions = [*drive.functions(), *entering.functions()]
    # what an object begins with is as long as the interpreter has it
    name = f"driver-{entering.HEAD_NBYTES}"
    symbols = [f"distort_{function}" for function in ("drive", "serve", "publish", "go", "enter")]
    return library.named(name, symbols, lambda: link(functions, target))


@functools.cache
def entrances() -> tuple[Any, Any, Any]:
    """(``enter``, ``go``, ``go`` without the interpreter's lock), see ``codegen.entering``."""
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    *_, go, enter = _addresses()
    return (
        ctypes.PYFUNCTYPE(word, pointer, ctypes.py_object)(enter),
        ctypes.PYFUNCTYPE(word, pointer)(go),
        ctypes.CFUNCTYPE(word, pointer)(go),
    )


@functools.cache
def _driver() -> tuple[Any, Any, Any]:
    """``drive``, ``serve`` and ``publish`` as functions."""
    addresses = _addresses()
    word, pointer = ctypes.c_int64, ctypes.c_void_p
    return (
        ctypes.CFUNCTYPE(None, pointer, word, word, word, pointer, pointer, pointer)(addresses[0]),
        ctypes.CFUNCTYPE(word, pointer, word, word, word, word)(addresses[1]),
        ctypes.CFUNCTYPE(word, pointer, pointer, word, word)(addresses[2]),
    )


@functools.cache
def yield_address() -> int:
    """A function of the system that lets others run."""
    if sys.platform == "win32":
        function = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class Team:
    """``n_threads`` threads, the caller's among them. Others start with the first job that needs them."""

    def __init__(self, n_threads: int, spins: int = DEFAULT_SPINS) -> None:
        self.n_threads = n_threads
        self._spins = spins
        self._busy = threading.Lock()
        self._drive: Any = None
        self._serve: Any = None
        self._publish: Any = None
        self._control = np.zeros(drive.N_WORDS + 8 * n_threads, np.int64)
        self._control[drive.YIELD] = yield_address()
        self._address = self._control.ctypes.data
        self._wake: list[threading.Semaphore] = []
        self._process = 0
        self._end: weakref.finalize[Any, Any] | None = None

    def run(self, steps: int, n_steps: int, trace: int = 0, cancel: int = 0) -> None:
        """Run steps at an address, on all threads, or on the caller's alone while another run has the others.

        ``trace``: the address of a table of what the caller's thread does; ``cancel``: of a byte that ends the job
        when it is not 0. See ``drive``.
        """
        if self._drive is None:
            self._load()
        if self.n_threads == 1 or not self._busy.acquire(blocking=False):
            self._drive(steps, n_steps, 0, 1, self._address, trace, cancel)
            return
        try:
            if self._process != os.getpid():
                self._start()
            sleeping = self._publish(self._address, steps, n_steps, self.n_threads)
            if sleeping:
                for thread, wake in enumerate(self._wake, 1):
                    if sleeping >> thread & 1:
                        wake.release()
            self._drive(steps, n_steps, 0, self.n_threads, self._address, trace, cancel)
        finally:
            self._busy.release()

    def run_alone(self, steps: int, n_steps: int, trace: int = 0, cancel: int = 0) -> None:
        """Run steps that have no work for a second thread."""
        if self._drive is None:
            self._load()
        self._drive(steps, n_steps, 0, 1, self._address, trace, cancel)

    @property
    def control_address(self) -> int:
        return self._address

    def _load(self) -> None:
        drive_, self._serve, self._publish = _driver()
        self._drive = drive_  # last: who finds it has the others too

    def _start(self) -> None:
        """Start the threads, in this process."""
        self._process = os.getpid()
        self._control[: drive.YIELD] = 0
        self._control[drive.SLEEPS :] = 0
        self._wake = [threading.Semaphore(0) for _ in range(self.n_threads - 1)]
        arguments = (self._control, self._serve, self.n_threads, self._spins)
        for thread, wake in enumerate(self._wake, 1):
            threading.Thread(target=_work, args=(*arguments, thread, wake), name="distort-cpu", daemon=True).start()
        self._end = weakref.finalize(self, _stop, self._control, self._publish, list(self._wake))
        self._end.atexit = False

    def close(self) -> None:
        """End the threads. No run may be under way."""
        if self._end is not None and self._process == os.getpid():
            self._end()
        self._end, self._process = None, 0


def _work(
    control: np.ndarray[Any, Any], serve: Any, n_threads: int, spins: int, thread: int, wake: threading.Semaphore
) -> None:
    """A thread's life: jobs, and sleep between them."""
    last = 0
    while last >= 0:
        last = serve(control.ctypes.data, thread, n_threads, last, spins)
        if last >= 0:
            wake.acquire()


def _stop(control: np.ndarray[Any, Any], publish: Any, wakes: list[threading.Semaphore]) -> None:
    publish(control.ctypes.data, 0, drive.QUIT, len(wakes) + 1)
    for wake in wakes:
        wake.release()
