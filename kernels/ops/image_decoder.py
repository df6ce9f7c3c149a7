"""ImageDecoder (ai.onnx, version 20), through Pillow, which is an optional dependency."""

from __future__ import annotations

import io
from types import ModuleType
from typing import Any

import numpy as np

from distort.kernels.errors import InvalidInput
from distort.kernels.registry import kernel

Array = Any
_PILLOW_MODE = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}


@kernel("ImageDecoder", since=20, device="cpu", host=(0,))
def image_decoder(xp: ModuleType, encoded_stream: Array, *, pixel_format: str = "RGB") -> Array:
    """uint8 bytes of a BMP, JPEG, JPEG 2000, PNG, PNM, TIFF or WebP file -> uint8 [height, width, channels]"""
    if pixel_format not in _PILLOW_MODE:
        raise InvalidInput(f"pixel_format '{pixel_format}' is none of {', '.join(_PILLOW_MODE)}")
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise InvalidInput("ImageDecoder needs the package Pillow: pip install 'distort[image]'") from error
    try:
        with Image.open(io.BytesIO(encoded_stream.tobytes())) as image:
            pixels = np.asarray(image.convert(_PILLOW_MODE[pixel_format]))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises any of these for broken files
        raise InvalidInput(f"the encoded image can't be decoded: {error}") from error
    if pixel_format == "BGR":
        pixels = pixels[..., ::-1]
    elif pixel_format == "Grayscale":
        pixels = pixels[..., None]
    return xp.asarray(np.ascontiguousarray(pixels))
