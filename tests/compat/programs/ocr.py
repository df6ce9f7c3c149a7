"""RapidOCR reads a rendered line of text."""

import json

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rapidocr_onnxruntime import RapidOCR

image = Image.new("RGB", (640, 120), "white")
ImageDraw.Draw(image).text((20, 30), "Hello world 2026", fill="black", font=ImageFont.load_default(size=48))
lines, _ = RapidOCR()(np.array(image))
print(json.dumps([text for _, text, _ in lines]))
