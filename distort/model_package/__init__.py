"""Model packages: folders with several models, each in variants for different execution providers.

``ModelPackage`` writes them, ``ModelPackageContext`` reads them and picks the variant for a session. Names,
files and JSON are those of onnxruntime 1.32: a package that one writes is read by the other.

On purpose it is otherwise than onnxruntime where that loses something: a call or a commit that raises leaves what was
there before, ``additional_metadata`` of a variant is written, and ``prune`` never removes the package's own folder.
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
