"""The package's name and version, where onnxruntime's package has them."""

from __future__ import annotations

from distort import __version__ as __version__
from distort import package_name as package_name
