"""cuBLASLt and cuDNN on a device, and operations that they do."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from distort.kernels.compiler.builder import Builder
from distort.kernels.compiler.ir import Operation, Tensor
from distort.kernels.cuda.blaslt import ProductPlan, Products
from distort.kernels.cuda.dnn import Allocate, Networks
from distort.kernels.cuda.dnn_graphs import ConvProblem
from distort.kernels.cuda.libraries import LibraryMissing
from distort.kernels.cuda.library_call import LibraryCall
from distort.kernels.cuda.options import CudaOptions
from distort.kernels.cuda.tuning import Tuning

#: what cuDNN's frontend takes tensors to be aligned to
ALIGNMENT_NBYTES = 16


class Libraries:
    """cuBLASLt and cuDNN on one device, for all its plans: opened when first asked for, with the device current.

    Where one can't be opened, what would use it does without it; ``missing`` says why.
    """

    def __init__(
        self,
        compute_capability: int,
        options: CudaOptions,
        allocate: Allocate | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        """``compute_capability``: 90 for 9.0. ``allocate``: where what is timed lies; else in memory of CuPy's own.

        ``tuning``: for products whose algorithms are timed.
        """
        self.compute_capability = compute_capability
        self.options = options
        self._allocate = allocate
        self.tuning = tuning
        #: library -> why it is not there
        self.missing: dict[str, str] = {}
        self._lock = threading.Lock()
        self._products: Products | None = None
        self._networks: Networks | None = None

    @property
    def products(self) -> Products | None:
        with self._lock:
            if self._products is None and "cuBLASLt" not in self.missing:
                try:
                    self._products = Products(self.compute_capability)
                except LibraryMissing as error:
                    self.missing["cuBLASLt"] = error.text
            return self._products

    @property
    def networks(self) -> Networks | None:
        with self._lock:
            options = self.options
            if self._networks is None and options.enable_cudnn and "cuDNN" not in self.missing:
                search, whole = options.cudnn_conv_algo_search, options.cudnn_conv_use_max_workspace
                try:
                    self._networks = Networks(self.compute_capability, search, whole, self._allocate)
                except LibraryMissing as error:
                    self.missing["cuDNN"] = error.text
            return self._networks

    def tune(self, plan: ProductPlan) -> None:
        """Before a plan of a product is used for the first time."""
        if self.tuning is not None:
            self.tuning.settle(plan)

    def obstacles(self) -> list[str]:
        """Why libraries don't do what they were asked for. What only an epilogue lacks is none of that."""
        found = dict.fromkeys(self.missing.values())
        if self._products is not None:
            found |= {why: None for p, why in self._products.reasons.items() if not (p.c or p.bias or p.activation)}
        if self._networks is not None:
            for problem, why in self._networks.reasons.items():
                if not isinstance(problem, ConvProblem) or not (
                    problem.bias or problem.z_strides or problem.activation
                ):
                    found[why] = None
        return list(found)

    def close(self) -> None:
        with self._lock:
            for library in (self._products, self._networks):
                if library is not None:
                    library.close()
            self._products = self._networks = None


@dataclass(eq=False)
class LibraryOperation(Operation):
    """An operation that a library does, on the device of ``libraries``."""

    libraries: Libraries

    def library_call(self, context: object = None) -> LibraryCall:
        """What a plan runs. The device is that of ``libraries``, whatever else the context says."""
        raise NotImplementedError


def is_aligned(tensor: Tensor) -> bool:
    """Whether it begins where cuDNN wants tensors to, if its memory does."""
    return tensor.offset * tensor.dtype.itemsize % ALIGNMENT_NBYTES == 0


def copied(b: Builder, tensor: Tensor) -> Tensor:
    """A copy, contiguous and aligned; a known one is that already where it is made a constant."""
    if tensor.value is not None:
        return b.constant(tensor.value)
    made = b.new(tensor.dtype, tensor.shape)
    b.copy(tensor, made)
    return made


def libraries_of(b: Builder) -> Libraries | None:
    """Of the device that a builder lowers for; None where it may use none."""
    found = getattr(b, "libraries", None)
    return found if isinstance(found, Libraries) else None


__all__ = ["Libraries", "LibraryOperation", "copied", "is_aligned", "libraries_of"]
