"""A session's inputs and outputs bound to memory, run after run.

An output bound by name alone stays where it was made: in parallel mode on its actor, and fed back from there it does
not move; of a session on a GPU, on that GPU if it is bound to it, and else it is copied to the host once a run. Later
runs write into the same memory, as onnxruntime's do. An output bound to a buffer is written into it. Inputs of a
session on a GPU are copied there when they are bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort import errors, fetches
from distort.feeds import InputSpec, check_shape, read_feeds, runtime_text, unexpected_type
from distort.graph.types import TensorType
from distort.native import values
from distort.native.base import native
from distort.native.devices import OrtDevice, is_cuda, is_host, on_gpu
from distort.native.values import OrtValue, OrtValueVector

if TYPE_CHECKING:
    from distort.native.gpu_binding import OnGpu
    from distort.native.session import InferenceSession
    from distort.options import RunOptions

_INT = "typing.SupportsInt | typing.SupportsIndex"


class _Output:
    """A bound output: the caller's buffer, or whatever the last run made."""

    __slots__ = ("buffer", "by_name", "place", "value")

    def __init__(self, buffer: OrtValue | None, place: OrtDevice | None = None) -> None:
        self.buffer = buffer
        self.place = place  # the GPU that it is to be on; None: this process, or where it is made
        self.by_name = buffer is None  # it stays where it is made, and so does what later runs make
        self.value = buffer if buffer is not None else OrtValue._of(None)

    @property
    def is_on_gpu(self) -> bool:
        """Whether it is bound to a GPU, or to memory of one."""
        return self.place is not None or (self.buffer is not None and on_gpu(self.buffer._value))


@native
class SessionIOBinding:
    """What is bound of one session's inputs and outputs. Not for several threads at once."""

    def __init__(self, arg0: InferenceSession, /) -> None:
        self._session = arg0
        self._loaded = arg0._loaded
        self._inputs: dict[str, OrtValue] = {}
        self._outputs: dict[str, _Output] = {}
        self._gpu: OnGpu | None = None
        if self._loaded.engine.gpu is not None:
            from distort.native.gpu_binding import OnGpu

            self._gpu = OnGpu(self._loaded.engine)

    # -- inputs

    def bind_input(self, *args: Any) -> None:
        """(name, array): changes made to it later are seen by later runs, unless it had to be copied.

        (name, device, element type, shape, address): memory that must stay as long as it is bound.
        """
        if len(args) == 2 and isinstance(args[0], str):
            self._bind_array(*args)
            return
        if len(args) != 5 or not _is_buffer(*args):
            signature = "(self: C.SessionIOBinding, arg0: str, arg1: C.OrtDevice, arg2: object, arg3: "
            signature += f"collections.abc.Sequence[{_INT}], arg4: {_INT}) -> None"
            raise errors.incompatible("bind_input", signature, self, *args)
        name, device, element_type, shape, pointer = args
        _require_readable(device)
        self._bind_value(name, values.from_pointer(int(pointer), element_type, shape, place=device))

    def _bind_array(self, name: str, array: Any) -> None:
        if name not in self._loaded.specs:
            raise RuntimeError(f"Failed to find NodeArg with name: {name} in the def list")
        if not isinstance(array, np.ndarray):
            raise RuntimeError("Unable to create OrtValue from the given python object")
        if array.dtype.kind in "OUST":
            raise RuntimeError("Only binding non-string Tensors is currently supported")
        value = OrtValue._of(np.asarray(array, order="C"), TensorType(values.tensor_element(array)))
        self._inputs[name] = self._placed(name, value)

    def bind_ortvalue_input(self, arg0: str, arg1: OrtValue, /) -> None:
        """Bind a value, wherever it lies."""
        self._bind_value(arg0, arg1)

    def _bind_value(self, name: str, value: OrtValue) -> None:
        if name not in self._loaded.specs:
            raise RuntimeError(f"Error when binding input: Failed to find input name in the mapping: {name}")
        self._inputs[name] = self._placed(name, value)

    def _placed(self, name: str, value: OrtValue) -> OrtValue:
        """The value where the session reads it: copied there, unless it is there already."""
        if self._gpu is not None:
            return self._gpu.placed(name, value)
        if on_gpu(value._value):
            array = value._tensor()
            self._loaded.engine.copies.count(name, "d2h", array.nbytes)
            return OrtValue._of(array, value._type)
        return value

    def clear_binding_inputs(self) -> None:
        self._inputs.clear()
        if self._gpu is not None:
            self._gpu.forget()

    def synchronize_inputs(self) -> None:
        """Wait for all work on the session's GPU: other libraries may still be writing to what is bound."""
        if self._gpu is not None:
            self._gpu.synchronize()

    # -- outputs

    def bind_output(self, *args: Any) -> None:
        """(name, device): the output stays where it is made. (name, device, element type, shape, address): there."""
        if len(args) == 2 and isinstance(args[0], str) and isinstance(args[1], OrtDevice):
            self._outputs[args[0]] = _Output(None, args[1] if _is_here(args[1]) else None)
            return
        if len(args) != 5 or not _is_buffer(*args):
            signature = "(self: C.SessionIOBinding, arg0: str, arg1: C.OrtDevice, arg2: object, arg3: "
            signature += f"collections.abc.Sequence[{_INT}], arg4: {_INT}) -> None"
            raise errors.incompatible("bind_output", signature, self, *args)
        name, device, element_type, shape, pointer = args
        place = device if _is_here(device) else None
        self._outputs[name] = _Output(values.from_pointer(int(pointer), element_type, shape, place=place), place)

    def bind_ortvalue_output(self, arg0: str, arg1: OrtValue, /) -> None:
        """Ask for an output in a value's memory."""
        self._outputs[arg0] = _Output(arg1)

    def get_outputs(self) -> OrtValueVector:
        """What the outputs hold, in the order of binding; nothing before the first run."""
        vector = OrtValueVector()
        for output in self._outputs.values():
            vector.push_back(output.value)
        return vector

    def copy_outputs_to_cpu(self) -> list[Any]:
        """The outputs as ``run`` would return them."""
        return [self._copy(name, output.value) for name, output in self._outputs.items()]

    def _copy(self, name: str, held: OrtValue) -> Any:
        value = held._value
        if value is None and not any(output.value.has_value() for output in self._outputs.values()):
            raise RuntimeError(f"Output {name} holds nothing yet: run first.")
        if on_gpu(value):
            return held._from_gpu()
        if hasattr(value, "fetch"):
            with errors.translated():
                value = value.fetch()
        return fetches.own(value)

    def clear_binding_outputs(self) -> None:
        self._outputs.clear()

    def synchronize_outputs(self) -> None:
        """A run returns when its outputs are there, unless its options say otherwise: then this waits for them."""
        self._loaded.engine.synchronize()

    # -- running

    def _run(self, run_options: RunOptions | None) -> None:
        try:
            self._run_checked(run_options)
        except errors.STATUS_CLASSES as error:
            raise RuntimeError(f"Error in execution: {errors.text_of(error)}") from error

    def _run_checked(self, run_options: RunOptions | None) -> None:
        loaded = self._loaded
        feeds = read_feeds(loaded.specs, self._inputs)
        if not self._outputs:
            raise errors.make("INVALID_ARGUMENT", "At least one output should be requested.")
        loaded.check_fetches(list(self._outputs), " ")
        for name, output in self._outputs.items():
            if output.buffer is not None:
                self._check_buffer(name, output.buffer)
        names = list(self._outputs)
        keep = frozenset[str]()
        if loaded.engine.parallel:
            keep = frozenset(
                name for name, o in self._outputs.items() if o.buffer is None or o.by_name or _is_remote(o.buffer)
            )
        into = None
        if self._gpu is not None:
            keep = frozenset(name for name, output in self._outputs.items() if output.is_on_gpu)
            buffers = {name: output.buffer for name, output in self._outputs.items()}
            into = self._gpu.memory_of(buffers, self._inputs.values())
        results = self._session._execute(loaded, names, feeds, run_options, keep, into=into)
        types = loaded.engine.model.graph.types
        for i, name in enumerate(names):
            output = self._outputs[name]
            if self._may_cross(output, results[i]):
                self._take_in(name, output, results, i)
                continue
            # a run in this process may have made the buffer, before the actors were there
            moves = output.by_name and hasattr(results[i], "fetch")
            if output.buffer is None or (moves and not _is_remote(output.buffer)):
                output.value = fetches.to_ort_value(results, i, types.get(name))
                if output.value.is_tensor():
                    output.buffer = output.value  # the next run writes there
            elif _is_remote(output.buffer):
                self._check_computed(name, output.buffer, results[i])
                output.buffer._value = results[i] if hasattr(results[i], "fetch") else fetches.own(results[i])
            else:
                self._check_computed(name, output.buffer, results[i])
                np.copyto(output.buffer._value, results[i])

    def _may_cross(self, output: _Output, result: Any) -> bool:
        """Whether a GPU of this process is at one of the ends; what lies on an actor is none of its business."""
        if hasattr(result, "fetch") or (output.buffer is not None and _is_remote(output.buffer)):
            return False
        return self._gpu is not None or output.is_on_gpu

    def _take_in(self, name: str, output: _Output, results: list[Any], index: int) -> None:
        """The result at ``index`` where its output is bound to."""
        from distort.native.gpu_binding import put

        buffer = output.buffer
        if buffer is not None and results[index] is buffer._value:  # the run wrote there itself
            buffer._settle = self._loaded.engine.pending
            output.value = buffer
            return
        if output.buffer is not None:
            self._check_computed(name, output.buffer, results[index])
        engine = self._loaded.engine
        declared = engine.model.graph.types.get(name)
        output.value = put(engine, name, results, index, declared, output.buffer, output.place)
        if output.buffer is None and output.value.is_tensor():
            output.buffer = output.value  # the next run writes there

    def _check_buffer(self, name: str, buffer: OrtValue) -> None:
        declared = self._loaded.engine.model.graph.types.get(name)
        if isinstance(declared, TensorType) and isinstance(buffer._type, TensorType):
            if declared.element not in (0, buffer._type.element):
                raise unexpected_type(buffer._type, declared, "output")
            check_shape(InputSpec.of(name, declared), tuple(buffer.shape()), "output")

    def _check_computed(self, name: str, buffer: OrtValue, value: Any) -> None:
        """The buffer must have the shape that the run gave."""
        shape = tuple(getattr(value, "shape", ()))
        if shape == tuple(buffer.shape()):
            computed = values.OrtValue._of(value, self._loaded.engine.model.graph.types.get(name))._type
            if computed is not None and runtime_text(computed) != runtime_text(buffer._type):
                raise unexpected_type(buffer._type or computed, computed, "output")
            return
        graph = self._loaded.engine.model.graph
        position = graph.producers().get(name)
        node_name, op_type = "", ""
        if position is not None:
            node_name, op_type = graph.nodes[position].name, graph.nodes[position].op_type
        raise errors.make(
            "FAIL",
            f"Non-zero status code returned while running {op_type} node. Name:'{node_name}' Status Message: "
            f"{errors.prefix('INVALID_ARGUMENT')}The output OrtValue provided for output '{name}' of node "
            f"'{node_name}' ({op_type}) has shape {_braces(buffer.shape())} but the computed output shape for this run "
            f"is {_braces(shape)}. When calling Run() with pre-allocated output OrtValues on a model with dynamic "
            "output shapes, either supply unallocated output OrtValues or ensure the pre-allocated shapes match the "
            "expected output shapes for each run.",
        )


def _is_buffer(name: Any, device: Any, element_type: Any, shape: Any, pointer: Any) -> bool:
    """Whether these are the arguments for memory at an address."""
    return isinstance(name, str) and isinstance(device, OrtDevice) and isinstance(pointer, (int, np.integer))


def _described(device: OrtDevice) -> str:
    return (
        f"Device:[DeviceType:{device.device_type()} MemoryType:{device.mem_type()} VendorId:{device.vendor_id()} "
        f"DeviceId:{device.device_id()} Alignment:0]"
    )


def _require_readable(device: OrtDevice) -> None:
    """An address in the memory of a device that isn't here means nothing to this process. Raises RuntimeError."""
    if not is_host(device) and not _is_here(device):
        host = OrtDevice(0, 0, 0, 0)
        raise RuntimeError(
            "Error when binding input: There's no data transfer registered for copying tensors from "
            f"{_described(device)} to {_described(host)}"
        )


def _is_here(device: OrtDevice) -> bool:
    """Whether this is a GPU that this process can use."""
    if not is_cuda(device):
        return False
    from distort.kernels.cuda import device as gpus

    return device.device_id() < gpus.count()


def _is_remote(buffer: OrtValue) -> bool:
    return hasattr(buffer._value, "fetch")


def _braces(shape: Sequence[int]) -> str:
    return "{" + ",".join(map(str, shape)) + "}"
