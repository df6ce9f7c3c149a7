"""signatures.json: what the real CuPy has."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

DATA: dict[str, Any] = json.loads((Path(__file__).parents[1] / "signatures.json").read_text())
INTEGERS: dict[str, int] = DATA["integers"]
_KINDS = inspect.Parameter


def signature_of(parts: list[str]) -> inspect.Signature:
    """A signature of parameters as text: "a", "b=", "*", "/", "*c", "**d"."""
    parameters: list[inspect.Parameter] = []
    keyword_only = False
    positional = _KINDS.POSITIONAL_OR_KEYWORD
    for part in parts:
        name, default = (part[:-1], None) if part.endswith("=") else (part, _KINDS.empty)
        if part == "/":
            parameters = [parameter.replace(kind=_KINDS.POSITIONAL_ONLY) for parameter in parameters]
        elif part == "*":
            keyword_only = True
        elif part.startswith("**"):
            parameters.append(inspect.Parameter(part[2:], _KINDS.VAR_KEYWORD))
        elif part.startswith("*"):
            parameters.append(inspect.Parameter(part[1:], _KINDS.VAR_POSITIONAL))
            keyword_only = True
        else:
            kind = _KINDS.KEYWORD_ONLY if keyword_only else positional
            if default is _KINDS.empty and kind is positional and parameters and parameters[-1].default is None:
                default = None
            parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)
