"""Write distort/cli/digits.npz: scikit-learn's handwritten digits, compressed, with a fixed held-out part.

Needs scikit-learn (``pip install scikit-learn``), and no network: the digits come with that package.
The file holds ``images`` [1797, 8, 8] uint8 (0 to 16, more is darker), ``labels`` [1797] uint8, ``held_out`` [1797]
bool (a quarter of each digit, chosen by a seeded shuffle) and ``source``, which names origin and licence.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

SOURCE = (
    "Digits data set of scikit-learn (BSD-3-Clause), from E. Alpaydin and C. Kaynak, Optical Recognition of "
    "Handwritten Digits, UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49 (CC BY 4.0)"
)
SEED = 20240601
HELD_OUT_FRACTION = 0.25
PACKAGE_DATA = Path(__file__).resolve().parents[2] / "distort" / "cli" / "digits.npz"


def held_out_part(labels: np.ndarray) -> np.ndarray:
    """A mask [N] that picks ``HELD_OUT_FRACTION`` of each label."""
    rng = np.random.default_rng(SEED)
    mask = np.zeros(len(labels), dtype=np.bool_)
    for digit in np.unique(labels):
        where = rng.permutation(np.flatnonzero(labels == digit))
        mask[where[: round(len(where) * HELD_OUT_FRACTION)]] = True
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=PACKAGE_DATA)
    output = parser.parse_args().output
    digits = load_digits()
    labels = digits.target.astype(np.uint8)
    np.savez_compressed(
        output,
        images=digits.images.astype(np.uint8),
        labels=labels,
        held_out=held_out_part(labels),
        source=np.array(SOURCE),
    )
    print(f"{output}: {len(labels)} digits, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
