"""The graph beneath everything: reading, checking, inferring, rewriting and writing ONNX models."""
