"""One node of each operator on shapes as they come in deployed models: [name, inputs, attributes, ...]."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import helper, parser


@dataclass(frozen=True)
class KernelCase:
    op_type: str
    inputs: list[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    constant: tuple[int, ...] = ()  # inputs that are weights
    n_outputs: int = 1
    domain: str = ""
    label: str = ""

    @property
    def name(self) -> str:
        return self.op_type + (f" ({self.label})" if self.label else "")


_random = np.random.default_rng(0)


def f(*shape: int) -> Any:
    return _random.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> Any:
    return np.abs(f(*shape)) + np.float32(0.1)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def below(limit: int, *shape: int, dtype: Any = np.int64) -> Any:
    return _random.integers(0, limit, shape).astype(dtype)


def words(*shape: int) -> Any:
    return _random.choice(np.array(["alpha beta", "gamma", "delta  eps", ""], object), shape)


_ROWS = (128, 768)  # tokens of a transformer
_MAPS = (1, 64, 56, 56)  # channels of a convolutional network
_ML = "ai.onnx.ml"


def _elementwise() -> list[KernelCase]:
    everywhere = (
        "Abs",
        "Asinh",
        "Atan",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Cosh",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Mish",
        "Neg",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
    )
    unit = _random.uniform(-0.9, 0.9, _ROWS).astype(np.float32)
    found = [KernelCase(name, [f(*_ROWS)]) for name in everywhere]
    found += [KernelCase(name, [unit]) for name in ("Acos", "Asin", "Atanh")]
    found += [KernelCase(name, [positive(*_ROWS) + 1]) for name in ("Acosh", "Log", "Sqrt")]
    found += [
        KernelCase(name, [f(*_ROWS), f(768)]) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum")
    ]
    found += [KernelCase("Pow", [positive(*_ROWS), np.float32(2)], constant=(1,))]
    found += [KernelCase("Pow", [positive(*_ROWS), f(768)], label="any")]
    found += [KernelCase("PRelu", [f(*_MAPS), f(64, 1, 1)])]
    found += [
        KernelCase(name, [f(*_ROWS), f(*_ROWS)])
        for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ]
    yes = f(*_ROWS) > 0
    found += [KernelCase(name, [yes, yes[:, ::-1].copy()]) for name in ("And", "Or", "Xor")]
    found += [KernelCase("Not", [yes]), KernelCase("Where", [yes, f(*_ROWS), f(*_ROWS)])]
    whole = below(1000, *_ROWS, dtype=np.int32)
    found += [KernelCase(name, [whole, whole + 1]) for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "Mod")]
    found += [KernelCase("BitwiseNot", [whole])]
    shift = below(8, *_ROWS, dtype=np.uint32)
    found += [KernelCase("BitShift", [shift + 1, shift], {"direction": "LEFT"})]
    found += [KernelCase("Mod", [f(*_ROWS), positive(*_ROWS)], {"fmod": 1}, label="fmod")]
    found += [KernelCase("Cast", [f(*_ROWS)], {"to": to}, label=label) for to, label in ((10, "half"), (7, "int64"))]
    found += [KernelCase("CastLike", [f(*_ROWS), below(2, 1)])]
    return found


def _movement() -> list[KernelCase]:
    x, rows = f(12, 128, 64), f(*_ROWS)
    maps = f(*_MAPS)
    return [
        KernelCase("Compress", [rows, f(128) > 0], {"axis": 0}),
        KernelCase("Concat", [rows, rows], {"axis": 1}),
        KernelCase("ConstantOfShape", [ints(128, 768)]),
        KernelCase("DepthToSpace", [maps], {"blocksize": 2}),
        KernelCase("SpaceToDepth", [maps], {"blocksize": 2}),
        KernelCase("Expand", [f(128, 1), ints(128, 768)]),
        KernelCase("EyeLike", [rows]),
        KernelCase("Flatten", [maps]),
        KernelCase("Gather", [f(30000, 768), below(30000, 128)], constant=(0,)),
        KernelCase("GatherElements", [rows, below(128, 128, 768)]),
        KernelCase("GatherND", [rows, np.stack([below(128, 4000), below(768, 4000)], 1)]),
        KernelCase("NonZero", [f(*_ROWS) > 1]),
        KernelCase("OneHot", [below(1000, 128), np.array(1000), np.array([0, 1], np.float32)]),
        KernelCase("Pad", [maps, ints(0, 0, 1, 1, 0, 0, 1, 1)], constant=(1,)),
        KernelCase("Pad", [maps, ints(0, 0, 1, 1, 0, 0, 1, 1)], {"mode": "reflect"}, (1,), label="reflect"),
        KernelCase("Range", [np.array(0), np.array(10000), np.array(1)]),
        KernelCase("Reshape", [rows, ints(128, 12, 64)], constant=(1,)),
        KernelCase("ReverseSequence", [f(128, 8, 64), below(128, 8)]),
        KernelCase("ScatterElements", [rows, below(128, 64, 768), f(64, 768)]),
        KernelCase("ScatterElements", [rows, below(128, 64, 768), f(64, 768)], {"reduction": "add"}, label="add"),
        KernelCase("ScatterND", [rows, below(128, 64, 1), f(64, 768)]),
        KernelCase("ScatterND", [rows, below(128, 64, 1), f(64, 768)], {"reduction": "add"}, label="add"),
        KernelCase("Shape", [rows]),
        KernelCase("Size", [rows]),
        KernelCase("Slice", [maps, ints(0, 1), ints(64, 55), ints(1, 2)], constant=(1, 2, 3)),
        KernelCase("Split", [rows, ints(256, 512)], {"axis": 1}, (1,), 2),
        KernelCase("Squeeze", [f(1, *_ROWS)]),
        KernelCase("Unsqueeze", [rows, ints(0)], constant=(1,)),
        KernelCase("Tile", [f(128, 96), ints(1, 8)], constant=(1,)),
        KernelCase("Transpose", [x], {"perm": [1, 0, 2]}),
        KernelCase("Trilu", [f(512, 512)]),
        KernelCase("Unique", [below(100, 10000)], n_outputs=4),
        KernelCase("CenterCropPad", [maps, ints(1, 64, 48, 60)]),
    ]


def _reductions() -> list[KernelCase]:
    names = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
    found = [KernelCase(f"Reduce{name}", [positive(*_ROWS), ints(-1)], constant=(1,)) for name in names]
    found += [KernelCase("ReduceMean", [f(*_MAPS), ints(2, 3)], constant=(1,), label="images")]
    found += [KernelCase("ReduceSum", [f(*_ROWS), ints(0)], constant=(1,), label="first axis")]
    found += [
        KernelCase(name, [f(*_ROWS)], {"axis": -1}) for name in ("ArgMax", "ArgMin", "Softmax", "LogSoftmax", "Hardmax")
    ]
    found += [KernelCase("CumSum", [f(*_ROWS), np.array(1)], constant=(1,))]
    found += [
        KernelCase("TopK", [f(*_ROWS), ints(10)], n_outputs=2),
        KernelCase("TopK", [f(1, 30000), ints(5)], n_outputs=2, label="vocabulary"),
    ]
    return found


def _dense() -> list[KernelCase]:
    token, weight = f(*_ROWS), f(768, 768)
    byte, signed = below(255, 128, 768, dtype=np.uint8), below(200, 768, 768, dtype=np.uint8).astype(np.int8)
    one, zero = np.float32(0.02), np.uint8(128)
    image, filters = f(*_MAPS), f(64, 64, 3, 3)
    pads = {"pads": [1, 1, 1, 1]}
    steps, hidden = f(64, 1, 128), 128
    heads = f(1, 12, 128, 64)
    found = [
        KernelCase("MatMul", [token, weight], constant=(1,)),
        KernelCase("MatMul", [heads, heads.transpose(0, 1, 3, 2).copy()], label="heads"),
        KernelCase("Gemm", [token, weight, f(768)], constant=(1, 2)),
        KernelCase("Einsum", [heads, heads], {"equation": "bhid,bhjd->bhij"}),
        KernelCase("MatMulInteger", [byte, signed, zero], constant=(1, 2)),
        KernelCase(
            "QLinearMatMul",
            [byte, one, zero, signed, one, np.int8(0), np.float32(5), zero],
            constant=(1, 2, 3, 4, 5, 6, 7),
        ),
        KernelCase("QuantizeLinear", [token, one, zero], constant=(1, 2)),
        KernelCase("DequantizeLinear", [byte, one, zero], constant=(1, 2)),
        KernelCase("DynamicQuantizeLinear", [token], n_outputs=3),
        KernelCase("Conv", [image, filters, f(64)], pads, (1, 2)),
        KernelCase("Conv", [image, f(256, 64, 1, 1)], constant=(1,), label="1x1"),
        KernelCase("Conv", [image, f(64, 1, 3, 3)], {**pads, "group": 64}, (1,), label="depthwise"),
        KernelCase("Conv", [f(1, 64, 400), f(64, 64, 3)], constant=(1,), label="1d"),
        KernelCase(
            "ConvInteger",
            [below(255, *_MAPS, dtype=np.uint8), below(200, 64, 64, 3, 3, dtype=np.uint8), zero, zero],
            pads,
            (1, 2, 3),
        ),
        KernelCase(
            "QLinearConv",
            [
                below(255, *_MAPS, dtype=np.uint8),
                one,
                zero,
                below(200, 64, 64, 3, 3, dtype=np.uint8),
                one,
                zero,
                np.float32(9),
                zero,
            ],
            pads,
            (1, 2, 3, 4, 5, 6, 7),
        ),
        KernelCase("ConvTranspose", [f(1, 64, 28, 28), f(64, 32, 2, 2)], {"strides": [2, 2]}, (1,)),
        KernelCase("DeformConv", [f(1, 16, 28, 28), f(16, 16, 3, 3), f(1, 18, 26, 26)], constant=(1,)),
        KernelCase("MaxPool", [image], {"kernel_shape": [3, 3], "strides": [2, 2], **pads}),
        KernelCase("MaxPool", [image], {"kernel_shape": [2, 2], "strides": [2, 2]}, n_outputs=2, label="indices"),
        KernelCase(
            "MaxUnpool",
            [f(1, 64, 28, 28), np.tile(np.arange(784).reshape(1, 1, 28, 28) * 4, (1, 64, 1, 1))],
            {"kernel_shape": [2, 2], "strides": [2, 2]},
        ),
        KernelCase("AveragePool", [image], {"kernel_shape": [3, 3], "strides": [2, 2], **pads}),
        KernelCase("LpPool", [image], {"kernel_shape": [3, 3], "strides": [2, 2], **pads}),
        *(KernelCase(name, [image]) for name in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")),
        KernelCase("BatchNormalization", [image, f(64), f(64), f(64), positive(64)], constant=(1, 2, 3, 4)),
        KernelCase("InstanceNormalization", [image, f(64), f(64)], constant=(1, 2)),
        KernelCase("GroupNormalization", [image, f(64), f(64)], {"num_groups": 8}, (1, 2)),
        KernelCase("LayerNormalization", [token, f(768), f(768)], constant=(1, 2)),
        KernelCase("RMSNormalization", [token, f(768)], constant=(1,)),
        KernelCase("LRN", [image], {"size": 5}),
        KernelCase("LpNormalization", [token]),
        KernelCase("MeanVarianceNormalization", [image]),
        KernelCase("Dropout", [token]),
        KernelCase("Attention", [heads, heads, heads]),
        KernelCase("RotaryEmbedding", [heads, f(1, 128, 32), f(1, 128, 32)]),
        KernelCase("SoftmaxCrossEntropyLoss", [f(128, 1000), below(1000, 128)]),
        KernelCase("NegativeLogLikelihoodLoss", [f(128, 1000), below(1000, 128)]),
    ]
    for name, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        w, r = f(1, gates * hidden, 128) / 10, f(1, gates * hidden, hidden) / 10
        found.append(KernelCase(name, [steps, w, r], {"hidden_size": hidden}, (1, 2)))
        lengths = np.array([64, 30, 50, 10], np.int32)
        several = [f(64, 4, 128), w, r, None, lengths]
        found.append(KernelCase(name, several, {"hidden_size": hidden}, (1, 2), label="lengths"))
    return found


def _images() -> list[KernelCase]:
    image, none = f(1, 16, 64, 64), None
    rois = np.sort(_random.uniform(0, 60, (50, 2, 2)), axis=1).reshape(50, 4).astype(np.float32)
    boxes = np.concatenate([_random.uniform(0, 500, (1, 1000, 2))] * 2, 2).astype(np.float32)
    boxes[..., 2:] += 40
    grid = _random.uniform(-1, 1, (1, 64, 64, 2)).astype(np.float32)
    double = np.array([1, 1, 2, 2], np.float32)
    limits = np.array([0.5], np.float32)
    return [
        *(
            KernelCase("Resize", [image, none, double], {"mode": mode}, (2,), label=mode)
            for mode in ("nearest", "linear", "cubic")
        ),
        KernelCase(
            "RoiAlign", [image, rois, below(1, 50)], {"output_height": 7, "output_width": 7, "sampling_ratio": 2}
        ),
        KernelCase(
            "MaxRoiPool", [image, np.concatenate([np.zeros((50, 1), np.float32), rois], 1)], {"pooled_shape": [7, 7]}
        ),
        KernelCase("GridSample", [image, grid]),
        KernelCase("GridSample", [image, grid], {"mode": "cubic"}, label="cubic"),
        KernelCase("AffineGrid", [f(1, 2, 3), ints(1, 3, 128, 128)], constant=(1,)),
        KernelCase("NonMaxSuppression", [boxes, positive(1, 4, 1000), ints(100), limits, limits], constant=(2, 3, 4)),
        KernelCase("Col2Im", [f(1, 64 * 9, 784), ints(28, 28), ints(3, 3)], {"pads": [1, 1, 1, 1]}, (1, 2)),
        KernelCase("Det", [f(100, 8, 8)]),
        KernelCase("DFT", [f(1, 512, 1), none, np.array(1)], {"onesided": 1}, (2,)),
        KernelCase("STFT", [f(1, 16000, 1), np.array(160), positive(400), np.array(400)], constant=(1, 2, 3)),
        *(KernelCase(f"{name}Window", [np.array(400)]) for name in ("Hann", "Hamming", "Blackman")),
        KernelCase("MelWeightMatrix", [np.array(80), np.array(400), np.array(16000), np.float32(0), np.float32(8000)]),
    ]


def _control() -> list[KernelCase]:
    def graph(text: str) -> Any:
        return parser.parse_graph(text)

    body = graph("b (int64 i, bool c, float[128] s) => (bool go, float[128] t) { go = Identity (c) t = Tanh (s) }")
    step = graph("b (float[128] s, float[128] x) => (float[128] t, float[128] y) { t = Add (s, x) y = Tanh (t) }")
    then, other = (graph(f"g () => (float[1] y) {{ y = Constant <value = float[1] {{{n}}}> () }}") for n in (1, 2))
    return [
        KernelCase("Loop", [np.array(100), None, f(128)], {"body": body}),
        KernelCase("Scan", [f(128), f(100, 128)], {"body": step, "num_scan_inputs": 1}, n_outputs=2),
        KernelCase("If", [np.array(True)], {"then_branch": then, "else_branch": other}),
        *(
            KernelCase(name, [f(*_ROWS)] if name.endswith("Like") else [], attributes)
            for name, attributes in (
                ("RandomNormal", {"shape": list(_ROWS)}),
                ("RandomUniform", {"shape": list(_ROWS)}),
                ("RandomNormalLike", {}),
                ("RandomUniformLike", {}),
            )
        ),
        KernelCase("Bernoulli", [_random.uniform(0, 1, _ROWS).astype(np.float32)]),
        KernelCase("Multinomial", [f(8, 1000)], {"sample_size": 20}),
        KernelCase("StringNormalizer", [words(1000)], {"case_change_action": "UPPER"}),
        KernelCase("TfIdfVectorizer", [below(50, 100, 40)], _tfidf()),
        KernelCase("StringConcat", [words(1000), words(1000)]),
        KernelCase("StringSplit", [words(1000)], n_outputs=2),
        KernelCase("RegexFullMatch", [words(1000)], {"pattern": "[a-z ]+"}),
        KernelCase("Cast", [f(1000)], {"to": 8}, label="to string"),
    ]


def _tfidf() -> dict[str, Any]:
    pairs = below(50, 200).tolist()
    return {
        "mode": "TF",
        "min_gram_length": 1,
        "max_gram_length": 2,
        "max_skip_count": 0,
        "ngram_counts": [0, 50],
        "ngram_indexes": list(range(150)),
        "pool_int64s": [*range(50), *pairs],
    }


def _tree(n_trees: int = 50, depth: int = 6) -> dict[str, list[Any]]:
    nodes = 2 ** (depth + 1) - 1
    inner = 2**depth - 1
    ids = np.tile(np.arange(nodes), n_trees)
    leaf = ids >= inner
    return {
        "nodes_treeids": np.repeat(np.arange(n_trees), nodes).tolist(),
        "nodes_nodeids": ids.tolist(),
        "nodes_featureids": below(20, nodes * n_trees).tolist(),
        "nodes_values": f(nodes * n_trees).tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        "nodes_truenodeids": np.where(leaf, 0, 2 * ids + 1).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, 2 * ids + 2).tolist(),
    }


def _classical() -> list[KernelCase]:
    rows = f(1000, 20)
    tree = _tree()
    leaf = np.array(tree["nodes_modes"]) == "LEAF"
    ends = [np.array(tree[name])[leaf].tolist() for name in ("nodes_treeids", "nodes_nodeids")]
    weights = f(int(leaf.sum())).tolist()
    linear = {"coefficients": f(60).tolist(), "intercepts": f(3).tolist()}
    vectors = {"kernel_type": "RBF", "kernel_params": [0.1, 0.0, 3.0], "support_vectors": f(100 * 20).tolist()}
    keys = {"keys_strings": ["alpha beta", "gamma", ""], "values_int64s": [1, 2, 3]}
    cases = [
        ("ArrayFeatureExtractor", [rows, below(20, 10)], {}, 1),
        ("Binarizer", [rows], {}, 1),
        ("FeatureVectorizer", [rows, rows], {"inputdimensions": [20, 20]}, 1),
        ("Imputer", [rows], {"imputed_value_floats": [0.0], "replaced_value_float": 1.0}, 1),
        ("LabelEncoder", [words(1000)], keys, 1),
        ("LinearClassifier", [rows], {**linear, "classlabels_ints": [0, 1, 2], "post_transform": "SOFTMAX"}, 2),
        ("LinearRegressor", [rows], {**linear, "targets": 3}, 1),
        ("Normalizer", [rows], {"norm": "L2"}, 1),
        ("OneHotEncoder", [below(10, 1000)], {"cats_int64s": list(range(10))}, 1),
        ("CategoryMapper", [words(1000)], {"cats_strings": ["gamma", ""], "cats_int64s": [1, 2]}, 1),
        ("Scaler", [rows], {"offset": f(20).tolist(), "scale": f(20).tolist()}, 1),
        ("SVMRegressor", [rows], {**vectors, "coefficients": f(100).tolist(), "rho": [0.1], "n_supports": 100}, 1),
        (
            "SVMClassifier",
            [rows],
            {
                **vectors,
                "coefficients": f(100).tolist(),
                "rho": [0.1],
                "vectors_per_class": [50, 50],
                "classlabels_ints": [0, 1],
            },
            2,
        ),
        (
            "TreeEnsembleRegressor",
            [rows],
            {
                **tree,
                "n_targets": 1,
                "target_treeids": ends[0],
                "target_nodeids": ends[1],
                "target_ids": [0] * len(weights),
                "target_weights": weights,
            },
            1,
        ),
        (
            "TreeEnsembleClassifier",
            [rows],
            {
                **tree,
                "class_treeids": ends[0],
                "class_nodeids": ends[1],
                "class_ids": below(3, len(weights)).tolist(),
                "class_weights": weights,
                "classlabels_int64s": [0, 1, 2],
            },
            2,
        ),
        ("ZipMap", [positive(1000, 3)], {"classlabels_int64s": [0, 1, 2]}, 1),
    ]
    return [KernelCase(name, x, attributes, n_outputs=n, domain=_ML) for name, x, attributes, n in cases]


def _contrib() -> list[KernelCase]:
    token = f(1, 128, 768)
    packed, scales = below(256, 768, 24, 16, dtype=np.uint8), f(768 * 24)
    new = f(1, 1, 768)
    past = f(1, 4, 256, 64)
    lengths = [np.array([256], np.int32), np.array(257, np.int32)]
    experts = [f(128, 256), f(128, 8), f(8, 512, 256), None, f(8, 256, 512)]
    cases: list[tuple[str, list[Any], dict[str, Any], tuple[int, ...], int]] = [
        ("MatMulNBits", [token, packed, scales], {"K": 768, "N": 768, "bits": 4, "block_size": 32}, (1, 2), 1),
        ("Attention", [token, f(768, 2304), f(2304)], {"num_heads": 12}, (1, 2), 1),
        ("MultiHeadAttention", [token, token, token], {"num_heads": 12}, (), 1),
        (
            "GroupQueryAttention",
            [new, f(1, 1, 256), f(1, 1, 256), past, past, *lengths],
            {"num_heads": 12, "kv_num_heads": 4},
            (),
            3,
        ),
        (
            "GroupQueryAttention",
            [new, f(1, 1, 256), f(1, 1, 256), f(1, 4, 512, 64), f(1, 4, 512, 64), *lengths],
            {"num_heads": 12, "kv_num_heads": 4},
            (),
            3,
        ),
        ("RotaryEmbedding", [token, np.arange(128)[None], f(128, 32), f(128, 32)], {}, (2, 3), 1),
        ("SkipLayerNormalization", [token, token, f(768), f(768)], {}, (2, 3), 1),
        ("SkipSimplifiedLayerNormalization", [token, token, f(768)], {}, (2,), 1),
        (
            "EmbedLayerNormalization",
            [below(30000, 1, 128, dtype=np.int32), None, f(30000, 768), f(512, 768), None, f(768), f(768)],
            {},
            (2, 3, 5, 6),
            2,
        ),
        *(
            (name, [token, *more], {}, (), 1)
            for name, more in (("Gelu", []), ("FastGelu", []), ("BiasGelu", [f(768)]), ("QuickGelu", []))
        ),
        ("FusedMatMul", [token, f(768, 768)], {"alpha": 0.5}, (1,), 1),
        ("FusedGemm", [f(*_ROWS), f(768, 768), f(768)], {"activation": "Relu"}, (1, 2), 1),
        ("FusedConv", [f(*_MAPS), f(64, 64, 3, 3)], {"activation": "Relu", "pads": [1, 1, 1, 1]}, (1,), 1),
        (
            "DynamicQuantizeMatMul",
            [token, below(255, 768, 768, dtype=np.uint8), np.float32(0.02), np.uint8(120)],
            {},
            (1, 2, 3),
            1,
        ),
        (
            "QLinearAdd",
            [below(255, *_MAPS, dtype=np.uint8), np.float32(0.1), np.uint8(3)] * 2 + [np.float32(0.2), np.uint8(5)],
            {},
            (1, 2, 4, 5, 6, 7),
            1,
        ),
        (
            "QLinearSigmoid",
            [below(255, *_MAPS, dtype=np.uint8), np.float32(0.1), np.uint8(3), np.float32(0.01), np.uint8(0)],
            {},
            (1, 2, 3, 4),
            1,
        ),
        ("MoE", experts, {"k": 2}, (2, 4), 1),
        (
            "CropAndResize",
            [
                f(1, 16, 64, 64),
                _random.uniform(0, 1, (20, 4)).astype(np.float32),
                below(1, 20, dtype=np.int32),
                np.array([14, 14], np.int32),
            ],
            {},
            (3,),
            1,
        ),
        ("NGramRepeatBlock", [below(50, 4, 200), f(4, 1000)], {"ngram_size": 3}, (), 1),
        ("Tokenizer", [words(1000)], {"mark": 0, "mincharnum": 1, "pad_value": "#", "separators": [" "]}, (), 1),
    ]
    return [KernelCase(name, x, attributes, constant, n, "com.microsoft") for name, x, attributes, constant, n in cases]


def groups() -> dict[str, list[KernelCase]]:
    """Cases by what they are about."""
    return {
        "element-wise": _elementwise(),
        "movement": _movement(),
        "reductions": _reductions(),
        "dense": _dense(),
        "images": _images(),
        "control flow and text": _control(),
        "classical": _classical(),
        "onnxruntime's": _contrib(),
    }


def model_of(case: KernelCase) -> bytes:
    """A model of this one node."""
    from onnx import TensorProto, ValueInfoProto, numpy_helper

    names = ["" if value is None else f"x{position}" for position, value in enumerate(case.inputs)]
    outputs = [f"y{position}" for position in range(case.n_outputs)]
    node = helper.make_node(case.op_type, names, outputs, "node", domain=case.domain, **case.attributes)
    values, weights = [], []
    for position, (name, value) in enumerate(zip(names, case.inputs, strict=True)):
        if name and position in case.constant:
            weights.append(numpy_helper.from_array(np.asarray(value), name))
        elif name:
            array = np.asarray(value)
            element = TensorProto.STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)
            values.append(helper.make_tensor_value_info(name, element, array.shape))
    graph = helper.make_graph([node], "g", values, [ValueInfoProto(name=name) for name in outputs], weights)
    # onnxruntime has the kernels of some operators at 21 alone
    newest = 24 if case.op_type in ("Attention", "RotaryEmbedding", "RMSNormalization") and not case.domain else 21
    opsets = [helper.make_opsetid("", 15 if case.domain == _ML else newest)]
    if case.domain:
        opsets.append(helper.make_opsetid(case.domain, 3 if case.domain == _ML else 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def feeds_of(case: KernelCase) -> dict[str, Any]:
    return {
        f"x{position}": np.asarray(value)
        for position, value in enumerate(case.inputs)
        if value is not None and position not in case.constant
    }
