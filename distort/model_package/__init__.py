"""Model packages: folders with several models, each in variants for different execution providers.

``ModelPackage`` writes them, ``ModelPackageContext`` reads them and picks the variant for a session. Names,
files and JSON are those of onnxruntime 1.32: a package that one writes is read by the other.
"""

from __future__ import annotations

from distort.enums import ModelPackageWriteMode
from distort.model_package.context import ModelPackageComponentContext, ModelPackageContext, ModelPackageOptions
from distort.model_package.package import ModelPackage

__all__ = [
    "ModelPackage",
    "ModelPackageComponentContext",
    "ModelPackageContext",
    "ModelPackageOptions",
    "ModelPackageWriteMode",
]
