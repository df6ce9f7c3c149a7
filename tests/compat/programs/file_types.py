"""Magika names the types of files."""

import json

from magika import Magika

SAMPLES = {
    "python": b"import os\n\n\ndef main() -> None:\n    for name in os.listdir('.'):\n        print(name)\n\n\nif __name__ == '__main__':\n    main()\n" * 3,
    "json": b'{"name": "distort", "tags": ["onnx", "actors"], "numbers": [1, 2, 3], "nested": {"a": null, "b": true}}' * 1,
    "html": b"<!DOCTYPE html>\n<html><head><title>A page</title></head><body><p>Text</p><ul><li>One</li></ul></body></html>\n" * 2,
    "shell": b"#!/bin/bash\nset -euo pipefail\nfor f in *.txt; do\n  echo \"$f\"\n  wc -l \"$f\"\ndone\nexit 0\n" * 2,
}
magika = Magika()
print(json.dumps({name: str(magika.identify_bytes(content).output.label) for name, content in SAMPLES.items()}))
