"""Which family holds an operator: written by ``python -m distort.kernels.ops``, and checked by a test."""

from __future__ import annotations

# fmt: off
#: family -> domain -> operators
FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    "activations": {
        "": (
            "Celu",
            "Elu",
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "LeakyRelu",
            "Mish",
            "PRelu",
            "Relu",
            "Selu",
            "Shrink",
            "Sigmoid",
            "Softplus",
            "Softsign",
            "Swish",
            "ThresholdedRelu",
        ),
    },
    "arithmetic": {
        "": (
            "Add",
            "Div",
            "Max",
            "Mean",
            "Min",
            "Mod",
            "Mul",
            "Pow",
            "Sub",
            "Sum",
        ),
    },
    "attention": {
        "": (
            "Attention",
            "RotaryEmbedding",
        ),
    },
    "batch_normalization": {
        "": (
            "BatchNormalization",
            "InstanceNormalization",
            "LRN",
        ),
    },
    "cast": {
        "": (
            "BitCast",
            "Cast",
            "CastLike",
        ),
    },
    "constants": {
        "": (
            "Constant",
            "ConstantOfShape",
            "EyeLike",
            "Identity",
            "Range",
        ),
    },
    "contrib_attention": {
        "com.microsoft": (
            "Attention",
            "DecoderMaskedMultiHeadAttention",
            "MultiHeadAttention",
            "QAttention",
        ),
    },
    "contrib_basics": {
        "com.microsoft": (
            "BifurcationDetector",
            "CDist",
            "DynamicTimeWarping",
            "ExpandDims",
            "GatherND",
            "GridSample",
            "Inverse",
            "MurmurHash3",
            "NGramRepeatBlock",
            "Pad",
            "Range",
            "SampleOp",
            "Trilu",
            "UnfoldTensor",
            "Unique",
        ),
    },
    "contrib_embedding": {
        "com.microsoft": (
            "EmbedLayerNormalization",
            "QEmbedLayerNormalization",
        ),
    },
    "contrib_experts": {
        "com.microsoft": (
            "MoE",
            "MoEGroupRouter",
            "QMoE",
        ),
    },
    "contrib_gated": {
        "": (
            "CausalConvWithState",
            "LinearAttention",
        ),
        "com.microsoft": (
            "BranchwiseRMSNorm",
            "CausalConvWithState",
            "EngramGate",
            "GatedAdd",
            "GatedRMSNorm",
            "HyperConnectionPostMix",
            "HyperConnectionPreMix",
            "LinearAttention",
            "LinearAttentionGate",
            "ScaledSiLU",
        ),
    },
    "contrib_generation": {
        "com.microsoft": (
            "BeamSearch",
            "GreedySearch",
        ),
    },
    "contrib_grouped_query": {
        "com.microsoft": (
            "GroupQueryAttention",
            "SparseAttention",
        ),
    },
    "contrib_images": {
        "com.microsoft": (
            "ConvTransposeWithDynamicPads",
            "CropAndResize",
            "FusedConv",
        ),
    },
    "contrib_matmul": {
        "com.microsoft": (
            "BiasGelu",
            "FastGelu",
            "FusedGemm",
            "FusedMatMul",
            "Gelu",
            "MatMulNBits",
            "QuickGelu",
            "TransposeMatMul",
        ),
    },
    "contrib_qlinear": {
        "com.microsoft": (
            "NhwcMaxPool",
            "QLinearAdd",
            "QLinearAveragePool",
            "QLinearConcat",
            "QLinearConv",
            "QLinearGlobalAveragePool",
            "QLinearLeakyRelu",
            "QLinearMul",
            "QLinearReduceMean",
            "QLinearSigmoid",
            "QLinearSoftmax",
            "QLinearWhere",
        ),
    },
    "contrib_quantized_matmul": {
        "com.microsoft": (
            "DequantizeLinear",
            "DynamicQuantizeMatMul",
            "GatherBlockQuantized",
            "MatMulBnb4",
            "MatMulInteger16",
            "MatMulIntegerToFloat",
            "QGemm",
            "QuantizeLinear",
        ),
    },
    "contrib_recurrent": {
        "com.microsoft": (
            "DynamicQuantizeLSTM",
        ),
    },
    "contrib_rotary": {
        "com.microsoft": (
            "MRotaryEmbedding",
            "RotaryEmbedding",
        ),
    },
    "contrib_sparse": {
        "com.microsoft": (
            "SparseToDenseMatMul",
        ),
    },
    "contrib_text": {
        "com.microsoft": (
            "Tokenizer",
        ),
    },
    "control_flow": {
        "": (
            "If",
            "Loop",
            "Scan",
            "SequenceMap",
        ),
    },
    "convolution": {
        "": (
            "Conv",
            "ConvInteger",
            "ConvTranspose",
            "QLinearConv",
        ),
    },
    "gather": {
        "": (
            "Compress",
            "Gather",
            "GatherElements",
            "GatherND",
            "NonZero",
            "OneHot",
            "ReverseSequence",
            "Scatter",
            "ScatterElements",
            "ScatterND",
            "TensorScatter",
            "TopK",
            "Unique",
        ),
    },
    "image_decoder": {
        "": (
            "ImageDecoder",
        ),
    },
    "joining": {
        "": (
            "Concat",
            "Pad",
            "Slice",
            "Split",
        ),
    },
    "linear_algebra": {
        "": (
            "Det",
            "Einsum",
        ),
    },
    "logic": {
        "": (
            "And",
            "BitShift",
            "BitwiseAnd",
            "BitwiseNot",
            "BitwiseOr",
            "BitwiseXor",
            "Equal",
            "Greater",
            "GreaterOrEqual",
            "IsInf",
            "IsNaN",
            "Less",
            "LessOrEqual",
            "Not",
            "Or",
            "Where",
            "Xor",
        ),
    },
    "losses": {
        "": (
            "NegativeLogLikelihoodLoss",
            "SoftmaxCrossEntropyLoss",
        ),
    },
    "mathematics": {
        "": (
            "Abs",
            "Acos",
            "Acosh",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
            "Ceil",
            "Clip",
            "Cos",
            "Cosh",
            "Erf",
            "Exp",
            "Floor",
            "Log",
            "Neg",
            "Reciprocal",
            "Round",
            "Sign",
            "Sin",
            "Sinh",
            "Sqrt",
            "Tan",
            "Tanh",
        ),
    },
    "matmul": {
        "": (
            "Gemm",
            "MatMul",
        ),
    },
    "ml": {
        "ai.onnx.ml": (
            "ArrayFeatureExtractor",
            "Binarizer",
            "FeatureVectorizer",
            "Imputer",
            "Normalizer",
            "Scaler",
        ),
    },
    "ml_linear": {
        "ai.onnx.ml": (
            "LinearClassifier",
            "LinearRegressor",
        ),
    },
    "ml_svm": {
        "ai.onnx.ml": (
            "SVMClassifier",
            "SVMRegressor",
        ),
    },
    "ml_text": {
        "ai.onnx.ml": (
            "CastMap",
            "CategoryMapper",
            "DictVectorizer",
            "LabelEncoder",
            "OneHotEncoder",
            "ZipMap",
        ),
    },
    "ml_tree_ensemble": {
        "ai.onnx.ml": (
            "TreeEnsemble",
        ),
    },
    "ml_trees": {
        "ai.onnx.ml": (
            "TreeEnsembleClassifier",
            "TreeEnsembleRegressor",
        ),
    },
    "normalization": {
        "": (
            "GroupNormalization",
            "LayerNormalization",
            "RMSNormalization",
            "SimplifiedLayerNormalization",
        ),
        "com.microsoft": (
            "SimplifiedLayerNormalization",
            "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization",
        ),
    },
    "pooling": {
        "": (
            "AveragePool",
            "GlobalAveragePool",
            "GlobalLpPool",
            "GlobalMaxPool",
            "LpPool",
            "MaxPool",
            "MaxRoiPool",
            "MaxUnpool",
        ),
    },
    "quantization": {
        "": (
            "DequantizeLinear",
            "DynamicQuantizeLinear",
            "MatMulInteger",
            "QLinearMatMul",
            "QuantizeLinear",
        ),
    },
    "randomness": {
        "": (
            "Bernoulli",
            "Dropout",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ),
    },
    "recurrent": {
        "": (
            "GRU",
            "LSTM",
            "RNN",
        ),
    },
    "reduction": {
        "": (
            "ArgMax",
            "ArgMin",
            "CumProd",
            "CumSum",
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ),
    },
    "resize": {
        "": (
            "Resize",
            "Upsample",
        ),
    },
    "sampling": {
        "": (
            "AffineGrid",
            "DeformConv",
            "GridSample",
            "RoiAlign",
        ),
    },
    "sequences": {
        "": (
            "ConcatFromSequence",
            "Optional",
            "OptionalGetElement",
            "OptionalHasElement",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SplitToSequence",
        ),
    },
    "shape": {
        "": (
            "Expand",
            "Flatten",
            "Reshape",
            "Shape",
            "Size",
            "Squeeze",
            "Tile",
            "Transpose",
            "Trilu",
            "Unsqueeze",
        ),
    },
    "softmax": {
        "": (
            "Hardmax",
            "LogSoftmax",
            "Softmax",
        ),
    },
    "spectra": {
        "": (
            "BlackmanWindow",
            "DFT",
            "HammingWindow",
            "HannWindow",
            "MelWeightMatrix",
            "STFT",
        ),
    },
    "standardization": {
        "": (
            "LpNormalization",
            "MeanVarianceNormalization",
        ),
    },
    "strings": {
        "": (
            "RegexFullMatch",
            "StringConcat",
            "StringNormalizer",
            "StringSplit",
        ),
    },
    "tfidf": {
        "": (
            "TfIdfVectorizer",
        ),
    },
    "training": {
        "ai.onnx.preview.training": (
            "Adagrad",
            "Adam",
            "Momentum",
        ),
    },
    "vision": {
        "": (
            "CenterCropPad",
            "Col2Im",
            "DepthToSpace",
            "NonMaxSuppression",
            "SpaceToDepth",
        ),
    },
}

MODULE_OF: dict[tuple[str, str], str] = {
    (domain, op_type): family
    for family, domains in FAMILIES.items()
    for domain, op_types in domains.items()
    for op_type in op_types
}
