"""IOBinding: a session's inputs and outputs bound to memory, run after run.

An output bound by name alone stays where it was made: in parallel mode on its actor, and fed back from there it does
not move. An output bound to a buffer is written into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distort import errors, fetches, ortvalue
from distort.devices import get_ort_device_type
from distort.feeds import InputSpec, check_shape, read_feeds, runtime_text, unexpected_type
from distort.graph.types import TensorType
from distort.ortvalue import OrtValue, OrtValueVector

if TYPE_CHECKING:
    from distort.options import RunOptions
    from distort.session import Session


class _Output:
    """A bound output: the caller's buffer, or whatever the last run made."""

    __slots__ = ("buffer", "value")

    def __init__(self, buffer: OrtValue | None) -> None:
        self.buffer = buffer
        self.value = buffer if buffer is not None else OrtValue._of(None)


class IOBinding:
    """What is bound of one session's inputs and outputs. Not for several threads at once."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._loaded = session._loaded
        self._inputs: dict[str, OrtValue] = {}
        self._outputs: dict[str, _Output] = {}

    # -- inputs

    def bind_cpu_input(self, name: str, arr_on_cpu: np.ndarray[Any, Any]) -> None:
        """Bind an array; changes made to it later are seen by later runs, unless it had to be made contiguous."""
        if name not in self._loaded.specs:
            raise RuntimeError(f"Failed to find NodeArg with name: {name} in the def list")
        if not isinstance(arr_on_cpu, np.ndarray):
            raise RuntimeError("Unable to create OrtValue from the given python object")
        if arr_on_cpu.dtype.kind in "OUST":
            raise RuntimeError("Only binding non-string Tensors is currently supported")
        self._inputs[name] = OrtValue.ortvalue_from_numpy(arr_on_cpu)

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Bind memory of this process, which must stay as long as it is bound."""
        get_ort_device_type(device_type)
        if not isinstance(buffer_ptr, (int, np.integer)):
            signature = "(self: C.SessionIOBinding, arg0: str, arg1: C.OrtDevice, arg2: object, arg3: "
            signature += "collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], arg4: "
            signature += "typing.SupportsInt | typing.SupportsIndex) -> None"
            raise errors.incompatible("bind_input", signature, self, name, element_type, shape, buffer_ptr)
        self._bind_input(name, ortvalue.from_pointer(int(buffer_ptr), element_type, shape))

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Bind a value, wherever it lies."""
        self._bind_input(name, ortvalue._get_c_value())

    def _bind_input(self, name: str, value: OrtValue) -> None:
        if name not in self._loaded.specs:
            raise RuntimeError(f"Error when binding input: Failed to find input name in the mapping: {name}")
        self._inputs[name] = value

    def clear_binding_inputs(self) -> None:
        self._inputs.clear()

    def synchronize_inputs(self) -> None:
        """Nothing to wait for: what is bound is there."""

    # -- outputs

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Ask for an output: without a buffer it stays where it is made; with one it is written there."""
        get_ort_device_type(device_type)
        if buffer_ptr is None:
            self._outputs[name] = _Output(None)
            return
        if element_type is None or shape is None:
            raise ValueError("`element_type` and `shape` are to be provided if pre-allocated memory is provided")
        self._outputs[name] = _Output(ortvalue.from_pointer(buffer_ptr, element_type, shape))

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Ask for an output in a value's memory."""
        self._outputs[name] = _Output(ortvalue._get_c_value())

    def get_outputs(self) -> list[OrtValue]:
        """What the outputs hold, in the order of binding; nothing before the first run."""
        return [output.value for output in self._outputs.values()]

    def get_outputs_as_ortvaluevector(self) -> OrtValueVector:
        vector = OrtValueVector()
        for value in self.get_outputs():
            vector.push_back(value)
        return vector

    def copy_outputs_to_cpu(self) -> list[Any]:
        """The outputs as ``run`` would return them."""
        return [self._copy(name, output.value) for name, output in self._outputs.items()]

    def _copy(self, name: str, held: OrtValue) -> Any:
        value = held._value
        if value is None and not any(output.value.has_value() for output in self._outputs.values()):
            raise RuntimeError(f"Output {name} holds nothing yet: run first.")
        if hasattr(value, "fetch"):
            with errors.translated():
                value = value.fetch()
        return fetches.own(value)

    def clear_binding_outputs(self) -> None:
        self._outputs.clear()

    def synchronize_outputs(self) -> None:
        """Nothing to wait for: a run returns when its outputs are there."""

    # -- running

    def _run(self, run_options: RunOptions | None) -> None:
        try:
            self._run_checked(run_options)
        except errors.STATUS_CLASSES as error:
            raise RuntimeError(f"Error in execution: {errors.text_of(error)}") from error

    def _run_checked(self, run_options: RunOptions | None) -> None:
        loaded = self._loaded
        values = read_feeds(loaded.specs, self._inputs)
        if not self._outputs:
            raise errors.make("INVALID_ARGUMENT", "At least one output should be requested.")
        loaded.check_fetches(list(self._outputs), " ")
        for name, output in self._outputs.items():
            if output.buffer is not None:
                self._check_buffer(name, output.buffer)
        names = list(self._outputs)
        keep = frozenset[str]()
        if loaded.engine.parallel:
            keep = frozenset(name for name, o in self._outputs.items() if o.buffer is None or _is_remote(o.buffer))
        results = self._session._execute(loaded, names, values, run_options, keep)
        types = loaded.engine.model.graph.types
        for i, name in enumerate(names):
            output = self._outputs[name]
            if output.buffer is None:
                output.value = fetches.to_ort_value(results, i, types.get(name))
            elif _is_remote(output.buffer):
                self._check_computed(name, output.buffer, results[i])
                output.buffer._value = results[i] if hasattr(results[i], "fetch") else fetches.own(results[i])
            else:
                self._check_computed(name, output.buffer, results[i])
                np.copyto(output.buffer._value, results[i])

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
            computed = ortvalue.type_of(value)
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


def _is_remote(buffer: OrtValue) -> bool:
    return hasattr(buffer._value, "fetch")


def _braces(shape: Sequence[int]) -> str:
    return "{" + ",".join(map(str, shape)) + "}"
