"""Runs a model on a cluster, over and over, and says where its stages are and what crosses between them.

python run_model.py model.onnx --actors 4 --runs 20 --dim batch=8
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

import distort as onnxruntime


def feed(argument: onnxruntime.NodeArg, dims: dict[str, int]) -> np.ndarray:
    """Random numbers for floating-point inputs, zeros for others; dimensions without a size are 1."""
    element = argument.type.removeprefix("tensor(").removesuffix(")")
    shape = [dim if isinstance(dim, int) else dims.get(dim, 1) for dim in argument.shape]
    if element in ("float", "double", "float16"):
        dtype = {"float": np.float32, "double": np.float64, "float16": np.float16}[element]
        return np.random.default_rng(0).standard_normal(shape).astype(dtype)
    return np.zeros(shape, np.bool_ if element == "bool" else np.dtype(element))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--address", default=os.environ.get("RAY_ADDRESS", "auto"), help="host:port or auto")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="of each actor; 0: the planner decides")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs to run on instead of CPUs, a stage each")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--timeout", type=float, default=60, help="seconds that a run may take")
    parser.add_argument("--dim", action="append", default=[], metavar="NAME=SIZE")
    arguments = parser.parse_args()

    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = arguments.gpus or arguments.actors
    options.intra_op_num_threads = arguments.threads
    options.add_session_config_entry("distort.address", arguments.address)
    options.add_session_config_entry("distort.start", "wait")  # for the actors, rather than answer here meanwhile
    options.add_session_config_entry("distort.timeout_s", f"{arguments.timeout:g}")
    # what nodes lack, they are sent: {"pip": ["onnx"]}, {"env_vars": {…}}
    options.add_session_config_entry("distort.runtime_env", os.environ.get("DISTORT_RUNTIME_ENV", "{}"))
    dims = {name: int(size) for name, _, size in (text.partition("=") for text in arguments.dim)}
    providers = ["CUDAExecutionProvider"] if arguments.gpus else []
    with onnxruntime.InferenceSession(arguments.model, options, providers=providers) as session:
        print(session.plan.to_text())
        feeds = {argument.name: feed(argument, dims) for argument in session.get_inputs()}
        began = time.perf_counter()
        for _ in range(arguments.runs):
            results = session.run(None, feeds)
        seconds = (time.perf_counter() - began) / arguments.runs
        for output, result in zip(session.get_outputs(), results, strict=True):
            print(f"{output.name}: {getattr(result, 'shape', type(result).__name__)}")
        print(f"{seconds * 1e3:.3g} ms a run")
        for edge in session.get_transfer_stats():
            ends = f"{edge['value']}: {edge['producer']} -> {edge['consumer']}"
            print(f"{ends}, {edge['nbytes']} bytes by {edge['transport']}")


if __name__ == "__main__":
    main()
