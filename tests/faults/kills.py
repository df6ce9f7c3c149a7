"""Kill -9 of random actors at random moments of random runs; ``python tests/faults/kills.py 200`` does it often.

Three models: a chain of products, a diamond whose branches meet, a state that stays on its actor from run to run. Two
threads run at the same time. Whatever is killed: each run gives the right answer, or an error that names what was lost
where that was a resident value; it ends within its deadline; the session goes on.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx.parser
import psutil

import distort

SIZE = 96
#: longer than any run takes with its replays, and much shorter than a hang
DEADLINE_S = 30.0

CHAIN = """
<ir_version: 9, opset_import: ["" : 17]>
chain (float[96,96] x, int64 trips) => (float[96,96] y) {
    a = Loop (trips, yes, x) <body = one (int64 i, bool go, float[96,96] s) => (bool still, float[96,96] t) {
        still = Identity (go)
        p = MatMul (s, s)
        t = Tanh (p)
    }>
    b = Tanh (a)
    c = Loop (trips, yes, b) <body = two (int64 i, bool go, float[96,96] s) => (bool still, float[96,96] t) {
        still = Identity (go)
        p = MatMul (s, s)
        t = Tanh (p)
    }>
    y = Add (c, x)
}
"""
DIAMOND = """
<ir_version: 9, opset_import: ["" : 17]>
diamond (float[96,96] x, int64 trips) => (float[96,96] y) {
    a = Tanh (x)
    b = Loop (trips, yes, a) <body = one (int64 i, bool go, float[96,96] s) => (bool still, float[96,96] t) {
        still = Identity (go)
        p = MatMul (s, s)
        t = Tanh (p)
    }>
    c = Loop (trips, yes, x) <body = two (int64 i, bool go, float[96,96] s) => (bool still, float[96,96] t) {
        still = Identity (go)
        p = MatMul (s, s)
        t = Sin (p)
    }>
    d = Add (b, c)
    y = Mul (d, x)
}
"""
STATE = """
<ir_version: 9, opset_import: ["" : 17]>
state (float[96,96] x, float[96,96] state, int64 trips) => (float[96,96] y, float[96,96] next) {
    a = Loop (trips, yes, x) <body = one (int64 i, bool go, float[96,96] s) => (bool still, float[96,96] t) {
        still = Identity (go)
        p = MatMul (s, s)
        t = Tanh (p)
    }>
    next = Add (state, a)
    b = Tanh (next)
    y = Add (b, x)
}
"""
TEXTS = {"chain": CHAIN, "diamond": DIAMOND, "state": STATE}


def build(name: str) -> bytes:
    model = onnx.parser.parse_model(TEXTS[name])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    return model.SerializeToString()


def open_session(name: str) -> distort.InferenceSession:
    options = distort.SessionOptions()
    options.execution_mode = distort.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 3 if name == "diamond" else 2
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    for key, value in {"start": "wait", "timeout_s": str(DEADLINE_S), "costs": "estimated"}.items():
        options.add_session_config_entry(f"distort.{key}", value)
    return distort.InferenceSession(build(name), options)


def feeds_of(number: int, trips: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(number).normal(0, 0.1, (SIZE, SIZE)).astype(np.float32)
    return {"x": x, "trips": np.array(trips)}


@dataclass
class Tally:
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def hammer(name: str, n_kills: int, seed: int) -> Tally:
    """Runs in two threads while actors are killed; returns what became of the runs."""
    chance = random.Random(seed)
    here = distort.InferenceSession(build(name))
    tally = Tally()
    stopped = threading.Event()
    with open_session(name) as session:
        executor = session._sess._loaded.engine.executor

        def runs(thread: int) -> None:
            number = 1000 * thread
            caller = _Caller(here, session, name == "state", tally)
            while not stopped.is_set():
                number += 1
                started = time.monotonic()
                with _no_more_than(tally, name, number):
                    caller.run(number, (number % 4) * 60)
                tally.slowest_s = max(tally.slowest_s, time.monotonic() - started)

        threads = [threading.Thread(target=runs, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        while tally.outcomes["kills"] < n_kills:
            time.sleep(chance.uniform(0.0, 1.2))
            alive = [host.pid for host in executor.hosts if _lives(host.pid)]
            # now and then two at once
            for pid in chance.sample(alive, min(len(alive), 1 + (chance.random() < 0.1))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    tally.outcomes["kills"] += 1
        # actors that have only begun to be restarted answer too
        deadline = time.monotonic() + DEADLINE_S
        while tally.outcomes["right"] < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        stopped.set()
        for thread in threads:
            thread.join(2 * DEADLINE_S)
            if thread.is_alive():
                tally.wrong.append(f"{name}: a run hangs")
        # the session goes on
        feeds = feeds_of(7, 3)
        if name == "state":
            feeds["state"] = np.zeros((SIZE, SIZE), np.float32)
        np.testing.assert_allclose(session.run(["y"], feeds)[0], here.run(["y"], feeds)[0], rtol=1e-4, atol=1e-5)
    return tally


def _lives(pid: int) -> bool:
    try:
        return pid != 0 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def _no_more_than(tally: Tally, name: str, number: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  # all that is not expected is written down
        tally.wrong.append(f"{name}, run {number}: {type(error).__name__}: {error}")


class _Caller:
    """One thread's runs; a state is kept on its actor from run to run, and made anew where it was lost."""

    def __init__(
        self, here: distort.InferenceSession, session: distort.InferenceSession, keeps: bool, tally: Tally
    ) -> None:
        self.here, self.session, self.keeps, self.tally = here, session, keeps, tally
        self._start_anew()

    def _start_anew(self) -> None:
        self.wanted = np.zeros((SIZE, SIZE), np.float32)
        self.kept: distort.OrtValue = distort.OrtValue.ortvalue_from_numpy(self.wanted)
        self.resident = False

    def run(self, number: int, trips: int) -> None:
        feeds = feeds_of(number, trips)
        if not self.keeps:
            got = self.session.run(["y"], feeds)[0]
            self._compare(number, got, self.here.run(["y"], feeds)[0])
            self.tally.outcomes["right"] += 1
            return
        values = {name: distort.OrtValue.ortvalue_from_numpy(value) for name, value in feeds.items()}
        try:
            y, following = self.session.run_with_ort_values(["y", "next"], {**values, "state": self.kept})
            got = y.numpy()
        except Exception as error:
            text = str(error)
            if not self.resident and "Make it again" not in text and "value" not in text:
                raise
            if not any(word in text for word in ("lost", "Make it again", "actor")):
                raise
            self.tally.outcomes["told of a lost value"] += 1
            self._start_anew()
            return
        wanted_y, wanted = self.here.run(["y", "next"], {**feeds, "state": self.wanted})
        self._compare(number, got, wanted_y)
        self.wanted, self.kept, self.resident = wanted, following, True
        self.tally.outcomes["right"] += 1

    def _compare(self, number: int, got: np.ndarray, wanted: np.ndarray) -> None:
        if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=1e-4, atol=1e-5):
            self.tally.wrong.append(f"run {number}: a wrong answer, off by {np.abs(got - wanted).max()}")


def main() -> int:
    n_kills = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6)
    failed = False
    for i, name in enumerate(TEXTS):
        tally = hammer(name, n_kills // 3 + (i < n_kills % 3), seed + i)
        failed |= bool(tally.wrong)
        print(f"{name} (seed {seed + i}): {dict(tally.outcomes)}, slowest run {tally.slowest_s:.1f} s", flush=True)
        for text in tally.wrong[:20]:
            print("  WRONG", text)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
