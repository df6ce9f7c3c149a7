"""Writing a package to disk: in its place, or to a new one; and taking away what nothing refers to any more.

Everything is checked and staged before the first file changes, and the manifest changes last. onnxruntime writes
first and checks then: where it leaves a package that it refuses to open, the old one stays here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from distort.model_package import assets, jsontext
from distort.model_package.manifest import MANIFEST, PORTABLE, SHARED_ASSETS
from distort.model_package.paths import asset_folder_name, check_portable, inside
from distort.model_package.staging import Staging, remove
from distort.model_package.store import Store

#: a staged folder that is younger may be another process's, at work on it
_GRACE_S = 60.0


def _check_dense(store: Store) -> None:
    for name, component in store.components.items():
        for key, variant in component.variants.items():
            for namespace, info in variant.body.get("executor_info", {}).items():
                if isinstance(info, str):
                    raise RuntimeError(
                        f"WRITE_DENSE: component '{name}' variant '{key}' has external executor_info '{namespace}' "
                        "(string path). Convert to inline via SetVariantExecutorInfoInline before dense commit."
                    )


def in_place(store: Store, dense: bool) -> None:
    """Write to the package's own folder.

    Variants of components that become inline are then looked for in the package's folder: what the format says.
    """
    root = store.root
    if not root:
        raise RuntimeError("Commit: package has no package_root. Use dest_root variant.")
    if dense:
        _check_dense(store)
    external = {} if dense else {n: c for n, c in store.components.items() if c.path is not None}
    if store.layout == PORTABLE:
        for name, component in external.items():
            if not inside(component.file, root):
                raise ValueError(
                    f"component '{name}': absolute path '{component.file}' escapes package_root '{root}' "
                    "(portable layout)."
                )
    overrides = store.resolve_overrides()
    with Staging() as staging:
        for uri, source in store.pending.items():
            folder = os.path.join(root, SHARED_ASSETS, asset_folder_name(uri))
            if os.path.isdir(folder):
                continue
            staged = staging.place(folder)
            assets.copy(source, staged)
            found = assets.directory_uri(staged)
            if found != uri:
                raise RuntimeError(f"Shared asset source mutated during commit: expected {uri}, staged {found}.")
        for component in external.values():
            staging.write(component.file, jsontext.pretty(component.body))
        staging.write(os.path.join(root, MANIFEST), jsontext.pretty(store.document(dense)))
        staging.publish()
        staging.keep()
    if dense:
        for component in store.components.values():
            component.path, component.file, component.directory = None, "", root
    store.pending.clear()
    store.overrides = overrides
    store.discover()


def to(store: Store, dest: str, dense: bool) -> Store:
    """Write to a new or empty folder, with all assets; the package as it is read back from there."""
    if os.path.lexists(dest):
        if not os.path.isdir(dest):
            raise RuntimeError(f"Commit dest_root '{dest}' exists and is not a directory.")
        if os.listdir(dest):
            raise RuntimeError(f"Commit dest_root '{dest}' is not empty.")
    elif not dest:
        raise OSError("Cannot create dest_root '': Invalid argument")
    root = os.path.realpath(dest)
    with Staging(new=root) as staging:
        try:
            staging.make_folder(root)
        except OSError as error:
            raise OSError(f"Cannot create dest_root '{dest}': {error.strerror}") from error
        if dense:
            _check_dense(store)
        found = store.assets()
        if store.layout == PORTABLE and store.root:
            for uri, source in found.items():
                if uri not in store.pending:
                    check_portable(source, store.root, must_exist=True)
        for uri, source in found.items():
            _stage_asset(staging, uri, source, root)
        for name, component in store.components.items():
            if component.path is not None and not dense:
                file = _component_file(store, name, component.path, root)
                staging.write(file, jsontext.pretty(component.body))
        document = store.document(dense)
        document.pop("shared_assets", None)  # they are all in their usual place now
        staging.write(os.path.join(root, MANIFEST), jsontext.pretty(document))
        staging.publish()
        written = Store.open(root, store.rules)
        staging.keep()
    return written


def _stage_asset(staging: Staging, uri: str, source: str, root: str) -> None:
    if not os.path.isdir(source):
        raise FileNotFoundError(f"Commit dest_root: shared asset source '{source}' for {uri} is not a directory.")
    staged = staging.place(os.path.join(root, SHARED_ASSETS, asset_folder_name(uri)))
    assets.copy(source, staged)
    found = assets.directory_uri(staged)
    if found != uri:
        raise RuntimeError(f"Shared asset hash mismatch during dest_root commit: expected {uri}, staged {found}")


def _component_file(store: Store, name: str, path: str, root: str) -> str:
    what = f"dest_root commit (portable): component '{name}'"
    if os.path.isabs(path):
        if store.layout == PORTABLE:
            raise ValueError(f"{what} has absolute path '{path}'.")
        return path
    file = os.path.normpath(os.path.join(root, path))
    if not inside(file, root, strictly=True):
        raise ValueError(f"{what} relative path '{path}' escapes dest_root.")
    return file


def prune(store: Store, orphans: Iterable[str]) -> list[str]:
    """Remove folders that nothing uses any more, and what interrupted commits staged; the folders that stay.

    A folder stays while it holds something that the package refers to, and so does the package's own folder, which
    onnxruntime removes with all that is in it when a variant has it as its ``variant_directory``.
    """
    root = store.root
    if not root:
        return list(orphans)
    used = [root, os.path.join(root, MANIFEST), *store.assets().values()]
    for component in store.components.values():
        used += [component.directory, component.file or component.directory]
        used += [variant.directory for variant in component.variants.values() if variant.directory is not None]
    used = [os.path.realpath(path) for path in used]
    kept = []
    for orphan in orphans:
        if any(inside(path, orphan) for path in used):
            kept.append(orphan)
        elif inside(orphan, root, strictly=True):
            remove(orphan)
    _remove_stale(os.path.join(root, SHARED_ASSETS))
    return kept


def _remove_stale(folder: str) -> None:
    if not os.path.isdir(folder):
        return
    with os.scandir(folder) as scan:
        stale = [
            entry.path
            for entry in scan
            if ".tmp." in entry.name
            and entry.is_dir(follow_symlinks=False)
            and time.time() - entry.stat(follow_symlinks=False).st_mtime > _GRACE_S
        ]
    for path in stale:
        remove(path)
