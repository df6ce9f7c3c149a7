"""One stage on one NVIDIA GPU: see docs/design/0010-gpu.md. Nothing here imports CuPy before a GPU is asked for."""
