"""Operators whose bodies over CuPy wait for the GPU, and what for.

Their nodes can be part of no CUDA graph, where one whose body only launches could be.
"""

from __future__ import annotations

_INDICES = "indices are checked"
_POSITIONS = "positions are checked"
_LENGTHS = "lengths are checked"
_CLASSES = "classes are checked"
_VALUES = "the result's size depends on values"
_LEAVES = "whether all rows are at their leaves"
_MS = "com.microsoft"
_ML = "ai.onnx.ml"
#: (domain, operator) -> what its body waits for
WAITS: dict[tuple[str, str], str] = {
    ("", "Compress"): _VALUES,
    ("", "Gather"): _INDICES,
    ("", "GatherElements"): _INDICES,
    ("", "GatherND"): _INDICES,
    ("", "If"): "the condition",
    ("", "Loop"): "the condition",
    ("", "MaxRoiPool"): "the regions",
    ("", "MaxUnpool"): _INDICES,
    ("", "NegativeLogLikelihoodLoss"): _CLASSES,
    ("", "NonMaxSuppression"): _VALUES,
    ("", "NonZero"): _VALUES,
    ("", "Pow"): "whether there are negative powers of integers",
    ("", "ReverseSequence"): _LENGTHS,
    ("", "RoiAlign"): _INDICES,
    ("", "RotaryEmbedding"): _POSITIONS,
    ("", "Scatter"): _INDICES,
    ("", "ScatterElements"): _INDICES,
    ("", "ScatterND"): _INDICES,
    ("", "SoftmaxCrossEntropyLoss"): _CLASSES,
    ("", "TensorScatter"): _POSITIONS,
    ("", "Unique"): _VALUES,
    (_ML, "LabelEncoder"): "whether there are NaN",
    (_ML, "TreeEnsemble"): _LEAVES,
    (_ML, "TreeEnsembleClassifier"): _LEAVES,
    (_ML, "TreeEnsembleRegressor"): _LEAVES,
    (_ML, "ZipMap"): "maps are the host's",
    (_MS, "CropAndResize"): _INDICES,
    (_MS, "DynamicQuantizeLSTM"): "the range of each step",
    (_MS, "EmbedLayerNormalization"): _INDICES,
    (_MS, "GatherBlockQuantized"): _INDICES,
    (_MS, "GatherND"): _INDICES,
    (_MS, "GroupQueryAttention"): _LENGTHS,
    (_MS, "MRotaryEmbedding"): _POSITIONS,
    (_MS, "MatMulNBits"): _INDICES,
    (_MS, "MoE"): "which experts are chosen",
    (_MS, "NGramRepeatBlock"): _VALUES,
    (_MS, "QEmbedLayerNormalization"): _INDICES,
    (_MS, "QLinearConcat"): "whether scales are alike",
    (_MS, "QLinearWhere"): "whether scales are alike",
    (_MS, "QMoE"): "which experts are chosen",
    (_MS, "RotaryEmbedding"): _POSITIONS,
    (_MS, "SparseAttention"): _LENGTHS,
    (_MS, "Unique"): _VALUES,
}
