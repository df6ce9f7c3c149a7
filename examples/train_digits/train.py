"""Train the demo's digit classifier in plain numpy and write it as distort/cli/digits.onnx.

    python examples/train_digits/train.py

Seeded; under two minutes on two cores. Refuses to write a model below 98 % on the held-out part, which training
never sees. Another BLAS sums in another order, so weights trained elsewhere differ in their last digits.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
from export import to_onnx
from layers import Adam, Array, Chain, Conv, Dense, Flatten, MaxPool, Relu, Residual, softmax_cross_entropy

DATA = Path(__file__).resolve().parents[2] / "distort" / "cli" / "digits.npz"
REQUIRED_ACCURACY = 0.98
PIXEL_MAXIMUM = np.float32(16)


def network(rng: np.random.Generator) -> Chain:
    """[N, 1, 8, 8] -> logits [N, 10]."""
    return Chain(
        [
            Conv(rng, 1, 16),
            Relu(),
            Residual(Conv(rng, 16, 16), Relu(), Conv(rng, 16, 16)),
            Relu(),
            MaxPool(),  # [N, 16, 4, 4]
            Conv(rng, 16, 32),
            Relu(),
            MaxPool(),  # [N, 32, 2, 2]
            Flatten(),
            Dense(rng, 128, 64),
            Relu(),
            Dense(rng, 64, 10),
        ]
    )


def shifted(rng: np.random.Generator, x: Array) -> Array:
    """Each image moved by -1, 0 or 1 pixel in each direction; what comes in is blank. x: [N, 1, 8, 8]."""
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    top, left = rng.integers(0, 3, (2, len(x), 1))
    rows = (top + np.arange(height))[:, :, None]
    columns = (left + np.arange(width))[:, None, :]
    return padded[np.arange(len(x))[:, None, None], 0, rows, columns][:, None]


def accuracy(model: Chain, x: Array, labels: Array) -> float:
    return float((model.forward(x).argmax(axis=1) == labels).mean())


def train(model: Chain, x: Array, labels: Array, rng: np.random.Generator, epochs: int, batch: int) -> None:
    adam = Adam(model.parameters())
    total = epochs * (len(x) // batch)
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        losses = []
        for start in range(0, len(x) - batch + 1, batch):
            chosen = order[start : start + batch]
            logits = model.forward(shifted(rng, x[chosen]))
            loss, gradient = softmax_cross_entropy(logits, labels[chosen])
            model.backward(gradient)
            adam.step(1e-3 * (1 + math.cos(math.pi * adam.steps / total)))  # cosine from 2e-3 to zero
            losses.append(loss)
        print(f"epoch {epoch + 1:3}  loss {np.mean(losses):.4f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--output", type=Path, default=DATA.with_suffix(".onnx"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()

    with np.load(options.data) as data:
        x = data["images"][:, None].astype(np.float32) / PIXEL_MAXIMUM
        labels = data["labels"].astype(np.int64)
        held_out = data["held_out"]
    rng = np.random.default_rng(options.seed)
    model = network(rng)
    started = time.perf_counter()
    train(model, x[~held_out], labels[~held_out], rng, options.epochs, options.batch)
    reached = accuracy(model, x[held_out], labels[held_out])
    n_weights = sum(p.value.size for p in model.parameters())
    print(
        f"{n_weights} weights, {time.perf_counter() - started:.1f} s, held out: {reached:.2%} of {held_out.sum()}, "
        f"training part: {accuracy(model, x[~held_out], labels[~held_out]):.2%}"
    )
    if reached < REQUIRED_ACCURACY:
        print(f"below {REQUIRED_ACCURACY:.0%}: not written", file=sys.stderr)
        return 1
    onnx_model = to_onnx(
        model, float(PIXEL_MAXIMUM), {"held_out_accuracy": f"{reached:.4f}", "seed": str(options.seed)}
    )
    options.output.write_bytes(onnx_model.SerializeToString())
    print(f"{options.output}: {options.output.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
