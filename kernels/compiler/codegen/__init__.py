"""Kernels as LLVM IR: each family is a function from a key's parameters and a target to text."""
