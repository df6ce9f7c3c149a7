"""Opens and closes compiled sessions, and runs one for long: prints what the process has after each part, as JSON."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import psutil
from onnx import numpy_helper

import distort

_LAYERS = """g (float[N,96] x) => (float[N,96] y) {
    a = MatMul(x, w)  c = Add(a, b)  d = Gelu(c)  e = MatMul(d, w)  f = Add(e, x)  y = Softmax(f)
}"""
#: a shape that the first run shows, and a loop
_SURPRISES = """g (float[N,96] x) => (float[A,B] y, float[M,96] z) {
    found = NonZero(x)  f = Cast<to = 1>(found)  t = Transpose(f)  y = Softmax(t)
    n = Constant<value = int64 {3}>()
    go = Constant<value = bool {1}>()
    z = Loop(n, go, x) <body = round (int64 i, bool c, float[N,96] p) => (bool d, float[N,96] q) {
        d = Identity(c)  s = Tanh(p)  q = Neg(s)
    }>
}"""


def model(text: str, seed: int) -> onnx.ModelProto:
    made = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]>\n{text}')
    random = np.random.default_rng(seed)
    for name, shape in (("w", (96, 96)), ("b", (96,))):
        values = random.standard_normal(shape).astype(np.float32) / 10
        made.graph.initializer.append(numpy_helper.from_array(values, name))
    return made


def use(number: int, folder: Path) -> None:
    """One session's life: from bytes or a file, closed or forgotten."""
    made = model(_SURPRISES if number % 4 == 3 else _LAYERS, number)
    options = distort.SessionOptions()
    options.intra_op_num_threads = 2
    if number % 2:
        source: str | bytes = str(folder / "model.onnx")
        onnx.save(made, source)
    else:
        source = made.SerializeToString()
    session = distort.InferenceSession(source, options)
    for n in (1, 64, 3):
        session.run(None, {"x": np.ones((n, 96), np.float32)})
    if number % 3:
        session.close()


def state(known_threads: int = 0) -> dict[str, int]:
    process = psutil.Process()
    gc.collect()
    deadline = time.monotonic() + 5
    while known_threads and process.num_threads() > known_threads and time.monotonic() < deadline:
        time.sleep(0.01)  # they end a moment after their session
    return {
        "files": process.num_fds(),
        "threads": process.num_threads(),
        "resident_kb": process.memory_info().rss >> 10,
        "objects": len(gc.get_objects()),
    }


def main(folder: Path, n_sessions: int, n_runs: int) -> None:
    states = []
    for number in range(2 * n_sessions):
        use(number, folder)
        if number + 1 in (n_sessions, 2 * n_sessions):
            states.append(state(states[0]["threads"] if states else 0))
    session = distort.InferenceSession(model(_LAYERS, 0).SerializeToString())
    x = np.ones((64, 96), np.float32)
    for _ in range(2):
        for _ in range(n_runs):
            session.run(None, {"x": x})
        states.append(state())
    print(json.dumps(states))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
