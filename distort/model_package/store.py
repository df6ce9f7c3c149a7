"""A package as it is read: its manifest, components, variants and assets, with the paths that they mean."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from distort.model_package import jsontext, manifest
from distort.model_package.manifest import COMPONENT, INSTALLED, MANIFEST, PORTABLE, SHARED_ASSETS, TEXTS
from distort.model_package.paths import (
    Resolver,
    asset_folder_name,
    check_portable,
    is_asset_uri,
    split_asset_uri,
    weakly_canonical,
)


@dataclass(frozen=True, slots=True)
class Variant:
    """One build of a component. ``body`` is its JSON; the rest is what its paths mean."""

    body: dict[str, Any]
    directory: str | None  # None: not declared, and the default one is not there
    executor_info: dict[str, str]  # namespace -> JSON text; empty where a file is not there yet


@dataclass(slots=True)
class Component:
    """What the manifest names: inline, or with JSON of its own in ``file``."""

    body: dict[str, Any]
    directory: str  # that its variants' folders are relative to
    path: str | None = None  # as the manifest has it; None: inline
    file: str = ""  # of an external component, whether it is there or not
    variants: dict[str, Variant] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """The arguments of ``open``."""

    allow_external_paths: bool = False
    follow_symlinks: bool = True
    strict_unknown_fields: bool = True


class Store:
    """The parsed package. Raises ValueError, FileNotFoundError and OSError, with onnxruntime's words."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules = rules or Rules()
        self.root = ""
        self.strict = rules.strict_unknown_fields
        self.version = (0, 0)
        #: "components" is empty here: they are in ``components``
        self.manifest: dict[str, Any] = {"schema_version": "1.0", "layout": PORTABLE, "components": {}}
        self.components: dict[str, Component] = {}
        self.overrides: dict[str, str] = {}  # asset URI -> folder, as the manifest's shared_assets say
        self.discovered: dict[str, str] = {}  # asset URI -> folder below shared_assets
        self.pending: dict[str, str] = {}  # asset URI -> folder to copy from at the next commit

    @classmethod
    def open(cls, root: str, rules: Rules | None = None) -> Store:
        if not os.path.isdir(root):
            raise OSError(f"package_root '{root}' is not a directory.")
        store = cls(rules)
        store.root = os.path.realpath(root)
        value, _ = manifest.read(os.path.join(store.root, MANIFEST))
        checked, store.version, store.strict = manifest.check_manifest(value, store.strict)
        components = checked["components"]
        store.manifest = {**checked, "components": {}}
        for name, component in components.items():
            if isinstance(component, str):
                store.components[name] = store.external(name, component, must_exist=True)
            elif isinstance(component, dict):
                store.components[name] = store.inline(name, component, must_exist=True)
            else:
                raise ValueError(f"component '{name}': value must be a string (path) or object (inline).")
        manifest.check_description(checked)
        store.overrides = store.resolve_overrides()
        store.discover()
        return store

    # -- paths

    @property
    def layout(self) -> str:
        """Where paths may lead. Portable is also what a manifest says that is not checked yet."""
        return INSTALLED if self.manifest.get("layout") == INSTALLED else PORTABLE

    @property
    def resolver(self) -> Resolver:
        anywhere = self.rules.allow_external_paths or self.layout != PORTABLE
        return Resolver(self.root, anywhere, self.rules.follow_symlinks)

    def resolve(self, text: str, base: str | None, must_exist: bool) -> str:
        """What a path or a reference to a shared asset means."""
        asset = split_asset_uri(text)
        if asset is None:
            return self.resolver.resolve(text, self.root if base is None else base, must_exist)
        uri, below = asset
        folder = self.asset(uri)
        # a path in an asset stays in it, whatever the layout
        confined = Resolver(weakly_canonical(folder), False, self.rules.follow_symlinks)
        return confined.resolve(below or ".", folder, must_exist)

    # -- components

    def external(self, name: str, path: str, must_exist: bool) -> Component:
        """The component in a file. Without ``must_exist`` it is an empty one where there is no file yet."""
        found = self.resolver.resolve(path, self.root, must_exist)
        if os.path.isdir(found):
            found = os.path.join(found, COMPONENT)
            if must_exist and not os.path.exists(found):
                raise FileNotFoundError(f"component '{name}': directory has no '{COMPONENT}'.")
        body: Any = {"variants": {}}
        if os.path.exists(found):
            failure = "Failed to parse JSON at '{}'."
            if not must_exist:
                failure = f"component '{name}': JSON parse error.".replace("{", "{{").replace("}", "}}")
            body, _ = manifest.read(found, failure)
        component = self._component(name, body, os.path.dirname(found), must_exist)
        component.path, component.file = path, found
        return component

    def inline(self, name: str, body: Any, must_exist: bool) -> Component:
        return self._component(name, body, self.root, must_exist)

    def _component(self, name: str, body: Any, directory: str, must_exist: bool) -> Component:
        component = Component(manifest.check_component(name, body, self.strict), directory)
        for key, value in component.body["variants"].items():
            component.variants[key] = self.variant(key, value, directory, must_exist)
        return component

    def variant(self, name: str, value: Any, base: str, must_exist: bool) -> Variant:
        """A variant of a component in the folder ``base``. ``must_exist``: the files of executor_info do."""
        body = manifest.check_variant(name, value, self.strict)
        declared = body.get("variant_directory")
        found: str | None = self.resolver.resolve(name if declared is None else declared, base, declared is not None)
        if found is None or not os.path.exists(found):
            found = None
        infos = {}
        for namespace, info in body.get("executor_info", {}).items():
            if isinstance(info, dict):
                infos[namespace] = jsontext.compact(info)
            else:
                infos[namespace] = self._executor_file(name, namespace, info, found, must_exist)
        return Variant(body, found, infos)

    def _executor_file(self, name: str, namespace: str, path: str, directory: str | None, must_exist: bool) -> str:
        """The JSON text in a file, as it stands there."""
        if directory is None:
            if not must_exist:
                return ""
            raise FileNotFoundError(
                f"variant '{name}': executor_info['{namespace}'] points at an external file but the variant has no "
                "resolved variant_directory to anchor it."
            )
        try:
            found = self.resolver.resolve(path, directory, True)
        except (ValueError, FileNotFoundError):
            if must_exist:
                raise
            return ""
        return manifest.read(
            found, "Failed to parse executor_info JSON at '{}'.", "Cannot open executor_info file: '{}'"
        )[1]

    # -- assets

    def resolve_overrides(self) -> dict[str, str]:
        """The folders of the manifest's ``shared_assets``; those of a portable package are in it."""
        found = {}
        for uri, path in manifest.check_shared_assets(self.manifest).items():
            if self.layout == PORTABLE and self.root:
                check_portable(os.path.join(self.root, path), self.root)
            folder = self.resolver.resolve(path, self.root, False)
            if self.layout == PORTABLE and self.root:
                check_portable(folder, self.root)
            found[uri] = folder
        return found

    def discover(self) -> None:
        """Look for assets in their usual place."""
        self.discovered = {}
        place = os.path.join(self.root, SHARED_ASSETS)
        if not self.root or not os.path.isdir(place):
            return
        portable = self.layout == PORTABLE
        if portable:
            check_portable(place, self.root)
        for name in sorted(os.listdir(place)):
            uri, folder = name.replace("-", ":", 1), os.path.join(place, name)
            if is_asset_uri(uri) and name == asset_folder_name(uri) and os.path.isdir(folder):
                if portable:
                    check_portable(folder, self.root)
                self.discovered[uri] = folder

    def assets(self) -> dict[str, str]:
        """Every asset's folder: where the manifest says, else where it will be copied from, else where it is."""
        found = {**self.overrides, **{uri: path for uri, path in self.discovered.items() if uri not in self.overrides}}
        for uri in reversed(self.pending):
            if uri not in self.overrides:
                found[uri] = self.pending[uri]
        return found

    def asset(self, uri: str) -> str:
        found = self.assets().get(uri)
        if found is None:
            raise FileNotFoundError(f"Asset URI not declared in this package: '{uri}'.")
        return found

    # -- describing

    def component(self, name: str) -> Component:
        if name not in self.components:
            raise FileNotFoundError(f"component '{name}' not found.")
        return self.components[name]

    def document(self, dense: bool = False) -> dict[str, Any]:
        """The manifest as it is written."""
        components = {
            name: component.body if dense or component.path is None else component.path
            for name, component in self.components.items()
        }
        return {**self.manifest, "components": components}

    def info(self) -> dict[str, Any]:
        major, minor = self.version
        return {
            "schema_version_major": major,
            "schema_version_minor": minor,
            **{name: self.manifest.get(name) for name in TEXTS},
            "layout": self.layout,
            "additional_metadata_json": _metadata(self.manifest),
            "components": [_describe(name, component) for name, component in self.components.items()],
            "shared_assets": [{"uri": uri, "resolved_path": path} for uri, path in self.assets().items()],
        }


def _metadata(body: dict[str, Any]) -> str | None:
    return jsontext.compact(body["additional_metadata"]) if "additional_metadata" in body else None


def _describe(name: str, component: Component) -> dict[str, Any]:
    variants = [
        {
            "name": key,
            "variant_directory": variant.directory,
            "ep": variant.body.get("ep"),
            "device": variant.body.get("device"),
            "compatibility_string": variant.body.get("compatibility_string"),
            "additional_metadata_json": _metadata(variant.body),
            "executor_info": dict(variant.executor_info),
        }
        for key, variant in component.variants.items()
    ]
    return {"name": name, "additional_metadata_json": _metadata(component.body), "variants": variants}
