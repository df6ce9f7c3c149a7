"""ONNX's backend interface (``onnx.backend.base``) over sessions."""

from __future__ import annotations

import os
import unittest
from typing import Any

from onnx import ModelProto, defs
from onnx.backend.base import Backend
from onnx.checker import check_model

from distort.backend.backend_rep import OnnxRuntimeBackendRep
from distort.options import SessionOptions
from distort.providers import get_available_providers, get_device
from distort.session import InferenceSession

#: options that callers of the backend may set; others touch files or the process
_ALLOWED = (
    "enable_cpu_mem_arena",
    "enable_mem_pattern",
    "enable_mem_reuse",
    "execution_mode",
    "execution_order",
    "graph_optimization_level",
    "inter_op_num_threads",
    "intra_op_num_threads",
    "log_severity_level",
    "log_verbosity_level",
    "logid",
    "use_deterministic_compute",
    "use_per_session_threads",
)


class OnnxRuntimeBackend(Backend):
    """Prepares models for ``run(inputs)`` by position."""

    allowReleasedOpsetsOnly = bool(os.getenv("ALLOW_RELEASED_ONNX_OPSET_ONLY", "1") == "1")

    @classmethod
    def is_compatible(cls, model: Any, device: str | None = None, **kwargs: Any) -> bool:
        """Whether the device is here; the model is judged when it is prepared."""
        return cls.supports_device(get_device() if device is None else device)

    @classmethod
    def is_opset_supported(cls, model: ModelProto) -> tuple[bool, str]:
        """Whether the model uses released opsets only, and if not, which it uses."""
        if cls.allowReleasedOpsetsOnly:
            released = {"": defs.onnx_opset_version(), "ai.onnx": defs.onnx_opset_version(), "ai.onnx.ml": 5}
            for opset in model.opset_import:
                if opset.version > released.get(opset.domain, opset.version):
                    return False, (
                        "Skipping this test as only released onnx opsets are supported."
                        "To run this test set env variable ALLOW_RELEASED_ONNX_OPSET_ONLY to 0."
                        f" Got Domain '{opset.domain or 'ai.onnx'}' version '{opset.version}'."
                    )
        return True, ""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """CPU, or GPU (CUDA) where there is one."""
        if not isinstance(device, str):
            raise TypeError(f"a device is a str, not {type(device).__name__}")
        return ("GPU" if device == "CUDA" else device) == get_device()

    @classmethod
    def prepare(cls, model: Any, device: str | None = None, **kwargs: Any) -> OnnxRuntimeBackendRep:
        """A model (path, bytes, ModelProto, session) ready to run; ``kwargs`` are session options."""
        if isinstance(model, OnnxRuntimeBackendRep):
            return model
        if isinstance(model, InferenceSession):
            return OnnxRuntimeBackendRep(model)
        if not isinstance(model, (str, bytes)):
            content = model.SerializeToString()
            check_model(model)
            supported, text = cls.is_opset_supported(model)
            if not supported:
                raise unittest.SkipTest(text)
            return cls.prepare(content, device, **kwargs)
        options = SessionOptions()
        for name, value in kwargs.items():
            if name in _ALLOWED:
                setattr(options, name, value)
            elif hasattr(options, name):
                raise RuntimeError(
                    f"SessionOptions attribute '{name}' is not permitted via the backend API. "
                    f"Allowed attributes: {', '.join(_ALLOWED)}"
                )
        if device is not None and not cls.supports_device(device):
            raise RuntimeError(f"Incompatible device expected '{device}', got '{get_device()}'")
        return cls.prepare(InferenceSession(model, options, get_available_providers()), device, **kwargs)

    @classmethod
    def run_model(  # type: ignore[override]  # onnx says tuple, onnxruntime returns a list
        cls, model: Any, inputs: Any, device: str | None = None, **kwargs: Any
    ) -> list[Any]:
        """Prepare and run; ``kwargs`` serve both."""
        return cls.prepare(model, device, **kwargs).run(inputs, **kwargs)

    @classmethod
    def run_node(cls, node: Any, inputs: Any, device: Any = None, outputs_info: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError("It is much more efficient to run a whole model than every node independently.")


is_compatible = OnnxRuntimeBackend.is_compatible
prepare = OnnxRuntimeBackend.prepare
run = OnnxRuntimeBackend.run_model
supports_device = OnnxRuntimeBackend.supports_device
