"""One stage on one NVIDIA GPU."""
