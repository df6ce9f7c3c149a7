"""onnxruntime's exception classes and its message grammar, and how the layers below are turned into them.

Every status is ``[ONNXRuntimeError] : <code> : <CODE_NAME> : <text>`` in the class of its code. The classes derive
from ``Exception`` alone, as onnxruntime's do, and are named as ``distort.capi.onnxruntime_pybind11_state.<Class>``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from distort.graph.errors import ModelError

MODULE = "distort.capi.onnxruntime_pybind11_state"
COLLECTION = "distort.capi.onnxruntime_inference_collection"


def _status_class(name: str, doc: str) -> type[Exception]:
    return type(name, (Exception,), {"__module__": MODULE, "__doc__": doc})


Fail = _status_class("Fail", "Status 1: the run or the model failed.")
InvalidArgument = _status_class("InvalidArgument", "Status 2: a feed, a fetch or the model contradicts itself.")
NoSuchFile = _status_class("NoSuchFile", "Status 3: the model's file doesn't exist.")
NoModel = _status_class("NoModel", "Status 4: no model was loaded.")
EngineError = _status_class("EngineError", "Status 5: the engine failed.")
RuntimeException = _status_class("RuntimeException", "Status 6: a kernel raised.")
InvalidProtobuf = _status_class("InvalidProtobuf", "Status 7: the bytes are no ONNX protobuf.")
ModelLoaded = _status_class("ModelLoaded", "Status 8: a model was loaded already.")
NotImplemented = _status_class("NotImplemented", "Status 9: nothing here runs the operator.")
InvalidGraph = _status_class("InvalidGraph", "Status 10: a node breaks its operator's definition.")
EPFail = _status_class("EPFail", "Status 11: an execution provider, or an actor, failed.")
ModelLoadCanceled = _status_class("ModelLoadCanceled", "Status 12: loading was told to stop.")
ModelRequiresCompilation = _status_class("ModelRequiresCompilation", "Status 13: the model must be compiled first.")
NotFound = _status_class("NotFound", "Status 14: what was asked for is not there.")
DeviceReset = _status_class("DeviceReset", "Status 15: the device was reset.")

#: code name -> (code, class)
STATUS: dict[str, tuple[int, type[Exception]]] = {
    "FAIL": (1, Fail),
    "INVALID_ARGUMENT": (2, InvalidArgument),
    "NO_SUCHFILE": (3, NoSuchFile),
    "NO_MODEL": (4, NoModel),
    "ENGINE_ERROR": (5, EngineError),
    "RUNTIME_EXCEPTION": (6, RuntimeException),
    "INVALID_PROTOBUF": (7, InvalidProtobuf),
    "MODEL_LOADED": (8, ModelLoaded),
    "NOT_IMPLEMENTED": (9, NotImplemented),
    "INVALID_GRAPH": (10, InvalidGraph),
    "EP_FAIL": (11, EPFail),
    "MODEL_LOAD_CANCELED": (12, ModelLoadCanceled),
    "MODEL_REQUIRES_COMPILATION": (13, ModelRequiresCompilation),
    "NOT_FOUND": (14, NotFound),
    "DEVICE_RESET": (15, DeviceReset),
}

STATUS_CLASSES = tuple(cls for _, cls in STATUS.values())


def prefix(status: str) -> str:
    return f"[ONNXRuntimeError] : {STATUS[status][0]} : {status} : "


def make(status: str, text: str) -> Exception:
    """The exception of a status, with its prefix."""
    return STATUS[status][1](prefix(status) + text)


def text_of(error: BaseException) -> str:
    """A status error's text without its prefix; what IOBinding and run_async tell."""
    message = str(error)
    for name, (_, cls) in STATUS.items():
        if isinstance(error, cls):
            return message.removeprefix(prefix(name))
    return message


#: in the names of errors after which CUDA refuses all that a process asks of it
_LOSING = (
    "IllegalAddress",
    "IllegalInstruction",
    "MisalignedAddress",
    "LaunchFailure",
    "LaunchFailed",  # as the driver says it
    "LaunchTimeout",
    "HardwareStack",
)


def translate(error: BaseException) -> Exception | None:
    """The facade's exception for one of the layers below; None for what is none of theirs."""
    if isinstance(error, ModelError):
        return make(error.status, error.text)
    kernels = sys.modules.get("distort.kernels.errors")
    if kernels is not None and isinstance(error, kernels.KernelError):
        if isinstance(error, kernels.InvalidInput) and not isinstance(error, kernels.Failed):
            return make("INVALID_ARGUMENT", error.text)
        if isinstance(error, kernels.InvalidGraph):
            return make("INVALID_GRAPH", error.text)
        if isinstance(error, kernels.MissingKernel):
            return make("NOT_IMPLEMENTED", error.text)
        if isinstance(error, kernels.OutOfMemory):
            return make("RUNTIME_EXCEPTION", error.text)
        return make("FAIL", error.text)
    cuda = getattr(sys.modules.get("cupy"), "cuda", None)
    if cuda is not None and isinstance(error, cuda.memory.OutOfMemoryError):
        return make("RUNTIME_EXCEPTION", f"Failed to allocate memory: {error}")
    if cuda is not None and isinstance(error, (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError)):
        # the runtime says cudaErrorIllegalAddress, the driver CUDA_ERROR_ILLEGAL_ADDRESS
        name = str(error).partition(":")[0].replace("_", "").lower()
        lost = any(word.lower() in name for word in _LOSING)
        remedy = " The GPU does nothing more for this process: start it anew." if lost else ""
        notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))  # what was being done
        return make("FAIL", f"CUDA failure: {error}.{notes}{remedy}")
    scheduler = sys.modules.get("distort.scheduler.errors")
    if scheduler is not None and isinstance(error, scheduler.PlanError):
        return make("INVALID_ARGUMENT", str(error))
    cluster = sys.modules.get("distort.cluster.errors")
    if cluster is not None and isinstance(error, cluster.ClusterError):
        if isinstance(error, (cluster.AddressError, cluster.StaleResident)):
            return make("INVALID_ARGUMENT", error.text)
        return make("EP_FAIL" if isinstance(error, cluster.StageLost) else "FAIL", error.text)
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the layers below leave the block as onnxruntime's."""
    try:
        yield
    except Exception as error:  # what isn't ours is raised again as it is
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error


def incompatible(function: str, signature: str, *invoked: object, constructor: bool = False) -> TypeError:
    """The TypeError for arguments of the wrong type; ``C.`` in the signature stands for the native module."""
    what = "constructor" if constructor else "function"
    return TypeError(
        f"{function}(): incompatible {what} arguments. The following argument types are supported:\n    1. "
        f"{signature.replace('C.', MODULE + '.')}\n\nInvoked with: {', '.join(map(repr, invoked))}"
    )
