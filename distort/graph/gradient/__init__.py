"""ai.onnx.preview.training Gradient: reverse-mode differentiation of a graph into nodes of the standard.

A Gradient node becomes the nodes that compute it, so that it runs, moves between devices and is differentiated once
more like anything else.
"""

from __future__ import annotations

from distort.graph.gradient.expansion import expand_gradients

__all__ = ["expand_gradients"]
