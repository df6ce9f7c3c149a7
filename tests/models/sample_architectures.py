"""Write architectures.npz: a sample of onnxruntime's outputs for each architecture with its seeded weights.

Run from the checkout's root with onnxruntime installed: ``python tests/models/sample_architectures.py FOLDER``, where
FOLDER is what the models' ``arch/materialize.py`` wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

N_SAMPLES = 256


def main(folder: Path) -> None:
    import onnxruntime

    arrays: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*/model.onnx")):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feeds = dict(np.load(path.with_name("inputs.npz")))
        names = [output.name for output in session.get_outputs()]
        for name, value in zip(names, session.run(names, feeds), strict=True):
            flat = value.reshape(-1)
            positions = np.unique(np.linspace(0, flat.size - 1, min(N_SAMPLES, flat.size)).astype(np.int64))
            key = f"{path.parent.name}/{name}"
            arrays[f"{key}/positions"] = positions
            arrays[f"{key}/values"] = flat[positions]
            arrays[f"{key}/scale"] = np.asarray(np.abs(flat).max())
            arrays[f"{key}/shape"] = np.asarray(value.shape)
    np.savez_compressed(Path(__file__).with_name("architectures.npz"), **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
