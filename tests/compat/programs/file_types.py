"""Magika names the types of files."""

import json

from magika import Magika

SAMPLES = {
    "python": "import os\n\n\ndef main() -> None:\n    for name in os.listdir('.'):\n        print(name)\n\n\nmain()\n"
    * 3,
    "json": '{"name": "distort", "tags": ["onnx", "actors"], "numbers": [1, 2, 3], "nested": {"a": null, "b": true}}',
    "html": "<!DOCTYPE html>\n<html><head><title>A page</title></head><body><p>Text</p></body></html>\n",
    "shell": '#!/bin/bash\nset -euo pipefail\nfor f in *.txt; do\n  echo "$f"\n  wc -l "$f"\ndone\nexit 0\n' * 2,
}
magika = Magika()
print(
    json.dumps({name: str(magika.identify_bytes(content.encode()).output.label) for name, content in SAMPLES.items()})
)
