"""cupy.cuda.driver: contexts; errors of launches and modules, which are no errors of the runtime's."""

from __future__ import annotations

from .. import _state

_NAMES = {
    1: ("CUDA_ERROR_INVALID_VALUE", "invalid argument"),
    500: ("CUDA_ERROR_NOT_FOUND", "named symbol not found"),
    700: ("CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
}


class CUDADriverError(RuntimeError):
    def __init__(self, status: int) -> None:
        self.status = status
        name, text = _NAMES.get(status, (f"CUDA_ERROR_{status}", "unknown error"))
        super().__init__(f"{name}: {text}")

    def __reduce__(self) -> tuple[type[CUDADriverError], tuple[int]]:
        return type(self), (self.status,)


def ctxGetCurrent() -> int:
    """0 where the thread has none."""
    return 0xC000 + _state.current_device() if _state.has_context() else 0
