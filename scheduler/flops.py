"""Arithmetic of one node, from its operator and the shapes around it. Estimates, not counts of instructions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from distort.graph.ir import Node

Shape = tuple[int, ...]

#: flops that one element of exp, tanh, erf and their like costs
TRANSCENDENTAL = 20.0
#: depth of a decision tree that nobody told us of
TREE_DEPTH = 8.0


@dataclass(frozen=True, slots=True)
class Operands:
    """A node with the shapes of its inputs and outputs, by position; None where a rank is unknown or a value absent."""

    node: Node
    inputs: Sequence[Shape | None]
    outputs: Sequence[Shape | None]

    def input(self, position: int) -> Shape | None:
        return self.inputs[position] if position < len(self.inputs) else None

    def output(self, position: int = 0) -> Shape | None:
        return self.outputs[position] if position < len(self.outputs) else None

    def input_size(self, position: int = 0) -> float:
        return _size(self.input(position))

    def output_size(self) -> float:
        """Elements of the first output; of the largest input where the output's rank is unknown."""
        shape = self.output()
        if shape is None:
            return max((_size(other) for other in self.inputs), default=0.0)
        return _size(shape)


Flops = Callable[[Operands], float]
_FLOPS: dict[str, Flops] = {}


def _size(shape: Shape | None) -> float:
    return float(prod(shape)) if shape is not None else 0.0


def flops(operands: Operands) -> float:
    """Floating-point (or integer) operations of a node without its subgraphs."""
    rule = _FLOPS.get(operands.node.op_type)
    return rule(operands) if rule is not None else operands.output_size()


def slowness(op_type: str) -> float:
    """How many times longer a CPU takes for an operator's arithmetic than for as much in a product of float32."""
    return _SLOWNESS.get(op_type, 1.0)


def passes(op_type: str) -> float:
    """How many elementary array operations a kernel is made of: each costs its start, and goes over the memory."""
    return _PASSES.get(op_type, 1.0)


def is_free(op_type: str) -> bool:
    """Views and facts of shapes: they read and write no more than a header."""
    return op_type in _FREE


def is_product(op_type: str) -> bool:
    """Matrix products and convolutions, and what mostly consists of them: where a machine can reach its peak."""
    return op_type in _PRODUCTS


def reads_selected(op_type: str) -> bool:
    """Reads of its first input just what it writes (Gather of an embedding, Slice)."""
    return op_type in _SELECTING


def _of(*names: str) -> Callable[[Flops], Flops]:
    def register(rule: Flops) -> Flops:
        _FLOPS.update(dict.fromkeys(names, rule))
        return rule

    return register


def _per_output(weight: float, names: str) -> None:
    _FLOPS.update(dict.fromkeys(names.split(), lambda operands: weight * operands.output_size()))


def _per_input(weight: float, names: str) -> None:
    _FLOPS.update(dict.fromkeys(names.split(), lambda operands: weight * operands.input_size()))


_FREE_NAMES = (
    "Constant Identity Reshape Squeeze Unsqueeze Flatten Shape Size Optional OptionalGetElement OptionalHasElement "
    "SequenceAt SequenceConstruct SequenceEmpty SequenceInsert SequenceErase SequenceLength Dropout "
    "If Loop Scan SequenceMap"
)
_SELECTING_NAMES = "Gather GatherND GatherElements Slice Split SplitToSequence Compress"
_MOVEMENT_NAMES = (
    "Transpose Concat ConcatFromSequence Pad Tile Expand DepthToSpace SpaceToDepth ScatterND ScatterElements Scatter "
    "ConstantOfShape ReverseSequence Trilu EyeLike CastLike BitCast TensorScatter Col2Im"
)
_PRODUCT_NAMES = (
    "Conv FusedConv ConvInteger QLinearConv DeformConv NhwcConv ConvTranspose Gemm QGemm FusedGemm GemmFloat8 MatMul "
    "MatMulInteger QLinearMatMul FusedMatMul MatMulIntegerToFloat DynamicQuantizeMatMul MatMulNBits Einsum RNN GRU "
    "LSTM DynamicQuantizeLSTM Attention MultiHeadAttention GroupQueryAttention QAttention"
)
#: Measured on compiled stages of models of the real world: what is not as fast as products of float32, per flop.
_SLOWNESS = {
    **dict.fromkeys(("LSTM", "GRU", "RNN"), 1.5),
    "DynamicQuantizeLSTM": 0.5,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), 8.0),
    **dict.fromkeys(("Conv", "FusedConv", "NhwcConv", "ConvTranspose"), 1.2),
}
#: By the same measurements: what stays with NumPy kernels, of several operations each.
_PASSES: dict[str, float] = dict.fromkeys(("NonZero", "RoiAlign", "Unique", "NonMaxSuppression"), 20.0)
_FREE = frozenset(_FREE_NAMES.split())
_PRODUCTS = frozenset(_PRODUCT_NAMES.split())
_SELECTING = frozenset(_SELECTING_NAMES.split())
_per_output(0, f"{_FREE_NAMES} {_SELECTING_NAMES} {_MOVEMENT_NAMES}")
_per_output(
    TRANSCENDENTAL,
    "Exp Log Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh Erf Sigmoid Softplus Elu Selu Celu Mish Gelu "
    "FastGelu QuickGelu BiasGelu Swish Pow Det RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli "
    "Multinomial",
)
_per_output(TRANSCENDENTAL + 4, "Softmax LogSoftmax Hardmax SoftmaxCrossEntropyLoss")
_per_output(2, "BatchNormalization QuantizeLinear DequantizeLinear HardSigmoid HardSwish ThresholdedRelu Scaler")
_per_output(4, "DynamicQuantizeLinear QLinearAdd QLinearMul QLinearLeakyRelu QLinearConcat RotaryEmbedding Normalizer")
_per_output(
    8,
    "LayerNormalization SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization "
    "InstanceNormalization GroupNormalization RMSNormalization MeanVarianceNormalization LpNormalization "
    "EmbedLayerNormalization GridSample RoiAlign Resize Upsample",
)
_per_input(
    1,
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 GlobalMaxPool GlobalAveragePool ArgMax ArgMin CumSum "
    "CumProd NonZero Where",
)
_per_input(2, "ReduceL2 ReduceSumSquare GlobalLpPool QLinearGlobalAveragePool")
_per_input(TRANSCENDENTAL, "ReduceLogSum ReduceLogSumExp")


@_of("Conv", "FusedConv", "ConvInteger", "QLinearConv", "DeformConv", "NhwcConv")
def _conv(operands: Operands) -> float:
    # X: [N, C, spatial…], W: [M, C/group, kernel…], Y: [N, M, spatial…]
    position = 3 if operands.node.op_type == "QLinearConv" else 1
    weight, x = operands.input(position), operands.input(0)
    if weight is None:
        return operands.output_size()
    output = _size(operands.output())
    if not output and x is not None and len(x) >= 2:
        strides = operands.node.attributes.get("strides") or [1] * (len(x) - 2)
        output = x[0] * weight[0] * float(prod(-(-size // step) for size, step in zip(x[2:], strides, strict=False)))
    return 2.0 * output * prod(weight[1:])


@_of("ConvTranspose")
def _conv_transpose(operands: Operands) -> float:
    # X: [N, C, spatial…], W: [C, M/group, kernel…]: every element of X meets W[c]
    weight = operands.input(1)
    return 2.0 * operands.input_size() * (prod(weight[1:]) if weight is not None else 1)


@_of("Gemm", "QGemm", "FusedGemm", "GemmFloat8")
def _gemm(operands: Operands) -> float:
    a = operands.input(0)
    b = operands.input(3 if operands.node.op_type == "QGemm" else 1)
    if a is None or b is None or len(a) != 2 or len(b) != 2:
        return operands.output_size()
    columns = b[0] if operands.node.attributes.get("transB") else b[1]
    return 2.0 * a[0] * a[1] * columns + operands.output_size()


_B_OF_MATMUL = {"QLinearMatMul": 3}


@_of("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul")
def _matmul(operands: Operands) -> float:
    # A: [..., M, K], B: [..., K, N] -> [..., M, N]
    a, b = operands.input(0), operands.input(_B_OF_MATMUL.get(operands.node.op_type, 1))
    if not a or not b:
        return operands.output_size()
    transposed = bool(operands.node.attributes.get("transA")) and len(a) > 1
    depth = a[-2] if transposed else a[-1]
    output = operands.output()
    if output is not None:
        return 2.0 * _size(output) * depth
    columns = b[-1] if len(b) > 1 else 1
    return 2.0 * _size(a) * columns


@_of("MatMulNBits")
def _matmul_nbits(operands: Operands) -> float:
    # B is packed; K and N are attributes, and unpacking costs about two operations a weight
    n = float(operands.node.attributes.get("N", 1))
    k = float(operands.node.attributes.get("K", 1))
    return 2.0 * operands.input_size() * n + 2.0 * n * k


@_of("Einsum")
def _einsum(operands: Operands) -> float:
    # one multiplication and one addition for each point of the space of all labels
    equation = str(operands.node.attributes.get("equation", "")).replace(" ", "")
    labels: dict[str, int] = {}
    beyond = 1
    for term, shape in zip(equation.split("->")[0].split(","), operands.inputs, strict=False):
        if shape is None:
            continue
        before, dots, after = term.partition("...")
        head = dict(zip(before, shape, strict=False))
        tail = dict(zip(reversed(after), reversed(shape), strict=False))
        labels.update({**head, **tail})
        if dots:
            beyond = max(beyond, prod(shape[len(before) : len(shape) - len(after)]))
    return 2.0 * prod(labels.values()) * beyond if labels else operands.output_size()


@_of("RNN", "GRU", "LSTM", "DynamicQuantizeLSTM")
def _recurrent(operands: Operands) -> float:
    # X: [steps, batch, input] (layout 1: [batch, steps, input]); each step multiplies by all of W and R
    x, weight, recurrence = operands.input(0), operands.input(1), operands.input(2)
    if x is None or len(x) != 3:
        return operands.output_size()
    gates = {"RNN": 1, "GRU": 3}.get(operands.node.op_type, 4)
    hidden = float(operands.node.attributes.get("hidden_size", 1))
    weights = _size(weight) + _size(recurrence) or gates * hidden * (x[2] + hidden)
    return x[0] * x[1] * (2.0 * weights + gates * hidden * TRANSCENDENTAL)


@_of("Attention", "MultiHeadAttention", "GroupQueryAttention", "QAttention")
def _attention(operands: Operands) -> float:
    q = operands.input(0)
    if not q or len(q) < 2:
        return operands.output_size()
    if operands.node.domain == "com.microsoft" and operands.node.op_type in ("Attention", "QAttention"):
        # input: [batch, steps, width], weights: [width, 3 × heads × size]
        weight = operands.input(1)
        columns = weight[-1] if weight else 3 * q[-1]
        return 2.0 * _size(q) * columns + 4.0 * (_size(q) / max(q[-1], 1)) * q[-2] * columns / 3
    # Q: [batch, heads, steps, size] or [batch, steps, heads × size]; K likewise, past K: [batch, heads, past, size]
    key, past = operands.input(1), operands.input(4 if operands.node.domain == "" else 3)
    steps = key[-2] if key is not None and len(key) >= 2 else q[-2]
    if past is not None and len(past) == 4:
        steps += past[-2]
    scores = _size(q) / max(q[-1], 1) * steps * (operands.node.attributes.get("q_num_heads", 1) if len(q) == 3 else 1)
    return 4.0 * _size(q) * steps + (TRANSCENDENTAL + 4) * scores


@_of("MaxPool", "AveragePool", "LpPool", "MaxRoiPool", "QLinearAveragePool")
def _pool(operands: Operands) -> float:
    return operands.output_size() * prod(operands.node.attributes.get("kernel_shape") or [1])


@_of("LRN")
def _lrn(operands: Operands) -> float:
    return operands.output_size() * (float(operands.node.attributes.get("size", 1)) + TRANSCENDENTAL)


@_of("TopK", "Unique", "NonMaxSuppression", "StringNormalizer")
def _sorting(operands: Operands) -> float:
    size = operands.input_size()
    return 4.0 * size * math.log2(size + 2)


@_of("DFT", "STFT")
def _transform(operands: Operands) -> float:
    x = operands.input(0)
    return 5.0 * _size(x) * math.log2(max(x or (2,)) + 2)


@_of("Sum", "Mean", "Max", "Min")
def _variadic(operands: Operands) -> float:
    return operands.output_size() * max(1, len(operands.inputs) - 1)


@_of("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")
def _trees(operands: Operands) -> float:
    x, attributes = operands.input(0), operands.node.attributes
    trees = len(set(attributes.get("nodes_treeids") or ())) or len(attributes.get("tree_roots") or ()) or 1
    return 10.0 * (x[0] if x else 1) * trees * TREE_DEPTH


@_of("LinearClassifier", "LinearRegressor")
def _linear(operands: Operands) -> float:
    x = operands.input(0)
    return 2.0 * (x[0] if x else 1) * len(operands.node.attributes.get("coefficients") or (0,))


@_of("SVMClassifier", "SVMRegressor")
def _support_vectors(operands: Operands) -> float:
    x = operands.input(0)
    return 2.0 * (x[0] if x else 1) * len(operands.node.attributes.get("support_vectors") or (0,))
