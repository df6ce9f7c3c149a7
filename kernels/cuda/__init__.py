"""Stages on an NVIDIA GPU. Nothing here imports CuPy, or loads a library of CUDA, before it is needed."""
