"""What may be in ``manifest.json`` and ``component.json``, and the errors for what may not."""

from __future__ import annotations

import re
from typing import Any

from distort.model_package import jsontext
from distort.model_package.paths import is_asset_uri

MANIFEST, COMPONENT, SHARED_ASSETS = "manifest.json", "component.json", "shared_assets"
PORTABLE, INSTALLED = LAYOUTS = ("portable", "installed")
SUPPORTED_MAJOR, KNOWN_MINOR = 1, 0
#: of a manifest, and as entries of get_info
TEXTS = ("package_name", "package_version", "description")

_MANIFEST_FIELDS = {"schema_version", *TEXTS, "layout", "components", "shared_assets", "additional_metadata"}
_COMPONENT_FIELDS = {"component_name", "variants", "additional_metadata"}
_VARIANT_TEXTS = ("ep", "device", "compatibility_string")
_VARIANT_FIELDS = {*_VARIANT_TEXTS, "variant_directory", "executor_info", "additional_metadata"}
_VERSION = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,19}))?", re.ASCII)
_MAX_INT = 2**63 - 1


def parse(text: str, what: str) -> Any:
    """JSON of a caller. Raises ValueError."""
    try:
        return jsontext.parse(text)
    except jsontext.InvalidJson as error:
        raise ValueError(f"{what}: JSON parse error.") from error


def read(
    path: str, failure: str = "Failed to parse JSON at '{}'.", missing: str = "Cannot open file: '{}'"
) -> tuple[Any, str]:
    """A file's JSON, and its text. Raises ValueError, and OSError where it can't be read."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except IsADirectoryError as error:
        raise ValueError(failure.format(path)) from error
    except OSError as error:
        raise OSError(f"{missing.format(path)}: {error.strerror}") from error
    try:
        return jsontext.parse(data), data.decode("utf-8")
    except jsontext.InvalidJson as error:
        raise ValueError(failure.format(path)) from error


def as_object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected a JSON object.")
    return value


def _only(fields: set[str], value: dict[str, Any], what: str) -> None:
    for name in value:
        if name not in fields:
            raise ValueError(f"{what}: unknown field '{name}'.")


def _texts(names: tuple[str, ...], value: dict[str, Any], what: str) -> None:
    for name in names:
        if name in value and not isinstance(value[name], str):
            raise ValueError(f"{what}: '{name}' must be a string.")


def schema_version(manifest: dict[str, Any]) -> tuple[int, int]:
    """(major, minor). Raises ValueError for what is no version, and for a major that is not supported."""
    if "schema_version" not in manifest:
        raise ValueError("manifest: missing required 'schema_version'.")
    value = manifest["schema_version"]
    major, minor = -1, 0
    if isinstance(value, int) and not isinstance(value, bool):
        major = value if value <= _MAX_INT else value - 2**64
    else:
        found = _VERSION.fullmatch(value) if isinstance(value, str) else None
        if found is not None:
            major, minor = int(found[1]), int(found[2] or 0)
        if found is None or max(major, minor) > _MAX_INT:
            raise ValueError("manifest: 'schema_version' must be a \"<major>.<minor>\" string.")
    if major != SUPPORTED_MAJOR:
        text = f"manifest: schema_version major {major} is not supported (this build supports major {SUPPORTED_MAJOR})."
        raise ValueError(text)
    return major, minor


def check_manifest(value: Any, strict: bool) -> tuple[dict[str, Any], tuple[int, int], bool]:
    """The manifest, its version, and whether unknown fields are errors in the rest of it. Raises ValueError.

    What is said of the package is checked after its components, by ``check_description``.
    """
    manifest = as_object(value, "manifest")
    version = schema_version(manifest)
    strict = strict and version[1] <= KNOWN_MINOR  # a newer minor may add fields
    if strict:
        _only(_MANIFEST_FIELDS, manifest, "manifest")
    if "components" not in manifest:
        raise ValueError("manifest: missing required 'components' object.")
    if not isinstance(manifest["components"], dict):
        raise ValueError("manifest: 'components' must be an object.")
    return manifest, version, strict


def check_description(manifest: dict[str, Any]) -> None:
    _texts((*TEXTS, "layout"), manifest, "manifest")
    if manifest.get("layout", PORTABLE) not in LAYOUTS:
        raise ValueError("manifest: 'layout' must be 'portable' or 'installed'.")


def check_shared_assets(manifest: dict[str, Any]) -> dict[str, str]:
    """URI -> path. Raises ValueError."""
    value = manifest.get("shared_assets", {})
    if not isinstance(value, dict):
        raise ValueError("manifest: shared_assets must be an object.")
    for uri, path in value.items():
        if not is_asset_uri(uri):
            raise ValueError(f"manifest: shared_assets key '{uri}' is not a valid sha256:<hex> URI.")
        if not isinstance(path, str):
            raise ValueError(f"manifest: shared_assets['{uri}'] must be a string path.")
    return value


def check_component(name: str, value: Any, strict: bool) -> dict[str, Any]:
    """The component, its variants unchecked. Raises ValueError."""
    what = f"component '{name}'"
    body = as_object(value, what)
    if strict:
        _only(_COMPONENT_FIELDS, body, what)
    if not isinstance(body.get("component_name", ""), str):
        raise ValueError(f"{what}: component_name must be a string.")
    if "variants" not in body:
        raise ValueError(f"{what}: missing required 'variants' object.")
    if not isinstance(body["variants"], dict):
        raise ValueError(f"{what}: 'variants' must be an object.")
    return body


def check_variant(name: str, value: Any, strict: bool) -> dict[str, Any]:
    """The variant, its paths unchecked. Raises ValueError."""
    what = f"variant '{name}'"
    body = as_object(value, what)
    if strict:
        _only(_VARIANT_FIELDS, body, what)
    _texts(_VARIANT_TEXTS, body, what)
    infos = body.get("executor_info", {})
    if not isinstance(infos, dict):
        raise ValueError(f"{what}: executor_info must be an object.")
    for namespace, info in infos.items():
        if not isinstance(info, (str, dict)):
            raise ValueError(f"{what}: executor_info['{namespace}'] must be a string (path) or object (inline).")
    if not isinstance(body.get("variant_directory", ""), str):
        raise ValueError(f"{what}: variant_directory must be a string.")
    return body
