"""From nodes to tensor operations, by families of operators: which module lowers which.

Modules are imported when a model has one of their operators. A test compares the table with what they register.
"""

from __future__ import annotations

#: (domain, module) -> operators
OPERATORS: dict[tuple[str, str], str] = {
    ("", "attention"): "Attention",
    ("", "batch_normalization"): "BatchNormalization",
    ("", "control_flow"): "If Loop Scan",
    ("", "convolution"): "Conv",
    ("", "einsum"): "Einsum",
    ("", "elementwise"): (
        "Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast "
        "CastLike Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid "
        "HardSwish IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow "
        "Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh "
        "ThresholdedRelu Where Xor"
    ),
    ("", "expecting"): "Compress NonZero",
    ("", "gathering"): "Gather GatherElements GatherND ReverseSequence",
    ("", "losses"): "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
    ("", "making"): "ConstantOfShape EyeLike OneHot Range Trilu",
    ("", "matmul"): "Gemm MatMul",
    ("", "movement"): "Concat DepthToSpace SpaceToDepth Tile",
    ("", "padding"): "CenterCropPad Pad",
    ("", "pooling"): "AveragePool GlobalAveragePool GlobalMaxPool MaxPool MaxUnpool",
    ("", "quantization"): "DequantizeLinear DynamicQuantizeLinear QuantizeLinear",
    ("", "quantized"): "ConvInteger MatMulInteger",
    ("", "quantized_linear"): "QLinearConv QLinearMatMul",
    ("", "recurrent"): "GRU LSTM RNN",
    ("", "reductions"): (
        "ArgMax ArgMin Hardmax ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
        "ReduceProd ReduceSum ReduceSumSquare"
    ),
    ("", "resizing"): "Resize Upsample",
    ("", "rotary"): "RotaryEmbedding",
    ("", "rows"): (
        "GroupNormalization InstanceNormalization LayerNormalization LogSoftmax LpNormalization "
        "MeanVarianceNormalization RMSNormalization SimplifiedLayerNormalization Softmax"
    ),
    ("", "sampling"): "AffineGrid Col2Im DeformConv GridSample MaxRoiPool RoiAlign",
    ("", "scattering"): "Scatter ScatterElements ScatterND",
    ("", "selection"): "CumProd CumSum TopK",
    ("", "spectra"): "STFT",
    ("", "suppression"): "NonMaxSuppression",
    ("", "transposed_convolution"): "ConvTranspose",
    ("", "views"): "Expand Flatten Identity Reshape Shape Size Slice Split Squeeze Transpose Unsqueeze",
    ("com.microsoft", "attention"): "Attention MultiHeadAttention QAttention",
    ("com.microsoft", "convolution"): "FusedConv",
    ("com.microsoft", "elementwise"): "BiasGelu FastGelu Gelu QuickGelu",
    ("com.microsoft", "embedding"): "EmbedLayerNormalization",
    ("com.microsoft", "gathering"): "GatherND",
    ("com.microsoft", "grouped_query"): "GroupQueryAttention",
    ("com.microsoft", "making"): "Trilu",
    ("com.microsoft", "matmul"): "FusedGemm FusedMatMul TransposeMatMul",
    ("com.microsoft", "nbits"): "MatMulNBits",
    ("com.microsoft", "quantization"): "DequantizeLinear QuantizeLinear",
    ("com.microsoft", "quantized_linear"): "DynamicQuantizeMatMul MatMulIntegerToFloat QGemm QLinearConv",
    ("com.microsoft", "quantized_maps"): (
        "QLinearAdd QLinearAveragePool QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul "
        "QLinearSigmoid QLinearWhere"
    ),
    ("com.microsoft", "quantized_recurrent"): "DynamicQuantizeLSTM",
    ("com.microsoft", "rotary"): "RotaryEmbedding",
    ("com.microsoft", "rows"): ("SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization"),
    ("com.microsoft", "sampling"): "CropAndResize GridSample",
    ("ai.onnx.ml", "features"): (
        "ArrayFeatureExtractor Binarizer FeatureVectorizer Imputer LabelEncoder OneHotEncoder"
    ),
    ("ai.onnx.ml", "linear"): "LinearClassifier LinearRegressor",
    ("ai.onnx.ml", "trees"): "Normalizer Scaler TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor",
    ("ai.onnx.ml", "vector_machines"): "SVMClassifier SVMRegressor",
}
#: (domain, operator) -> module
HOME = {
    (domain, operator): module for (domain, module), operators in OPERATORS.items() for operator in operators.split()
}
