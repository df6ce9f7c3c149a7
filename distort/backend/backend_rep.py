"""A prepared model: runs over inputs by position."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.backend.base import BackendRep

from distort.options import RunOptions
from distort.session import InferenceSession

_ALLOWED = ("log_severity_level", "log_verbosity_level", "logid", "only_execute_path_to_fetches")


class OnnxRuntimeBackendRep(BackendRep):
    """A session that takes its inputs by position."""

    def __init__(self, session: InferenceSession) -> None:
        self._session = session

    def run(self, inputs: Any, **kwargs: Any) -> list[Any]:  # type: ignore[override]  # as in run_model
        """Outputs for a list with one value an input, or for the one input's value. ``kwargs`` are run options."""
        options = RunOptions()
        for name, value in kwargs.items():
            if name in _ALLOWED:
                setattr(options, name, value)
            elif hasattr(options, name):
                raise RuntimeError(
                    f"RunOptions attribute '{name}' is not permitted via the backend API. "
                    f"Allowed attributes: {', '.join(_ALLOWED)}"
                )
        arguments = self._session.get_inputs()
        if isinstance(inputs, list):
            feeds = {argument.name: _array(inputs[i]) for i, argument in enumerate(arguments)}
        elif len(arguments) != 1:
            raise RuntimeError(f"Model expect {len(arguments)} inputs")
        else:
            feeds = {arguments[0].name: _array(inputs)}
        return self._session.run(None, feeds, options)


def _array(value: Any) -> Any:
    """A numpy scalar, which sessions don't take, as an array."""
    return np.asarray(value) if isinstance(value, np.generic) else value
