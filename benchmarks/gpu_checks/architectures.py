"""Architectures whose weights are drawn when they are needed: a folder each, ``graph.onnx.gz`` and ``weights.json``.

``weights.json`` has [name, dims, element, mean, standard deviation, least] of each weight.
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import onnx

from gpu_checks.report import Skipped


def model_of(folder: Path) -> onnx.ModelProto:
    """An architecture with seeded weights. Raises Skipped where the folder has none."""
    if not (folder / "graph.onnx.gz").exists():
        raise Skipped(f"there is no {folder / 'graph.onnx.gz'}: give --arch")
    model = onnx.load_from_string(gzip.decompress((folder / "graph.onnx.gz").read_bytes()))
    rng = np.random.default_rng(2026)
    recipes = {name: rest for name, *rest in json.loads((folder / "weights.json").read_text())}
    for tensor in model.graph.initializer:
        if tensor.name not in recipes:
            continue
        dims, element, mean, deviation, least = recipes[tensor.name]
        values = rng.standard_normal(dims, dtype=np.float32) * np.float32(deviation) + np.float32(mean)
        if least is not None:  # variances and scales stay positive
            values = np.maximum(np.abs(values), np.float32(least))
        tensor.raw_data = values.astype(onnx.helper.tensor_dtype_to_np_dtype(element)).tobytes()
    return model


def materialize(folder: Path, out: Path) -> Path:
    """As a file, with the inputs that lie beside."""
    target = out / folder.name
    target.mkdir(parents=True, exist_ok=True)
    onnx.save(model_of(folder), target / "model.onnx")
    if (folder / "inputs.npz").exists():
        shutil.copy(folder / "inputs.npz", target / "inputs.npz")
    return target / "model.onnx"
