"""Facts about the installation, where onnxruntime's package has them."""

from __future__ import annotations

import distort


def check_distro_info() -> None:
    """Nothing to check: there is no native library that needs a distribution."""


def get_package_name_and_version_info() -> tuple[str, str, str]:
    """Name, version, and CUDA version (empty: none is built in)."""
    return distort.package_name, distort.__version__, distort.cuda_version


def check_training_module() -> tuple[bool, str, str, str]:
    """Whether there is a training module (there is none), and the package's name, version and CUDA version."""
    return False, *get_package_name_and_version_info()
