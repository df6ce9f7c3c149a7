"""One stage on one device: kernels, their registry, and the programs that call them."""
