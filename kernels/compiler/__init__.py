"""The compiler of CPU stages: from a graph with the shapes of a run to native code over an arena.

``lower`` turns nodes into tensor operations, ``fuse`` joins them, ``arena`` places what they make, ``codegen`` prints
kernels as LLVM IR, ``library`` compiles and caches them, ``team`` runs them on threads, ``program`` ties it together.
"""
