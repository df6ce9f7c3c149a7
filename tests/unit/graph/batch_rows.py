"""Rows of operators for the proof of the batch axis: what must be proved, and what must be refused and why."""

from __future__ import annotations

from dataclasses import dataclass, field

MS = "com.microsoft"
ML = "ai.onnx.ml"


@dataclass(frozen=True)
class Row:
    """A graph of few nodes. In ``inputs`` N marks the batch axis; an input without it is the same for every part."""

    op_type: str
    inputs: str  # "float[N, 4] x, int64[2] i"
    nodes: str  # the last one makes y
    weights: str = ""  # "int64[2] s = {0, -1}"
    refused: str = ""  # part of the reason; empty: it must be proved
    opset: int = 18
    domain: str = ""
    outputs: str = "y"
    low: int = 0  # integers are drawn from low to high - 1
    high: int = 2
    values: dict[str, object] = field(default_factory=dict)

    def name(self) -> str:
        return f"{self.op_type}-{self.nodes.splitlines()[-1].strip()}-{self.inputs}"


def ok(op_type: str, inputs: str, nodes: str, weights: str = "", **more: object) -> Row:
    return Row(op_type, inputs, nodes, weights, **more)  # type: ignore[arg-type]  # fields by name


def no(op_type: str, inputs: str, nodes: str, refused: str, weights: str = "", **more: object) -> Row:
    return Row(op_type, inputs, nodes, weights, refused, **more)  # type: ignore[arg-type]  # fields by name


X = "float[N, 3, 4] x"
DECODER = "float[N, 1, 32] q, float[N, 1, 16] k, float[N, 1, 16] v, float[N, 1, 4, 16] pk, float[N, 1, 4, 16] pv"
IMAGE = "float[N, 4, 6, 6] x"

ELEMENTWISE = [
    ok("Add", f"{X}, float[4] b", "y = Add(x, b)"),
    ok("Add", f"{X}, float[1, 3, 1] b", "y = Add(x, b)"),
    ok("Add", "float[N, 3, 4] x, float[N, 3, 1] b", "y = Add(x, b)"),
    ok("Add", "float[4, N] x, float[3, 4, N] b", "y = Add(x, b)"),
    no("Add", f"{X}, float[5, 3, 4] b", "y = Add(x, b)", "5 rows along the batch axis"),
    no("Add", "float[N, 4] x, float[4, N] b", "y = Add(x, b)", "different axes"),
    no("Add", "float[N] x", "t = Unsqueeze(x, one)\n y = Add(x, t)", "different axes", "int64[1] one = {1}"),
    ok("Add", "float[N, 3, 4] x, float[3] b", "y = Add<broadcast=1, axis=1>(x, b)", opset=6),
    no("Add", "float[N, 3, 4] x, float[5] b", "y = Add<broadcast=1, axis=0>(x, b)", "5 rows", opset=6),
    ok("Where", "bool[N, 1] c, float[N, 4] x, float b", "y = Where(c, x, b)"),
    no("Where", "bool[5, 1] c, float[N, 4] x, float b", "y = Where(c, x, b)", "5 rows"),
    ok("PRelu", "float[N, 3, 4] x, float[3, 1] s", "y = PRelu(x, s)"),
    ok("Clip", f"{X}, float a, float b", "y = Clip(x, a, b)"),
    no("Clip", "float[N] x", "m = Squeeze(x, zero)\n y = Clip(x, m)", "removes the batch axis", "int64[1] zero = {0}"),
    ok("CastLike", "float[N, 2] x, double[3] t", "y = CastLike(x, t)"),
    ok("Dropout", X, "y = Dropout(x)"),
    no("Dropout", X, "y = Dropout(x, r, t)", "training mode", "float r = {0.5}, bool t = {1}"),
    no("Dropout", X, "y = Dropout<is_test=0>(x)", "training mode", opset=6),
    ok("QuantizeLinear", X, "y = QuantizeLinear(x, s, z)", "float s = {0.1}, uint8 z = {3}"),
    ok("QuantizeLinear", X, "y = QuantizeLinear<axis=2>(x, s, z)", "float[4] s = {1,2,3,4}, uint8[4] z = {0,0,0,0}"),
    no("QuantizeLinear", "float[N, 3] x, float[5] s", "y = QuantizeLinear<axis=0>(x, s)", "scale for each row"),
    ok("DequantizeLinear", "uint8[N, 3] x", "y = DequantizeLinear(x, s)", "float s = {0.1}"),
    no("DynamicQuantizeLinear", X, "y, s, z = DynamicQuantizeLinear(x)", "smallest and the largest element"),
    ok("BiasGelu", "float[N, 4] x, float[4] b", "y = com.microsoft.BiasGelu(x, b)", domain=MS),
    ok("FastGelu", "float[N, 4] x, float[4] b", "y = com.microsoft.FastGelu(x, b)", domain=MS),
    ok("QuickGelu", X, "y = com.microsoft.QuickGelu(x)", domain=MS),
]

PRODUCTS = [
    ok("MatMul", "float[N, 3, 4] x, float[4, 5] w", "y = MatMul(x, w)"),
    ok("MatMul", "float[N, 4] x, float[4, 5] w", "y = MatMul(x, w)"),
    ok("MatMul", "float[N, 4] x, float[4] w", "y = MatMul(x, w)"),
    ok("MatMul", "float[N, 4] x, float[2, 4, 5] w", "y = MatMul(x, w)"),
    ok("MatMul", "float[5, 4] w, float[4, N] x", "y = MatMul(w, x)"),
    ok("MatMul", "float[4] w, float[N, 4, 2] x", "y = MatMul(w, x)"),
    ok("MatMul", "float[N, 2, 3] x, float[N, 3, 4] b", "y = MatMul(x, b)"),
    ok("MatMul", "float[N, 2, 3] x, float[1, 3, 4] b", "y = MatMul(x, b)"),
    no("MatMul", "float[N, 2, 3] x, float[5, 3, 4] b", "y = MatMul(x, b)", "same for every part"),
    no("MatMul", "float[2, N] x, float[5, 4] w", "y = MatMul(x, w)", "sums over the batch axis"),
    no("MatMul", "float[2, 3] w, float[N, 4] x", "y = MatMul(w, x)", "sums over the batch axis"),
    no("MatMul", "float[N, 4] x, float[4, N] b", "y = MatMul(x, b)", "samples with other samples"),
    ok("Gemm", "float[N, 4] x, float[5, 4] w, float[5] b", "y = Gemm<transB=1>(x, w, b)"),
    ok("Gemm", "float[4, N] x, float[4, 5] w", "y = Gemm<transA=1>(x, w)"),
    ok("Gemm", "float[2, 4] w, float[N, 4] x, float[2, 1] c", "y = Gemm<transB=1>(w, x, c)"),
    ok("Gemm", "float[N, 4] x, float[4, 5] w, float[N, 1] c", "y = Gemm(x, w, c)"),
    no("Gemm", "float[N, 4] x, float[4, 5] w", "y = Gemm<transA=1>(x, w)", "sums over the batch axis"),
    no("Gemm", "float[N, 4] x, float[4, 5] w, float[5, 5] c", "y = Gemm(x, w, c)", "rows along the batch axis"),
    ok("Einsum", "float[N, 2, 3] x, float[3, 4] w", 'y = Einsum<equation="bij,jk->bik">(x, w)'),
    ok("Einsum", "float[N, 2, 3] x, float[N, 4, 3] k", 'y = Einsum<equation="bqd,bkd->bqk">(x, k)'),
    ok("Einsum", "float[N, 2, 3] x, float[3, 4] w", 'y = Einsum<equation="...j,jk->...k">(x, w)'),
    no("Einsum", "float[N, 2] x, float[2, 3] w", 'y = Einsum<equation="bi,ij->j">(x, w)', "sums over the batch axis"),
    no("Einsum", "float[N, 2] x, float[N, 2] z", 'y = Einsum<equation="ai,bi->ab">(x, z)', "other samples"),
    no("Einsum", "float[N, 2] x, float[5, 2] z", 'y = Einsum<equation="bi,bi->bi">(x, z)', "rows along the batch axis"),
    ok("MatMulInteger", "uint8[N, 4] x, uint8[4, 5] w", "y = MatMulInteger(x, w)"),
    no("MatMulInteger", "uint8[N, 4] x, uint8[4, 5] w, uint8[5] z", "y = MatMulInteger(x, w, z)", "value for each row"),
    ok("FusedMatMul", "float[4, N] x, float[4, 5] w", "y = com.microsoft.FusedMatMul<transA=1>(x, w)", domain=MS),
    no(
        "FusedMatMul",
        "float[N, 4] x, float[5, 3] w",
        "y = com.microsoft.FusedMatMul<transA=1>(x, w)",
        "sums",
        domain=MS,
    ),
    ok("FusedGemm", "float[N, 4] x, float[4, 5] w", 'y = com.microsoft.FusedGemm<activation="Relu">(x, w)', domain=MS),
    ok(
        "QLinearMatMul",
        "uint8[N, 4] x, uint8[4, 5] w",
        "y = QLinearMatMul(x, s, z, w, s, z, s, z)",
        "float s = {0.5}, uint8 z = {1}",
    ),
]

WINDOWS = [
    ok("Conv", f"{IMAGE}, float[5, 4, 3, 3] w", "y = Conv<pads=[1,1,1,1]>(x, w)"),
    no("Conv", "float[5, 4, 6] x, float[N, 4, 3] w", "y = Conv(x, w)", "differs from sample to sample"),
    no("Conv", "float[1, N, 6] x, float[5, 4, 3] w", "y = Conv(x, w)", "axis 1, the batch axis"),
    ok("ConvTranspose", f"{IMAGE}, float[4, 5, 3, 3] w", "y = ConvTranspose<strides=[2,2]>(x, w)"),
    ok("MaxPool", IMAGE, "y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x)"),
    no("MaxPool", IMAGE, "y, i = MaxPool<kernel_shape=[2,2]>(x)", "numbers the elements"),
    ok("AveragePool", IMAGE, "y = AveragePool<kernel_shape=[3,3], ceil_mode=1, strides=[2,2]>(x)"),
    ok("GlobalAveragePool", IMAGE, "y = GlobalAveragePool(x)"),
    ok("Resize", IMAGE, 'y = Resize<mode="linear">(x, , s)', "float[4] s = {1.0, 1.0, 2.0, 2.0}"),
    no("Resize", IMAGE, 'y = Resize<mode="nearest">(x, , s)', "resizes the batch axis", "float[4] s = {2, 1, 1, 1}"),
    no(
        "Resize",
        IMAGE,
        'y = Resize<mode="nearest", coordinate_transformation_mode="tf_crop_and_resize">(x, r, s)',
        "may move samples",
        "float[8] r = {0, 0, 0, 0, 1, 1, 1, 1}, float[4] s = {1, 1, 2, 2}",
    ),
    ok(
        "Resize",
        IMAGE,
        """n = Shape<start=0, end=2>(x)
        s = Concat<axis=0>(n, hw)
        y = Resize<mode="nearest">(x, , , s)""",
        "int64[2] hw = {9, 9}",
    ),
    no("Resize", IMAGE, 'y = Resize<mode="nearest">(x, , , s)', "fixes its size", "int64[4] s = {3, 4, 9, 9}"),
    ok("Upsample", IMAGE, "y = Upsample(x, s)", "float[4] s = {1, 1, 2, 2}", opset=9),
    ok("GridSample", f"{IMAGE}, float[N, 2, 2, 2] g", "y = GridSample(x, g)"),
    no("GridSample", f"{IMAGE}, float[5, 2, 2, 2] g", "y = GridSample(x, g)", "isn't that of the samples"),
    ok("DepthToSpace", IMAGE, "y = DepthToSpace<blocksize=2>(x)"),
    ok("SpaceToDepth", IMAGE, "y = SpaceToDepth<blocksize=2>(x)"),
    no(
        "NonMaxSuppression",
        "float[N, 4, 4] x, float[N, 2, 4] s",
        "y = NonMaxSuppression(x, s)",
        "one list of the boxes",
    ),
]

REDUCTIONS = [
    ok("ReduceMean", X, "y = ReduceMean(x, a)", "int64[1] a = {-1}"),
    ok("ReduceSum", X, "y = ReduceSum<keepdims=0>(x, a)", "int64[2] a = {1, 2}"),
    no("ReduceMean", X, "y = ReduceMean(x, a)", "reduces the batch axis", "int64[2] a = {0, -1}"),
    no("ReduceMean", X, "y = ReduceMean(x)", "reduces all axes"),
    ok("ReduceMax", X, "y = ReduceMax<axes=[1], keepdims=0>(x)", opset=13),
    ok("ArgMax", X, "y = ArgMax<axis=-1>(x)"),
    no("ArgMax", X, "y = ArgMax<axis=0>(x)", "the batch axis"),
    ok("TopK", X, "v, y = TopK(x, k)", "int64[1] k = {2}"),
    no("TopK", X, "v, y = TopK<axis=0>(x, k)", "sorts the batch axis", "int64[1] k = {2}"),
    ok("Softmax", X, "y = Softmax(x)"),
    no("Softmax", X, "y = Softmax<axis=0>(x)", "mixes the batch axis"),
    no("Softmax", "float[3, N, 4] x", "y = Softmax<axis=1>(x)", "mixes the batch axis"),
    ok("Softmax", "float[3, N, 4] x", "y = Softmax<axis=2>(x)", opset=11),
    no("Softmax", "float[3, 4, N] x", "y = Softmax<axis=1>(x)", "before version 13", opset=11),
    ok("LayerNormalization", X, "y = LayerNormalization(x, s)", "float[4] s = {1, 2, 3, 4}"),
    no("LayerNormalization", "float[3, N] x, float[5] s", "y = LayerNormalization(x, s)", "normalizes over the batch"),
    ok("InstanceNormalization", IMAGE, "y = InstanceNormalization(x, s, s)", "float[4] s = {1, 2, 3, 4}"),
    ok("BatchNormalization", IMAGE, "y = BatchNormalization(x, s, s, s, s)", "float[4] s = {1, 2, 3, 4}"),
    no(
        "BatchNormalization",
        IMAGE,
        "y, m, v = BatchNormalization<training_mode=1>(x, s, s, s, s)",
        "training mode",
        "float[4] s = {1, 2, 3, 4}",
    ),
    ok("LpNormalization", X, "y = LpNormalization(x)"),
    no("LpNormalization", X, "y = LpNormalization<axis=0>(x)", "normalizes over the batch axis"),
    ok("MeanVarianceNormalization", IMAGE, "y = MeanVarianceNormalization<axes=[1, 2, 3]>(x)"),
    no("MeanVarianceNormalization", IMAGE, "y = MeanVarianceNormalization(x)", "normalizes over the batch axis"),
    ok("LRN", IMAGE, "y = LRN<size=3>(x)"),
    ok("CumSum", X, "y = CumSum(x, a)", "int64 a = {1}"),
    no("CumSum", X, "y = CumSum(x, a)", "adds up along the batch axis", "int64 a = {0}"),
    ok(
        "SkipLayerNormalization",
        "float[N, 3, 4] x, float[N, 3, 4] s",
        "y = com.microsoft.SkipLayerNormalization(x, s, g)",
        "float[4] g = {1, 2, 3, 4}",
        domain=MS,
    ),
    no(
        "SkipLayerNormalization",
        "float[N, 3, 4] x, float[5, 3, 4] s",
        "y = com.microsoft.SkipLayerNormalization(x, s, g)",
        "rows along the batch axis",
        "float[4] g = {1, 2, 3, 4}",
        domain=MS,
    ),
]

MOVEMENT = [
    ok("Transpose", X, "y = Transpose<perm=[2, 0, 1]>(x)"),
    ok("Reshape", X, "y = Reshape(x, s)", "int64[2] s = {0, -1}"),
    ok("Reshape", X, "y = Reshape(x, s)", "int64[2] s = {-1, 12}"),
    ok("Reshape", X, "y = Reshape(x, s)", "int64[2] s = {-1, 4}"),
    ok(
        "Reshape", "float[N, 3, 4] x", "a = Reshape(x, s)\n y = Reshape(a, t)", "int64[2] s={-1,4}, int64[3] t={-1,3,4}"
    ),
    ok("Reshape", X, "y = Reshape<shape=[-1, 12]>(x)", opset=4),
    no("Reshape", X, "y = Reshape(x, s)", "fixes the batch dimension", "int64[2] s = {3, 12}"),
    no("Reshape", X, "y = Reshape(x, s)", "aren't known, or no whole number", "int64[2] s = {-1, 24}"),
    no("Reshape", X, "y = Reshape(x, s)", "moves samples", "int64[2] s = {4, -1}"),
    no("Reshape", "float[3, N, 4] x", "y = Reshape(x, s)", "moves samples", "int64[2] s = {-1, 4}"),
    no("Reshape", f"{X}, int64[2] s", "y = Reshape(x, s)", "aren't known before the run", values={"s": [0, -1]}),
    ok("Reshape", X, "n = Shape<end=1>(x)\n s = Concat<axis=0>(n, r)\n y = Reshape(x, s)", "int64[1] r = {-1}"),
    ok("Flatten", X, "y = Flatten(x)"),
    no("Flatten", "float[3, N, 4] x", "y = Flatten<axis=2>(x)", "before the batch axis"),
    ok("Squeeze", "float[N, 1, 4] x", "y = Squeeze(x, a)", "int64[1] a = {1}"),
    no("Squeeze", "float[N, 1, 4] x", "y = Squeeze(x)", "part of one sample"),
    ok("Unsqueeze", X, "y = Unsqueeze(x, a)", "int64[2] a = {0, -1}"),
    ok("Concat", "float[N, 3] x, float[N, 4] b", "y = Concat<axis=1>(x, b)"),
    no("Concat", "float[N, 3] x, float[N, 3] b", "y = Concat<axis=0>(x, b)", "along the batch axis"),
    no("Concat", "float[N, 3] x, float[1, 3] b", "y = Concat<axis=1>(x, b)", "made of samples with such that are not"),
    ok("Split", "float[N, 4] x", "y, z = Split<axis=1, num_outputs=2>(x)"),
    no("Split", "float[N, 4] x", "y, z = Split<axis=0, num_outputs=2>(x)", "splits the batch axis"),
    ok("Slice", X, "y = Slice(x, a, b, c)", "int64[1] a = {1}, int64[1] b = {3}, int64[1] c = {1}"),
    ok("Slice", X, "y = Slice(x, a, b, c)", "int64[1] a = {0}, int64[1] b = {9223372036854775807}, int64[1] c = {0}"),
    no(
        "Slice",
        X,
        "y = Slice(x, a, b, c)",
        "some of the samples",
        "int64[1] a = {0}, int64[1] b = {2}, int64[1] c = {0}",
    ),
    no(
        "Slice",
        X,
        "y = Slice(x, a, b, c, d)",
        "some of the samples",
        "int64[1] a = {-1}, int64[1] b = {-9223372036854775807}, int64[1] c = {0}, int64[1] d = {-1}",
    ),
    ok("Pad", X, "y = Pad(x, p)", "int64[6] p = {0, 1, 0, 0, 1, 2}"),
    no("Pad", X, "y = Pad(x, p)", "pads the batch axis", "int64[6] p = {1, 0, 0, 0, 0, 0}"),
    ok("Tile", X, "y = Tile(x, r)", "int64[3] r = {1, 2, 3}"),
    no("Tile", X, "y = Tile(x, r)", "repeats samples", "int64[3] r = {2, 1, 1}"),
    ok("Expand", "float[N, 1, 4] x", "y = Expand(x, s)", "int64[3] s = {1, 3, 4}"),
    no("Expand", "float[N, 1, 4] x", "y = Expand(x, s)", "fixes the batch dimension", "int64[3] s = {3, 3, 4}"),
    ok(
        "Expand",
        "float[N, 2] x, float[1, 3] e",
        "n = Shape<end=1>(x)\n s = Concat<axis=0>(n, t)\n z = Expand(e, s)\n y = Concat<axis=1>(x, z)",
        "int64[1] t = {3}",
    ),
    ok("ConstantOfShape", X, "n = Shape(x)\n z = ConstantOfShape(n)\n y = Add(x, z)"),
    no(
        "ConstantOfShape",
        "float[N] x",
        "n = Shape(x)\n s = Concat<axis=0>(n, n)\n y = ConstantOfShape(s)",
        "more than one",
    ),
    ok("Trilu", "float[N, 4, 4] x", "y = Trilu(x)"),
    no("Trilu", "float[4, N] x", "y = Trilu(x)", "triangle over the batch axis"),
    ok("ReverseSequence", "float[4, N, 2] x, int64[N] l", "y = ReverseSequence(x, l)", low=1, high=4),
    no("ReverseSequence", "float[N, 4, 2] x, int64[4] l", "y = ReverseSequence(x, l)", "batch axis", low=1, high=4),
    no(
        "Range",
        "float[N] x",
        "n = Shape(x)\n e = Squeeze(n)\n z = Range(a, e, b)\n y = Cast<to=1>(z)",
        "numbers of the samples",
        "int64 a = {0}, int64 b = {1}",
    ),
    no("Range", "float[N] x", "n = Shape(x)\n e = Squeeze(n)\n y = Range(b, e, b)", "another way", "int64 b = {1}"),
    no("Cast", "float[N] x", "n = Size(x)\n f = Cast<to=1>(n)\n y = Div(x, f)", "computes with the batch size"),
]

INDEXING = [
    ok("Gather", "float[7, 4] t, int64[N, 3] i", "y = Gather(t, i)", high=7),
    ok("Gather", f"{X}, int64[2] i", "y = Gather<axis=1>(x, i)"),
    no("Gather", f"{X}, int64[2] i", "y = Gather<axis=0>(x, i)", "by their number"),
    no("Gather", f"{X}, int64[N] i", "y = Gather<axis=1>(x, i)", "made of samples"),
    ok("GatherElements", "float[N, 4] x, int64[N, 2] i", "y = GatherElements<axis=1>(x, i)"),
    ok("GatherElements", "float[4, 2] t, int64[N, 2] i", "y = GatherElements<axis=0>(t, i)"),
    no("GatherElements", "float[N, 4] x, int64[N, 4] i", "y = GatherElements<axis=0>(x, i)", "by their number"),
    no("GatherElements", "float[5, 4] t, int64[N, 2] i", "y = GatherElements<axis=1>(t, i)", "rows for samples"),
    ok("GatherND", "float[N, 4, 2] x, int64[N, 3, 1] i", "y = GatherND<batch_dims=1>(x, i)"),
    ok("GatherND", "float[4, 2] t, int64[N, 2] i", "y = GatherND(t, i)"),
    no("GatherND", "float[N, 4] x, int64[3, 2] i", "y = GatherND(x, i)", "by their number"),
    ok(
        "ScatterElements", "float[N, 4] x, int64[N, 2] i, float[N, 2] u", "y = ScatterElements<axis=1>(x, i, u)", high=1
    ),
    no("ScatterElements", "float[N, 4] x, int64[N, 4] i, float[N, 4] u", "y = ScatterElements(x, i, u)", "number"),
    ok("ScatterND", "float[4, N] x, int64[2, 1] i, float[2, N] u", "y = ScatterND(x, i, u)", high=1),
    no("ScatterND", "float[N, 4] x, int64[1, 1] i, float[1, 4] u", "y = ScatterND(x, i, u)", "number of their sample"),
    ok("OneHot", "int64[N, 3] x", "y = OneHot(x, d, v)", "int64 d = {4}, float[2] v = {0, 1}"),
    ok("Compress", X, "y = Compress<axis=1>(x, c)", "bool[3] c = {1, 0, 1}"),
    no("Compress", f"{X}, bool[5] c", "y = Compress<axis=0>(x, c)", "by their number"),
    no("NonZero", "float[N, 2] x", "y = NonZero(x)", "one list of the elements"),
    no("Unique", "float[N] x", "y = Unique(x)", "one list of the elements"),
    ok(
        "GatherND",
        "float[N, 4] x, int64[N, 1] p",
        """n = Shape<end=1>(x)
        e = Squeeze(n)
        r = Range(zero, e, one)
        c = Unsqueeze(r, axis)
        i = Concat<axis=1>(c, p)
        y = GatherND(x, i)""",
        "int64 zero = {0}, int64 one = {1}, int64[1] axis = {1}",
    ),
    no(
        "GatherND",
        "float[N, 4] x, int64[N, 1] p, float[5, 4] t",
        """n = Shape<end=1>(x)
        e = Squeeze(n)
        r = Range(zero, e, one)
        c = Unsqueeze(r, axis)
        i = Concat<axis=1>(c, p)
        y = GatherND(t, i)""",
        "from what isn't theirs",
        "int64 zero = {0}, int64 one = {1}, int64[1] axis = {1}",
    ),
    no(
        "GatherND",
        "float[N, 4] x, int64[N, 1] p",
        """n = Shape<end=1>(x)
        e = Squeeze(n)
        r = Range(zero, e, one)
        c = Unsqueeze(r, axis)
        i = Concat<axis=1>(p, c)
        y = GatherND(x, i)""",
        "indices that are made of samples",
        "int64 zero = {0}, int64 one = {1}, int64[1] axis = {1}",
    ),
    ok(
        "ScatterND",
        "float[N, 4] x, int64[N, 1] p, float[N] u",
        """n = Shape<end=1>(x)
        e = Squeeze(n)
        r = Range(zero, e, one)
        c = Unsqueeze(r, axis)
        i = Concat<axis=1>(c, p)
        y = ScatterND(x, i, u)""",
        "int64 zero = {0}, int64 one = {1}, int64[1] axis = {1}",
    ),
]

RECURRENT = [
    ok("LSTM", "float[5, N, 3] x, float[1, 8, 3] w, float[1, 8, 2] r", "y, h, c = LSTM<hidden_size=2>(x, w, r)"),
    ok(
        "LSTM",
        "float[5, N, 3] x, float[1, 8, 3] w, float[1, 8, 2] r, float[1, N, 2] h0, float[1, N, 2] c0",
        "y, h, c = LSTM<hidden_size=2>(x, w, r, , , h0, c0)",
        outputs="y, h, c",
    ),
    no(
        "LSTM",
        "float[5, N, 3] x, float[1, 8, 3] w, float[1, 8, 2] r, float[1, 5, 2] h0",
        "y, h, c = LSTM<hidden_size=2>(x, w, r, , , h0)",
        "same samples",
    ),
    no(
        "LSTM",
        "float[N, 5, 3] x, float[1, 8, 3] w, float[1, 8, 2] r",
        "y, h, c = LSTM<hidden_size=2>(x, w, r)",
        "recurs along the batch axis",
    ),
    ok(
        "GRU",
        "float[5, N, 3] x, float[1, 6, 3] w, float[1, 6, 2] r, int32[N] l",
        "y, h = GRU<hidden_size=2>(x, w, r, , l)",
        outputs="h",
        low=1,
        high=5,
    ),
    ok("RNN", "float[5, N, 3] x, float[1, 2, 3] w, float[1, 2, 2] r", "y, h = RNN<hidden_size=2>(x, w, r)"),
]

ATTENTION = [
    ok(
        "Attention", "float[N, 2, 3, 4] q, float[N, 2, 5, 4] k, float[N, 2, 5, 4] v", "y = Attention(q, k, v)", opset=23
    ),
    ok(
        "Attention",
        "float[N, 2, 3, 4] q, float[N, 2, 5, 4] k, float[N, 2, 5, 4] v, float[3, 5] m",
        "y = Attention(q, k, v, m)",
        opset=23,
    ),
    no(
        "Attention",
        "float[N, 2, 3, 4] q, float[N, 2, 5, 4] k, float[N, 2, 5, 4] v, float[5, 1, 3, 5] m",
        "y = Attention(q, k, v, m)",
        "mask is the same for every part",
        opset=23,
    ),
    no(
        "Attention",
        "float[N, 2, 3, 4] q, float[1, 2, 5, 4] k, float[N, 2, 5, 4] v",
        "y = Attention(q, k, v)",
        "is the same for every part",
        opset=23,
    ),
    ok(
        "Attention",
        "float[N, 3, 4] x, float[4, 12] w, float[12] b, int32[N, 3] m",
        "y = com.microsoft.Attention<num_heads=2>(x, w, b, m)",
        domain=MS,
    ),
    no(
        "Attention",
        "float[N, 3, 4] x, float[4, 12] w, float[12] b, int32[5, 3] m",
        "y = com.microsoft.Attention<num_heads=2>(x, w, b, m)",
        "its input 3 is the same for every part",
        domain=MS,
    ),
    ok(
        "MultiHeadAttention",
        "float[N, 3, 4] q, float[N, 5, 4] k, float[N, 5, 4] v, float[1, 2, 3, 5] b",
        "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v, , , b)",
        domain=MS,
    ),
    no(
        "MultiHeadAttention",
        "float[N, 3, 4] q, float[5, 5, 4] k, float[N, 5, 4] v",
        "y = com.microsoft.MultiHeadAttention<num_heads=2>(q, k, v)",
        "its input 1 is the same for every part",
        domain=MS,
    ),
    ok(
        "GroupQueryAttention",
        f"{DECODER}, int32[N] l",
        "y, nk, nv = com.microsoft.GroupQueryAttention<num_heads=2, kv_num_heads=1>(q, k, v, pk, pv, l, t)",
        "int32 t = {5}",
        domain=MS,
        outputs="y, nk, nv",
        low=4,
        high=5,
    ),
    no(
        "GroupQueryAttention",
        f"{DECODER}, int32[5] l",
        "y, nk, nv = com.microsoft.GroupQueryAttention<num_heads=2, kv_num_heads=1>(q, k, v, pk, pv, l, t)",
        "its input 5 is the same for every part",
        "int32 t = {5}",
        domain=MS,
    ),
    ok(
        "RotaryEmbedding",
        "float[N, 3, 8] x, int64[N, 3] p, float[6, 2] c, float[6, 2] s",
        "y = com.microsoft.RotaryEmbedding<num_heads=2, rotary_embedding_dim=4>(x, p, c, s)",
        domain=MS,
    ),
    ok(
        "EmbedLayerNormalization",
        "int32[N, 3] i, int32[N, 3] t, float[7, 4] w, float[6, 4] p, float[2, 4] s, float[4] g, int32[N, 3] m",
        "y, z = com.microsoft.EmbedLayerNormalization(i, t, w, p, s, g, g, m)",
        domain=MS,
        outputs="y, z",
    ),
]

EXPERTS = [
    ok(
        "MoE",
        "float[N, 3, 4] x, float[N, 3, 2] r, float[2, 5, 4] w1, float[2, 4, 5] w2",
        "t = Reshape(r, s)\n y = com.microsoft.MoE<k=1>(x, t, w1, , w2)",
        "int64[2] s = {-1, 2}",
        domain=MS,
    ),
    no(
        "MoE",
        "float[N, 3, 4] x, float[15, 2] r, float[2, 5, 4] w1, float[2, 4, 5] w2",
        "y = com.microsoft.MoE<k=1>(x, r, w1, , w2)",
        "routes are not those of the samples",
        domain=MS,
    ),
]

CONTROL = [
    ok(
        "If",
        f"{X}, bool c",
        "y = If(c) <then_branch = a () => (float[N, 3, 4] u) { u = Relu(x) },"
        " else_branch = b () => (float[N, 3, 4] v) { v = Neg(x) }>",
    ),
    no(
        "If",
        f"{X}, bool c",
        "y = If(c) <then_branch = a () => (float[A, B, C] u) { u = Transpose<perm=[1, 0, 2]>(x) },"
        " else_branch = b () => (float[A, B, C] v) { v = Neg(x) }>",
        "different axes",
    ),
    no(
        "If",
        "float[N] x",
        "n = Size(x)\n c = Less(n, five)\n y = If(c) <then_branch = a () => (float[A] u) { u = Neg(x) },"
        " else_branch = b () => (float[A] v) { v = Relu(x) }>",
        "can't be followed",
        "int64 five = {5}",
    ),
    ok(
        "Loop",
        X,
        "y, z = Loop(m, t, x) <body = a (int64 i, bool c, float[A, B, C] s)"
        " => (bool d, float[A, B, C] n, float[A, B, C] o) { d = Identity(c) n = Add(s, x) o = Neg(n) }>",
        "int64 m = {3}, bool t = {1}",
        outputs="y, z",
    ),
    no(
        "Loop",
        "float[N, 3] x, int64 m, bool t",
        "y = Loop(m, t, x) <body = a (int64 i, bool c, float[A, B] s) => (bool d, float[A, B] n) {"
        " d = Identity(c) n = Softmax<axis=0>(s) }>",
        "mixes the batch axis",
    ),
    no(
        "Loop",
        "float[N] x, bool t",
        "n = Size(x)\n y = Loop(n, t, x) <body = a (int64 i, bool c, float[A] s) => (bool d, float[A] n2) {"
        " d = Identity(c) n2 = Neg(s) }>",
        "number of its iterations",
    ),
    ok(
        "Scan",
        "float[5, N, 2] x, float[N, 2] s",
        "e, y = Scan<num_scan_inputs=1, body = a (float[A, B] p, float[A, B] q) => (float[A, B] r, float[A, B] o) {"
        " r = Add(p, q) o = Neg(r) }>(s, x)",
        outputs="e, y",
    ),
    no(
        "Scan",
        "float[N, 2] x, float[2] s",
        "e, y = Scan<num_scan_inputs=1, body = a (float[B] p, float[B] q) => (float[B] r, float[B] o) {"
        " r = Add(p, q) o = Neg(r) }>(s, x)",
        "one after the other",
    ),
    no("RandomNormalLike", X, "y = RandomNormalLike(x)", "it is random"),
    no("Bernoulli", X, "y = Bernoulli(x)", "it is random"),
    no("Mine", X, "y = my.domain.Mine(x)", "no rule for operators of 'my.domain'", domain="my.domain"),
    no("SplitToSequence", "float[N, 2] x", "s = SplitToSequence(x)\n y = ConcatFromSequence<axis=0>(s)", "no rule"),
]

LEARNING = [
    ok("Scaler", "float[N, 3] x", "y = ai.onnx.ml.Scaler<offset=[1.0, 2.0, 3.0], scale=[2.0, 2.0, 2.0]>(x)", domain=ML),
    ok(
        "LinearRegressor", "float[N, 3] x", "y = ai.onnx.ml.LinearRegressor<coefficients=[1.0, 2.0, 3.0]>(x)", domain=ML
    ),
    no(
        "LinearRegressor",
        "float[3, N] x",
        "y = ai.onnx.ml.LinearRegressor<coefficients=[1.0]>(x)",
        "in each row",
        domain=ML,
    ),
    ok("Normalizer", "float[N, 3] x", 'y = ai.onnx.ml.Normalizer<norm="L2">(x)', domain=ML),
    ok("Binarizer", "float[N, 3] x", "y = ai.onnx.ml.Binarizer<threshold=0.5>(x)", domain=ML),
    ok("ZipMap", "float[N, 2] x", "y = ai.onnx.ml.ZipMap<classlabels_int64s=[4, 5]>(x)", domain=ML),
    ok("ArrayFeatureExtractor", "float[N, 3] x, int64[2] i", "y = ai.onnx.ml.ArrayFeatureExtractor(x, i)", domain=ML),
]

SHAPE = """s = Shape({})
        n = Gather(s, zero)
        n1 = Unsqueeze(n, front)"""
INDICES = "int64 zero = {0}, int64 one = {1}, int64[1] front = {0}"

#: what exporters make of common layers
PATTERNS = [
    ok(  # a class token before the patches of an image
        "Concat",
        "float[N, 3, 4] x, float[1, 1, 4] token",
        f"""{SHAPE.format("x")}
        t = Concat<axis=0>(n1, rest)
        minus = ConstantOfShape<value = int64[1] {{-1}}>(three)
        same = Equal(t, minus)
        ones = ConstantOfShape<value = int64[1] {{1}}>(three)
        u = Where(same, ones, t)
        e = Expand(token, u)
        y = Concat<axis=1>(e, x)""",
        f"{INDICES}, int64[2] rest = {{-1, -1}}, int64[1] three = {{3}}",
    ),
    ok(  # windows of an image, and back
        "Reshape",
        "float[N, 4, 6, 2] x, float[4, 4] mix",
        f"""{SHAPE.format("x")}
        split = Concat<axis=0>(n1, tiles)
        a = Reshape(x, split)
        b = Transpose<perm=[0, 1, 3, 2, 4, 5]>(a)
        w = Reshape(b, window)
        t = MatMul(mix, w)
        ws = Shape(t)
        wn = Gather(ws, zero)
        f = Cast<to=1>(wn)
        q = Div(f, six)
        m = Cast<to=7>(q)
        m1 = Unsqueeze(m, front)
        back = Concat<axis=0>(m1, untiles)
        c = Reshape(t, back)
        d = Transpose<perm=[0, 1, 3, 2, 4, 5]>(c)
        whole = Concat<axis=0>(m1, image)
        y = Reshape(d, whole)""",
        f"{INDICES}, int64[5] tiles = {{2, 2, 3, 2, 2}}, int64[3] window = {{-1, 4, 2}}, float six = {{6.0}},"
        " int64[5] untiles = {2, 3, 2, 2, -1}, int64[3] image = {4, 6, -1}",
    ),
    ok(  # group normalization
        "InstanceNormalization",
        IMAGE,
        """g = Reshape(x, groups)
        i = InstanceNormalization(g, scale, bias)
        s = Shape(x)
        y = Reshape(i, s)""",
        "int64[3] groups = {0, 2, -1}, float[2] scale = {1, 2}, float[2] bias = {0, 1}",
    ),
    ok(  # a head of a detector: boxes of all anchors in one list
        "Concat",
        "float[N, 6, 2, 2] a, float[N, 6, 1, 1] b, float[1, 2, 2, 2, 3] grid",
        f"""{SHAPE.format("a")}
        five = Concat<axis=0>(n1, anchors)
        c = Reshape(a, five)
        d = Transpose<perm=[0, 1, 3, 4, 2]>(c)
        e = Sigmoid(d)
        f = Add(e, grid)
        three = Concat<axis=0>(n1, flat)
        g = Reshape(f, three)
        h = Reshape(b, other)
        y = Concat<axis=1>(g, h)""",
        f"{INDICES}, int64[4] anchors = {{2, 3, 2, 2}}, int64[2] flat = {{-1, 3}}, int64[3] other = {{0, 2, 3}}",
    ),
    ok(  # an initial state of zeros
        "GRU",
        "float[N, 5, 3] x, float[1, 6, 3] w, float[1, 6, 2] r",
        f"""{SHAPE.format("x")}
        shape = Concat<axis=0>(front1, n1, width)
        h = ConstantOfShape(shape)
        t = Transpose<perm=[1, 0, 2]>(x)
        o, y = GRU<hidden_size=2>(t, w, r, , , h)""",
        f"{INDICES}, int64[1] front1 = {{1}}, int64[1] width = {{2}}",
    ),
    ok(  # a causal mask, cut to the length
        "Where",
        "float[N, 2, 3, 3] scores, bool[1, 1, 4, 4] causal, float low",
        """s = Shape(scores)
        k = Gather(s, three)
        k1 = Unsqueeze(k, front)
        m = Slice(causal, front, k1, two)
        c = Slice(m, front, k1, three1)
        w = Where(c, scores, low)
        y = Softmax<axis=-1>(w)""",
        "int64 three = {3}, int64[1] front = {0}, int64[1] two = {2}, int64[1] three1 = {3}",
    ),
    ok(  # position numbers, repeated for each sample
        "Gather",
        "int64[N, 3] ids, float[4, 2] words, float[4, 2] places",
        """s = Shape(ids)
        l = Gather(s, one)
        r = Range(zero, l, one)
        r1 = Unsqueeze(r, front)
        p = Expand(r1, s)
        a = Gather(words, ids)
        b = Gather(places, p)
        y = Add(a, b)""",
        INDICES,
    ),
    ok(  # heads beside the batch, as torch's multi-head attention has them
        "MatMul",
        "float[3, N, 4] x",
        """s = Shape(x)
        n = Gather(s, one)
        m = Mul(n, two)
        m1 = Unsqueeze(m, front)
        heads = Concat<axis=0>(three, m1, two1)
        q = Reshape(x, heads)
        t = Transpose<perm=[1, 0, 2]>(q)
        k = Transpose<perm=[1, 2, 0]>(q)
        a = MatMul(t, k)
        b = Softmax<axis=-1>(a)
        o = MatMul(b, t)
        u = Transpose<perm=[1, 0, 2]>(o)
        n1 = Unsqueeze(n, front)
        joined = Concat<axis=0>(three, n1, four)
        y = Reshape(u, joined)""",
        f"{INDICES}, int64 two = {{2}}, int64[1] two1 = {{2}}, int64[1] three = {{3}}, int64[1] four = {{4}}",
    ),
    no(  # contrast of samples with one another
        "Gemm",
        "float[N, 4] image, float[N, 4] text",
        """a = LpNormalization(image)
        b = LpNormalization(text)
        y = Gemm<transB=1>(a, b)""",
        "samples with other samples",
    ),
    no(  # moments of a batch, spelled out
        "Div",
        "float[N, 4] x",
        """m = ReduceMean(x, front)
        d = Sub(x, m)
        y = Abs(d)""",
        "reduces the batch axis",
        "int64[1] front = {0}",
    ),
]

ROWS = [
    *PATTERNS,
    *(
        ELEMENTWISE
        + PRODUCTS
        + WINDOWS
        + REDUCTIONS
        + MOVEMENT
        + INDEXING
        + RECURRENT
        + ATTENTION
        + EXPERTS
        + CONTROL
        + LEARNING
    ),
]
