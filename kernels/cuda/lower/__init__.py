"""Lowerings of a GPU's own, by families of operators; they go before the CPU's.

As there, a module is imported when a model has one of its operators, and a test compares the table with what modules
register.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from distort.kernels.compiler.builder import TAKE_WIDE, Lowering

#: (domain, module) -> operators
OPERATORS: dict[tuple[str, str], str] = {
    ("", "updates"): "TensorScatter",
    ("", "casting"): "Cast CastLike",
    ("", "control_flow"): "If Loop Scan",
    ("", "convolution"): "Conv ConvTranspose",
    ("", "gathering"): "GatherND",
    ("", "normalization"): "BatchNormalization Dropout",
    ("", "pooling"): "AveragePool GlobalLpPool LRN LpPool MaxPool",
    ("", "quantization"): "DequantizeLinear DynamicQuantizeLinear QuantizeLinear",
    ("", "recurrent"): "GRU LSTM RNN",
    ("", "reductions"): (
        "ReduceL1 ReduceL2 ReduceLogSum ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
    ),
    ("", "resizing"): "Resize Upsample",
    ("", "sampling"): "GridSample",
    ("", "scattering"): "Scatter ScatterElements ScatterND",
    ("", "selection"): "CumProd CumSum TopK",
    ("", "spectra"): "DFT",
    ("com.microsoft", "convolution"): "FusedConv",
    ("com.microsoft", "gathering"): "GatherND",
    ("com.microsoft", "nbits"): "GatherBlockQuantized MatMulNBits",
    ("com.microsoft", "sampling"): "GridSample",
    ("com.microsoft", "quantization"): "DequantizeLinear QuantizeLinear",
    ("com.microsoft", "quantized_recurrent"): "DynamicQuantizeLSTM",
}
#: (domain, operator) -> module
HOME = {
    (domain, operator): module for (domain, module), operators in OPERATORS.items() for operator in operators.split()
}
#: modules instead of which the CPU's are not tried: they make what is never printed
INSTEAD = frozenset(["control_flow", "quantized_recurrent", "recurrent"])
#: those whose modules are imported
LOWERINGS: dict[tuple[str, str], Lowering] = {}


def lowers_cuda(*op_types: str, domain: str = "", wide: bool = False) -> Callable[[Lowering], Lowering]:
    """Register a lowering, in a module that ``OPERATORS`` names for its operators.

    ``wide``: it takes float32 where a node has half precision, see ``half``.
    """

    def register(function: Lowering) -> Lowering:
        for op_type in op_types:
            if (domain, op_type) in LOWERINGS:
                raise ValueError(f"two lowerings for a GPU of {domain or 'ai.onnx'}:{op_type}")
            LOWERINGS[domain, op_type] = function
        if wide:
            TAKE_WIDE.add(function)
        return function

    return register


def lowering_of(domain: str, op_type: str) -> Lowering | None:
    """An operator's lowering, whose module is imported now at the latest; None where there is none."""
    module = HOME.get((domain, op_type))
    if module is None:
        return None
    if (domain, op_type) not in LOWERINGS:
        import_module(f"{__name__}.{module}")
    return LOWERINGS[domain, op_type]


__all__ = ["HOME", "INSTEAD", "LOWERINGS", "OPERATORS", "lowering_of", "lowers_cuda"]
