from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

import distort as onnxruntime
from distort.capi.onnxruntime_pybind11_state import InvalidArgument


def make(path: str, threads: int, parallel: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.enable_profiling = False
    options.optimized_model_filepath = ""
    if parallel:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        path, sess_options=options, providers=[("CPUExecutionProvider", {}), "CUDAExecutionProvider"]
    )


def predict(session: onnxruntime.InferenceSession, x: np.ndarray[Any, Any]) -> Sequence[Any]:
    name: str = session.get_inputs()[0].name
    shape: list[int | str | None] = session.get_inputs()[0].shape
    print(name, shape, session.get_modelmeta().custom_metadata_map.get("k"))
    run_options = onnxruntime.RunOptions()
    run_options.terminate = False
    try:
        return session.run([output.name for output in session.get_outputs()], {name: x}, run_options)
    except InvalidArgument as error:
        raise SystemExit(str(error)) from error


def bind(session: onnxruntime.InferenceSession, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    value = onnxruntime.OrtValue.ortvalue_from_numpy(x, "cpu", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", value)
    binding.bind_output("y", "cpu")
    session.run_with_iobinding(binding)
    pointer: int = value.data_ptr()
    print(pointer, value.shape(), value.data_type())
    return binding.get_outputs()[0].numpy()


def later(session: onnxruntime.InferenceSession, x: np.ndarray[Any, Any]) -> None:
    done = threading.Event()

    def callback(results: list[Any], user_data: object, error: str) -> None:
        print(error if error else results[0].shape)
        done.set()

    session.run_async(None, {"x": x}, callback, None)
    done.wait()


if __name__ == "__main__":
    with make("model.onnx", 2) as opened:
        print(predict(opened, np.zeros((2, 3), np.float32)), opened.plan.to_text())
        print(onnxruntime.get_available_providers(), onnxruntime.__version__, onnxruntime.get_device())
