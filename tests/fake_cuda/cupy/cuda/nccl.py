"""cupy.cuda.nccl. As the real one it is imported by whoever wants it, and warns where the library is not installed.

FAKE_NCCL=0: it is not.
"""

from __future__ import annotations

import os
import warnings

available = os.environ.get("FAKE_NCCL", "1") != "0"

if available:
    from .._nccl import (
        NCCL_FLOAT16,
        NCCL_FLOAT32,
        NCCL_FLOAT64,
        NCCL_INT8,
        NCCL_INT32,
        NCCL_INT64,
        NCCL_UINT8,
        NcclCommunicator,
        NcclError,
        get_build_version,
        get_unique_id,
        get_version,
    )

    __all__ = [
        "NCCL_FLOAT16",
        "NCCL_FLOAT32",
        "NCCL_FLOAT64",
        "NCCL_INT8",
        "NCCL_INT32",
        "NCCL_INT64",
        "NCCL_UINT8",
        "NcclCommunicator",
        "NcclError",
        "available",
        "get_build_version",
        "get_unique_id",
        "get_version",
    ]
else:
    warnings.warn("\nnccl library could not be loaded.\n\nReason: ImportError (libnccl.so.2)\n", stacklevel=1)
