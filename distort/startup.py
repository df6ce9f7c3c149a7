"""What nearly every session needs, imported with the package: whoever imports it is about to make one.

onnxruntime too loads what it has at its import. What only some models need comes with them.
"""

from __future__ import annotations

import distort.kernels.compiler.lower.convolution
import distort.kernels.compiler.lower.elementwise
import distort.kernels.compiler.lower.gathering
import distort.kernels.compiler.lower.matmul
import distort.kernels.compiler.lower.movement
import distort.kernels.compiler.lower.reductions
import distort.kernels.compiler.lower.rows
import distort.kernels.compiler.lower.views
import distort.kernels.compiler.program
import distort.kernels.ops.activations
import distort.kernels.ops.arithmetic
import distort.kernels.ops.cast
import distort.kernels.ops.constants
import distort.kernels.ops.convolution
import distort.kernels.ops.elementwise
import distort.kernels.ops.gather
import distort.kernels.ops.index
import distort.kernels.ops.joining
import distort.kernels.ops.mathematics
import distort.kernels.ops.matmul
import distort.kernels.ops.reduction
import distort.kernels.ops.shape
import distort.native.session
import distort.options
import distort.session  # noqa: F401
