"""The demo's data: handwritten digits, the model that reads them, and how digits look in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from distort.cli.errors import TaskFailed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

PIXEL_MAXIMUM = 16
_SHADES = " ░▒▓█"
_ASCII_SHADES = " .+#@"


@dataclass(frozen=True, slots=True)
class Digits:
    images: Array  # [N, 1, 8, 8] float32, 0 to 16
    labels: Array  # [N]
    source: str


def held_out() -> Digits:
    """The digits that training did not see, in the file's order."""
    import numpy as np

    with files("distort.cli").joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as data:
        part = data["held_out"]
        images = data["images"][part][:, None].astype(np.float32)
        return Digits(images, data["labels"][part].astype(np.int64), str(data["source"]))


def model() -> bytes:
    """The network of examples/train_digits, as ONNX. Raises TaskFailed where the package lacks it."""
    try:
        return files("distort.cli").joinpath("digits.onnx").read_bytes()
    except FileNotFoundError:
        raise TaskFailed("digits.onnx is missing; examples/train_digits/train.py makes it") from None


def examples(read: Array, labels: Array, how_many: int) -> list[int]:
    """Positions of one digit of each label, in order, and of one that was misread, if there is any, last."""
    wrong = [int(i) for i in (read != labels).nonzero()[0][:1]]
    right = (read == labels).nonzero()[0]
    firsts: dict[int, int] = {}
    for position in right.tolist():
        firsts.setdefault(int(labels[position]), position)
    return [firsts[label] for label in sorted(firsts)][: how_many - len(wrong)] + wrong


def draw(images: Sequence[Array], captions: Sequence[str], width: int, ascii_only: bool) -> list[str]:
    """Images [8, 8] side by side, two characters a pixel, captions beneath; as many in a row as ``width`` holds."""
    shades = _ASCII_SHADES if ascii_only else _SHADES
    cell = 2 * 8 + 2
    in_row = max(1, width // cell)
    lines: list[str] = []
    for start in range(0, len(images), in_row):
        row = images[start : start + in_row]
        for y in range(8):
            lines.append("  ".join("".join(_shade(p, shades) * 2 for p in image[y]) for image in row).rstrip())
        lines.append("  ".join(caption.center(16) for caption in captions[start : start + in_row]).rstrip())
        lines.append("")
    return lines[:-1]


def _shade(pixel: float, shades: str) -> str:
    return shades[round(float(pixel) / PIXEL_MAXIMUM * (len(shades) - 1))]
