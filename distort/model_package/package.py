"""ModelPackage: writes model packages, and changes those that are there."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from distort.enums import ModelPackageWriteMode
from distort.model_package import assets, commit, jsontext, manifest
from distort.model_package.arguments import checked
from distort.model_package.manifest import INSTALLED, LAYOUTS, SHARED_ASSETS, TEXTS
from distort.model_package.paths import asset_folder_name, inside, is_asset_uri
from distort.model_package.staging import remove
from distort.model_package.store import Component, Rules, Store, Variant

_PRESERVE = ModelPackageWriteMode.PRESERVE


class ModelPackage:
    """Author a package in memory and ``commit`` it. JSON goes in and comes out as text.

    A call that raises changes nothing: neither the package in memory nor the one on disk. Errors are ValueError,
    FileNotFoundError, OSError and RuntimeError, as in onnxruntime.
    """

    @checked
    def __init__(self) -> None:
        self._state: Store | None = Store()
        self._orphans: list[str] = []  # folders that were a component's or a variant's, for prune

    @staticmethod
    @checked
    def open(
        package_root: str,
        allow_external_paths: bool = False,
        follow_symlinks: bool = True,
        strict_unknown_fields: bool = True,
    ) -> ModelPackage:
        """Read a package from its folder.

        ``allow_external_paths``: paths may leave a portable package; ``strict_unknown_fields``: fields of a
        schema that is newer than this are errors, unless the package's version says that it has them.
        """
        package = ModelPackage()
        package._state = Store.open(package_root, Rules(allow_external_paths, follow_symlinks, strict_unknown_fields))
        return package

    @checked
    def close(self) -> None:
        """Forget the package; safe to call twice. What was not committed is lost, and any other call raises."""
        self._state = None

    @checked
    def __enter__(self) -> ModelPackage:
        self._store  # noqa: B018  # raises where it is closed
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def _store(self) -> Store:
        if self._state is None:
            raise ValueError("Model package is closed.")
        return self._state

    # -- describing

    @checked
    def get_info(self) -> dict[str, Any]:
        """Metadata, components, variants and shared assets, with the folders that their paths mean."""
        return self._store.info()

    @checked
    def get_component_json(self, component_name: str) -> str:
        """A component as it is written, on one line."""
        return jsontext.compact(self._store.component(component_name).body)

    @checked
    def get_variant_json(self, component_name: str, variant_name: str) -> str:
        """A variant as it is written, on one line."""
        return jsontext.compact(self._variant(component_name, variant_name).body)

    @checked
    def resolve_asset_uri(self, uri: str) -> str:
        """The folder of a shared asset, or the one that it will be copied from."""
        return self._store.asset(uri)

    @checked
    def resolve_string_ref(self, string_ref: str, base_dir: str | None = None, must_exist: bool = False) -> str:
        """The file or folder that a path means, in ``base_dir`` or the package; or ``sha256:<hex>[/path]``."""
        return self._store.resolve(string_ref, base_dir, must_exist)

    @staticmethod
    @checked
    def compute_directory_hash(source_dir: str) -> str:
        """``sha256:<hex>``: what a folder is called as a shared asset."""
        return assets.directory_uri(source_dir)

    def _variant(self, component_name: str, variant_name: str) -> Variant:
        variant = self._store.component(component_name).variants.get(variant_name)
        if variant is None:
            raise FileNotFoundError(f"variant '{variant_name}' not found in component '{component_name}'.")
        return variant

    # -- components and variants

    @checked
    def set_component_inline(self, name: str, component_json: str) -> None:
        """Add or replace a component that is part of the manifest."""
        store = self._store
        body = manifest.parse(component_json, f"component '{name}'")
        self._set_component(name, store.inline(name, body, must_exist=False))

    @checked
    def set_component_external(self, name: str, path: str) -> None:
        """Add or replace a component that has a file of its own: read where it is there, else empty."""
        store = self._store
        if not store.root:
            raise RuntimeError(
                "SetComponentExternal requires a package_root (use _Open or _Commit with a dest_root first; or rely on "
                "_Commit(dest_root) to materialize)."
            )
        self._set_component(name, store.external(name, path, must_exist=False))

    def _set_component(self, name: str, component: Component) -> None:
        self._forget_component(name)
        self._store.components[name] = component

    @checked
    def remove_component(self, name: str) -> None:
        """Take a component out of the manifest; ``prune`` removes its folders."""
        self._forget_component(name)
        self._store.components.pop(name, None)

    @checked
    def set_variant(self, component_name: str, variant_name: str, variant_json: str) -> None:
        """Add or replace a variant. A ``variant_directory`` that it declares has to be there."""
        store = self._store
        component = store.components.get(component_name)
        if component is None:
            raise FileNotFoundError(f"SetVariant: component '{component_name}' not found.")
        body = manifest.parse(variant_json, f"variant '{variant_name}'")
        variant = store.variant(variant_name, body, component.directory, must_exist=False)
        self._forget(component.variants.get(variant_name))
        component.variants[variant_name] = variant
        component.body["variants"][variant_name] = variant.body

    @checked
    def remove_variant(self, component_name: str, variant_name: str) -> None:
        """Take a variant out of its component; ``prune`` removes its folder."""
        component = self._store.components.get(component_name)
        if component is not None and variant_name in component.variants:
            self._forget(component.variants.pop(variant_name))
            del component.body["variants"][variant_name]

    @checked
    def set_variant_executor_info_inline(
        self, component_name: str, variant_name: str, namespace_key: str, info_json: str
    ) -> None:
        """What a program, ``ort`` for onnxruntime, is to know of a variant: a JSON object."""
        self._store  # noqa: B018  # a closed package says so first
        value = manifest.parse(info_json, "executor_info")
        info = manifest.as_object(value, "executor_info inline value")
        self._set_executor_info(component_name, variant_name, namespace_key, info)

    @checked
    def set_variant_executor_info_external(
        self, component_name: str, variant_name: str, namespace_key: str, path: str
    ) -> None:
        """As ``set_variant_executor_info_inline``, in a file below the variant's folder, which may come later."""
        self._set_executor_info(component_name, variant_name, namespace_key, path)

    @checked
    def remove_variant_executor_info(self, component_name: str, variant_name: str, namespace_key: str) -> None:
        self._set_executor_info(component_name, variant_name, namespace_key, None)

    def _set_executor_info(self, component_name: str, variant_name: str, key: str, info: Any) -> None:
        body = dict(self._variant(component_name, variant_name).body)
        if info is None and "executor_info" not in body:
            return
        infos = {**body.get("executor_info", {}), key: info}
        if info is None:
            del infos[key]
        body["executor_info"] = infos
        if not infos:
            del body["executor_info"]
        component = self._store.component(component_name)
        variant = self._store.variant(variant_name, body, component.directory, must_exist=False)
        component.variants[variant_name] = variant
        component.body["variants"][variant_name] = body

    def _forget(self, variant: Variant | None) -> None:
        """Remember that a variant's folder was in use."""
        if variant is not None and variant.directory is not None:
            self._orphans.append(variant.directory)

    def _forget_component(self, name: str) -> None:
        component = self._store.components.get(name)
        if component is None:
            return
        for variant in component.variants.values():
            self._forget(variant)
        if component.path is not None:
            self._orphans.append(component.directory)

    # -- assets

    @checked
    def add_shared_asset(self, source_dir: str, expected_uri: str | None = None, copy_in: bool = True) -> str:
        """A folder that components refer to by its hash, which is the result: ``sha256:<hex>``.

        The next commit copies it. Without ``copy_in``, of an installed package alone, it stays where it is.
        """
        store = self._store
        what = "AddSharedAsset"
        if not copy_in and store.layout != INSTALLED:
            text = f"{what}: copy_in=false rejected in portable layout (the path would point outside <package_root>)."
            raise RuntimeError(text)
        if not source_dir:
            raise OSError(f"{what}: cannot make path '' absolute: Invalid argument")
        if os.path.islink(source_dir.rstrip("/")):
            raise ValueError(f"{what}: source directory cannot be a link: '{source_dir}'.")
        if not os.path.isdir(source_dir):
            raise FileNotFoundError(f"{what}: '{source_dir}' is not a directory.")
        uri = assets.directory_uri(source_dir)
        if expected_uri is not None and expected_uri != uri:
            raise RuntimeError(f"{what}: hash mismatch — computed {uri}, expected {expected_uri}.")
        folder = store.resolver.resolve(source_dir, store.root, False) if not copy_in else ""
        declared = store.manifest.setdefault("shared_assets", {})  # stays empty where the asset is copied
        if copy_in:
            store.pending[uri] = source_dir
        else:
            store.overrides[uri], declared[uri] = folder, source_dir
        return uri

    @checked
    def remove_shared_asset(self, uri: str) -> None:
        """Forget an asset, and remove its folder below ``shared_assets`` at once."""
        store = self._store
        store.pending.pop(uri, None)
        store.overrides.pop(uri, None)
        declared = store.manifest.get("shared_assets")
        if declared is not None:
            declared.pop(uri, None)
            if not declared:
                del store.manifest["shared_assets"]
        if store.root and is_asset_uri(uri):
            folder = os.path.join(store.root, SHARED_ASSETS, asset_folder_name(uri))
            if inside(os.path.realpath(os.path.dirname(folder)), store.root):
                remove(folder)
            store.discovered.pop(uri, None)

    # -- the package

    @checked
    def set_metadata(self, name: str | None = None, version: str | None = None, description: str | None = None) -> None:
        """What people call the package. None leaves an entry as it is, an empty text removes it."""
        store = self._store
        for key, text in zip(TEXTS, (name, version, description), strict=True):
            if text:
                store.manifest[key] = text
            elif text is not None:
                store.manifest.pop(key, None)

    @checked
    def set_layout(self, layout: str) -> None:
        """``portable``: the package holds all that it refers to; ``installed``: its paths may lead anywhere."""
        store = self._store
        if layout not in LAYOUTS:
            raise ValueError("SetLayout: layout must be 'portable' or 'installed'.")
        store.manifest["layout"] = layout

    @checked
    def set_additional_metadata_json(
        self,
        scope: str,
        component_name: str | None = None,
        variant_name: str | None = None,
        json: str | None = None,
    ) -> None:
        """JSON of one's own for the ``manifest``, a ``component`` or a ``variant``; None removes it."""
        body = self._scope(scope, component_name, variant_name)
        if json is None:
            body.pop("additional_metadata", None)
        else:
            body["additional_metadata"] = manifest.parse(json, "additional_metadata")

    def _scope(self, scope: str, component_name: str | None, variant_name: str | None) -> dict[str, Any]:
        store = self._store
        if scope == "manifest":
            if component_name is not None or variant_name is not None:
                raise ValueError("SetAdditionalMetadataJson: 'manifest' scope takes no component/variant.")
            return store.manifest
        if scope not in ("component", "variant"):
            raise ValueError("SetAdditionalMetadataJson: scope must be 'manifest', 'component', or 'variant'.")
        if component_name is None:
            raise ValueError("model_package: 'component' must not be null.")
        if scope == "variant" and variant_name is None:
            raise ValueError("model_package: 'variant' must not be null.")
        if scope == "component" and variant_name is not None:
            raise ValueError("SetAdditionalMetadataJson: 'component' scope takes no variant.")
        component = store.component(component_name)
        if variant_name is None:
            return component.body
        if variant_name not in component.variants:
            raise FileNotFoundError(f"variant '{variant_name}' not found.")
        return component.variants[variant_name].body

    @checked
    def commit(self, dest_root: str | None = None, mode: ModelPackageWriteMode = _PRESERVE) -> None:
        """Write the package to its folder, or to ``dest_root``, new or empty, which becomes its folder.

        A commit elsewhere copies shared assets, and no variant's folder: that is copied to ``dest_root`` afterwards,
        and a ``variant_directory`` can't be declared before. DENSE puts all components into the manifest.
        """
        store = self._store
        dense = mode is ModelPackageWriteMode.DENSE
        if dest_root is None:
            commit.in_place(store, dense)
        else:
            self._state = commit.to(store, dest_root, dense)
            self._orphans = []

    @checked
    def prune(self) -> None:
        """Remove folders of removed variants and components, and what commits staged a minute ago or more."""
        self._orphans = commit.prune(self._store, self._orphans)
