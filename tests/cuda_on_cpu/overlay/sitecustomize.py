"""On the path of each process (PYTHONPATH), it puts two modules of CuPy's over the installed ones.

``cupy_backends.cuda.api.runtime`` has CUDA's runtime linked into it, and ``cupy.cuda.thrust`` machine code for GPUs.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

_HERE = Path(__file__).resolve().parent
_FILES = {
    "cupy.cuda.thrust": _HERE / "thrust.py",
    "cupy_backends.cuda.api.runtime": _HERE / f"runtime{sysconfig.get_config_var('EXT_SUFFIX')}",
}


class _Over:
    """Finds these modules before the path does."""

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = _FILES.get(name)
        return None if file is None else spec_from_file_location(name, file)


sys.meta_path.insert(0, _Over)
