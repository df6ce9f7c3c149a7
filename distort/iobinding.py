"""IOBinding as users make and hold it: devices by name, values as OrtValues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distort.devices import OrtDevice
from distort.native.base import public
from distort.native.binding import SessionIOBinding
from distort.ortvalue import OrtValue

if TYPE_CHECKING:
    import numpy as np

    from distort.native.values import OrtValueVector
    from distort.session import Session


@public
class IOBinding:
    """A session's inputs and outputs bound to memory. Not for several threads at once."""

    def __init__(self, session: Session) -> None:
        self._session = session._sess
        self._iobinding = SessionIOBinding(session._sess)

    def bind_cpu_input(self, name: str, arr_on_cpu: np.ndarray[Any, Any]) -> None:
        """Bind an array; changes made to it later are seen by later runs, unless it had to be made contiguous."""
        self._iobinding.bind_input(name, arr_on_cpu)

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Bind memory of this process, which must stay as long as it is bound."""
        device = OrtDevice.make(device_type, device_id)._get_c_device()
        self._iobinding.bind_input(name, device, element_type, shape, buffer_ptr)

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Bind a value, wherever it lies."""
        self._iobinding.bind_ortvalue_input(name, _native(ortvalue))

    def clear_binding_inputs(self) -> None:
        self._iobinding.clear_binding_inputs()

    def synchronize_inputs(self) -> None:
        self._iobinding.synchronize_inputs()

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
        device = OrtDevice.make(device_type, device_id)._get_c_device()
        if buffer_ptr is None:
            self._iobinding.bind_output(name, device)
            return
        if element_type is None or shape is None:
            raise ValueError("`element_type` and `shape` are to be provided if pre-allocated memory is provided")
        self._iobinding.bind_output(name, device, element_type, shape, buffer_ptr)

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Ask for an output in a value's memory."""
        self._iobinding.bind_ortvalue_output(name, _native(ortvalue))

    def get_outputs(self) -> list[OrtValue]:
        """What the outputs hold, in the order of binding; nothing before the first run."""
        return [OrtValue(value, session=self._session) for value in self._iobinding.get_outputs()]

    def get_outputs_as_ortvaluevector(self) -> OrtValueVector:
        return self._iobinding.get_outputs()

    def copy_outputs_to_cpu(self) -> list[Any]:
        """The outputs as ``run`` would return them."""
        return self._iobinding.copy_outputs_to_cpu()

    def clear_binding_outputs(self) -> None:
        self._iobinding.clear_binding_outputs()

    def synchronize_outputs(self) -> None:
        self._iobinding.synchronize_outputs()


def _native(ortvalue: OrtValue) -> Any:
    """The native value. Raises AttributeError for what is no OrtValue."""
    _ = ortvalue._session
    return ortvalue._get_c_value()
