"""The objects of onnxruntime's native module, by its names and with its signatures.

``distort.capi.onnxruntime_pybind11_state`` exports them. The classes that users meet first (``distort.OrtValue``,
``distort.OrtDevice``, ``distort.SparseTensor``, ``distort.IOBinding``, ``distort.InferenceSession``) hold one of these.
"""
