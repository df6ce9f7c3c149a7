"""Reading packages: what is in one, which variant suits, and a session of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distort import errors
from distort.model_package import jsontext
from distort.model_package.arguments import checked
from distort.model_package.store import Store, Variant
from distort.options import SessionOptions
from distort.providers import CPU

if TYPE_CHECKING:
    from distort.session import InferenceSession

#: of a package's session options, those that are paths, resolved as model_file is
_PATH_OPTIONS = ("session.model_external_initializers_file_folder_path", "ep.context_file_path")
#: those that make a session write files, which no package may ask for
_FORBIDDEN_OPTIONS = (
    "session.debug_layout_transformation",
    "session.collect_node_memory_stats_to_file",
    "session.enable_profiling",
    "session.optimized_model_filepath",
)
#: provider -> what a variant's ``device`` may be; the others' devices are not known here
_DEVICES = {CPU: "cpu", "CUDAExecutionProvider": "gpu"}


@contextmanager
def _as_runtime_error(start: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{start}{error}") from error


@dataclass(frozen=True, slots=True)
class _Configuration:
    """A variant's ``executor_info["ort"]``, its paths resolved."""

    model_file: str | None
    session_options: dict[str, str]
    provider_options: dict[str, str]


def _strings(value: dict[str, Any], key: str, where: str) -> dict[str, str]:
    what = f"ORT variant configuration: '{key}'"
    entries = value.get(key, {})
    if not isinstance(entries, dict):
        raise RuntimeError(f"{what} must be a JSON object {where}")
    for name, entry in entries.items():
        if "\0" in name:
            raise RuntimeError(f"{what} entry keys must not contain embedded NUL characters {where}")
        if not isinstance(entry, str):
            raise RuntimeError(f"{what} entries must be strings {where}")
    return entries


def _configuration(store: Store, component_name: str, name: str, variant: Variant) -> _Configuration:
    """Raises RuntimeError for what is no configuration."""
    where = f"for variant '{name}' in component '{component_name}'"
    value = jsontext.parse(variant.executor_info.get("ort", "{}"))
    if not isinstance(value, dict):
        raise RuntimeError(f"ORT variant configuration must be a JSON object {where}")

    def resolve(key: str, text: str) -> str:
        with _as_runtime_error(f"Failed to resolve ORT variant '{key}' = '{text}' {where}: "):
            return store.resolve(text, variant.directory, False)

    model_file = value.get("model_file")
    if "model_file" in value:
        if not isinstance(model_file, str):
            raise RuntimeError(f"ORT variant configuration: model_file must be a string {where}")
        model_file = resolve("model_file", model_file)
    options = dict(_strings(value, "session_options", where))
    for key in _FORBIDDEN_OPTIONS:
        if key in options:
            text = f"ORT variant configuration: '{key}' cannot be set in model package session options {where}"
            raise RuntimeError(text)
    for key in _PATH_OPTIONS:
        if key in options:
            options[key] = resolve(key, options[key])
    return _Configuration(model_file, options, _strings(value, "provider_options", where))


class ModelPackageOptions:
    """What a variant is selected for: the first execution provider of session options, else the CPU's."""

    @checked
    def __init__(self, sess_options: SessionOptions) -> None:
        self._provider = next((name for name, _ in sess_options._added_providers), CPU)

    def _suits(self, variant: Variant) -> bool:
        if variant.body.get("ep") != self._provider:
            return False
        device = variant.body.get("device", "")
        return not device or device.lower() == _DEVICES.get(self._provider)


class ModelPackageContext:
    """A package that is there already, open for reading. Errors are RuntimeError, as in onnxruntime."""

    @checked
    def __init__(self, package_root: str) -> None:
        with _as_runtime_error(f"Failed to open model package at '{package_root}': "):
            self._store = Store.open(package_root)
        self._configurations = {
            (name, key): _configuration(self._store, name, key, variant)
            for name, component in self._store.components.items()
            for key, variant in component.variants.items()
        }

    @checked
    def get_schema_version(self) -> int:
        """The major one."""
        return self._store.version[0]

    @checked
    def get_component_count(self) -> int:
        return len(self._store.components)

    @checked
    def get_component_names(self) -> list[str]:
        return list(self._store.components)

    @checked
    def get_variant_count(self, component_name: str) -> int:
        return len(self._variants(component_name))

    @checked
    def get_variant_names(self, component_name: str) -> list[str]:
        return list(self._variants(component_name))

    @checked
    def get_variant_ep_name(self, component_name: str, variant_name: str) -> str | None:
        """The execution provider that a variant is for; None where it doesn't say."""
        variant = self._variants(component_name).get(variant_name)
        if variant is None:
            raise RuntimeError(f"Variant '{variant_name}' not found in component '{component_name}'.")
        provider: str | None = variant.body.get("ep")
        return provider

    def _variants(self, component_name: str) -> dict[str, Variant]:
        component = self._store.components.get(component_name)
        if component is None:
            raise RuntimeError(f"Component model not found: {component_name}")
        return component.variants

    @checked
    def resolve_string_ref(self, string_ref: str, base_dir: str | None = None, must_exist: bool = False) -> str:
        """The file or folder that a path means, in ``base_dir`` or the package; or ``sha256:<hex>[/path]``."""
        with _as_runtime_error(f"Failed to resolve '{string_ref}' in model package: "):
            return self._store.resolve(string_ref, base_dir or None, must_exist)

    @checked
    def select_component(self, component_name: str, options: ModelPackageOptions) -> ModelPackageComponentContext:
        """The first of a component's variants that suits the options' execution provider and its device."""
        component = self._store.components.get(component_name)
        if component is None:
            raise RuntimeError("Component model not found.")
        for name, variant in component.variants.items():
            if options._suits(variant):
                configuration = self._configurations[component_name, name]
                return ModelPackageComponentContext._of(
                    component_name, name, variant.directory or "", configuration, options._provider
                )
        raise RuntimeError("No suitable model variant found for the configured execution providers.")


class ModelPackageComponentContext:
    """A component's selected variant; :meth:`ModelPackageContext.select_component` makes one."""

    _component: str
    _name: str
    _folder: str
    _configuration: _Configuration
    _provider: str

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"{errors.MODULE}.ModelPackageComponentContext: No constructor defined!")

    @classmethod
    def _of(
        cls, component: str, name: str, folder: str, configuration: _Configuration, provider: str
    ) -> ModelPackageComponentContext:
        context = cls.__new__(cls)
        context._component, context._name, context._folder = component, name, folder
        context._configuration, context._provider = configuration, provider
        return context

    @checked
    def get_selected_variant_name(self) -> str:
        return self._name

    @checked
    def get_selected_variant_folder_path(self) -> str:
        """Empty where the variant has no folder."""
        return self._folder

    def create_session(self, sess_options: SessionOptions | None = None) -> InferenceSession:
        """A session of the variant's model.

        None: on the provider that the variant was selected for, with the package's session options. Options of one's
        own replace those, but for paths that they don't set.
        """
        from distort.model_package.session import PackageSession, add_entry

        if not (sess_options is None or isinstance(sess_options, SessionOptions)):
            signature = (
                "(self: C.ModelPackageComponentContext, sess_options: C.SessionOptions = None) -> C.InferenceSession"
            )
            raise errors.incompatible("_create_session", signature, self, sess_options)
        configuration = self._configuration
        if configuration.model_file is None:
            text = f'Selected variant \'{self._name}\' has no executor_info["ort"]["model_file"]. Component: '
            raise errors.make("FAIL", text + self._component)
        if sess_options is not None:
            options = sess_options._copy()
            for key in _PATH_OPTIONS:
                if key in configuration.session_options and key not in options._config:
                    options.add_session_config_entry(key, configuration.session_options[key])
            return PackageSession(configuration.model_file, options, enable_fallback=0)
        if configuration.provider_options and self._provider == CPU:
            text = "Cannot apply package provider_options: the selected EP does not expose OrtEpDevices."
            raise errors.make("NOT_IMPLEMENTED", text)
        options = SessionOptions()
        for key, value in configuration.session_options.items():
            add_entry(options, key, value)
        chosen = [(self._provider, dict(configuration.provider_options))]
        return PackageSession(configuration.model_file, options, chosen, enable_fallback=0)
