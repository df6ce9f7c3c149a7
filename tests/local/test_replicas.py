"""A model on several actors that take runs in turn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx

import distort as onnxruntime

from .conftest import actor_pids

#: long enough that actors pay on any machine
MODEL = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[1000,500] x) => (float[1000,500] y) {
    a = Exp (x)
    b = Log (a)
    c = Exp (b)
    d = Log (c)
    e = Exp (d)
    f = Log (e)
    y = Add (f, x)
}
"""


def test_whole_replicas_for_throughput_answer_as_one_process_does() -> None:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    for key, value in {"start": "wait", "objective": "throughput", "replicas": "2", "costs": "estimated"}.items():
        options.add_session_config_entry(f"distort.{key}", value)
    rng = np.random.default_rng(0)
    feeds = [rng.standard_normal((1000, 500)).astype(np.float32) for _ in range(8)]
    content = onnx.parser.parse_model(MODEL).SerializeToString()
    want = [onnxruntime.InferenceSession(content).run(None, {"x": x})[0] for x in feeds]
    with onnxruntime.InferenceSession(content, options) as session:
        assert [len(stage.devices) for stage in session.plan.stages] == [2] * len(session.plan.stages)
        assert len(actor_pids()) == 2 * len(session.plan.stages)
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda x: session.run(None, {"x": x})[0], feeds))
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)
