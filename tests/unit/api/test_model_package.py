"""Model packages: what is written, what is read, and that nothing is lost when it can't be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

import distort
from distort.capi import onnxruntime_pybind11_state as C
from distort.model_package import (
    ModelPackage,
    ModelPackageComponentContext,
    ModelPackageContext,
    ModelPackageOptions,
    ModelPackageWriteMode,
    jsontext,
)
from distort.model_package.staging import Staging

EMPTY = '{"variants":{}}'
ABSENT = "sha256:" + "0" * 64


def save_model(path: Path, factor: float) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        agraph (float[2] x) => (float[2] y) <float w = {{{factor}}}> {{ y = Mul(x, w) }}"""
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def folder(path: Path, files: dict[str, str]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def package(path: Path, manifest: dict[str, Any], files: dict[str, str] | None = None) -> str:
    folder(path, {"manifest.json": json.dumps({"schema_version": "1.0", **manifest}), **(files or {})})
    return str(path)


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else b"/" for p in sorted(path.rglob("*"))}


@pytest.fixture
def two_variants(tmp_path: Path) -> str:
    """A component with a variant for a provider that isn't here, and one for the CPU."""
    root = tmp_path / "package"
    variant = {"executor_info": {"ort": {"model_file": "model.onnx"}}}
    variants = {
        "cuda": {"ep": "CUDAExecutionProvider", **variant},
        "cpu": {"ep": "CPUExecutionProvider", "device": "CPU", **variant},
        "late": {"ep": "CPUExecutionProvider", **variant},
    }
    for position, name in enumerate(variants):
        save_model(root / name / "model.onnx", 2.0 + position)
    return package(root, {"components": {"model": {"variants": variants}}})


class TestAuthoring:
    def test_a_package_from_nothing(self, tmp_path: Path) -> None:
        with ModelPackage() as made:
            assert made.get_info()["schema_version_major"] == 0
            made.set_metadata("name", description="what it does")
            made.set_component_inline("c", EMPTY)
            made.set_variant("c", "v", '{"ep": "CPUExecutionProvider", "device": "cpu"}')
            made.set_variant_executor_info_inline("c", "v", "ort", '{"model_file": "m.onnx"}')
            made.set_additional_metadata_json("variant", "c", "v", "[1, 2.50]")
            made.commit(str(tmp_path / "new" / "package"))
        text = (tmp_path / "new" / "package" / "manifest.json").read_text()
        assert text.endswith("}\n")
        assert json.loads(text) == {
            "schema_version": "1.0",
            "layout": "portable",
            "components": {
                "c": {
                    "variants": {
                        "v": {
                            "ep": "CPUExecutionProvider",
                            "device": "cpu",
                            "executor_info": {"ort": {"model_file": "m.onnx"}},
                            "additional_metadata": [1, 2.5],
                        }
                    }
                }
            },
            "package_name": "name",
            "description": "what it does",
        }
        info = ModelPackage.open(str(tmp_path / "new" / "package")).get_info()
        assert (info["schema_version_major"], info["schema_version_minor"]) == (1, 0)
        assert info["package_name"] == "name" and info["package_version"] is None
        assert info["components"][0]["variants"][0] == {
            "name": "v",
            "variant_directory": None,
            "ep": "CPUExecutionProvider",
            "device": "cpu",
            "compatibility_string": None,
            "additional_metadata_json": "[1,2.5]",
            "executor_info": {"ort": '{"model_file":"m.onnx"}'},
        }

    def test_components_of_their_own(self, tmp_path: Path) -> None:
        root = package(tmp_path / "p", {"components": {}}, {"there/component.json": '{"variants":{"v":{}}}'})
        (tmp_path / "p" / "there" / "v").mkdir()
        opened = ModelPackage.open(root)
        opened.set_component_external("there", "there")
        opened.set_component_external("later", "deep/er/later.json")
        opened.set_variant("later", "w", "{}")
        assert opened.get_info()["components"][0]["variants"][0]["variant_directory"] == f"{root}/there/v"
        opened.commit()
        manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
        assert manifest["components"] == {"there": "there", "later": "deep/er/later.json"}
        assert json.loads((tmp_path / "p/deep/er/later.json").read_text()) == {"variants": {"w": {}}}
        opened.commit(mode=ModelPackageWriteMode.DENSE)
        manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
        assert manifest["components"] == {"there": {"variants": {"v": {}}}, "later": {"variants": {"w": {}}}}

    def test_dense_wants_no_executor_info_in_files(self, tmp_path: Path) -> None:
        component = {"variants": {"v": {"executor_info": {"ort": "ort.json"}}}}
        opened = ModelPackage.open(package(tmp_path / "p", {"components": {"c": component}}, {"v/ort.json": "{}"}))
        with pytest.raises(RuntimeError, match="WRITE_DENSE: component 'c' variant 'v' has external executor_info"):
            opened.commit(str(tmp_path / "dest"), ModelPackageWriteMode.DENSE)
        assert not (tmp_path / "dest").exists()
        opened.remove_variant_executor_info("c", "v", "ort")
        assert opened.get_variant_json("c", "v") == "{}"
        opened.commit(str(tmp_path / "dest"), ModelPackageWriteMode.DENSE)

    def test_names_that_are_not_there(self, tmp_path: Path) -> None:
        opened = ModelPackage.open(package(tmp_path / "p", {"components": {"c": {"variants": {}}}}))
        opened.remove_component("no")
        opened.remove_variant("no", "v")
        opened.remove_shared_asset(ABSENT)
        for call, text in [
            (lambda: opened.get_component_json("no"), "component 'no' not found."),
            (lambda: opened.get_variant_json("c", "no"), "variant 'no' not found in component 'c'."),
            (lambda: opened.set_variant("no", "v", "{}"), "SetVariant: component 'no' not found."),
            (lambda: opened.resolve_asset_uri(ABSENT), f"Asset URI not declared in this package: '{ABSENT}'."),
            (lambda: opened.set_additional_metadata_json("variant", "c", "no"), "variant 'no' not found."),
        ]:
            with pytest.raises(FileNotFoundError) as raised:
                call()
            assert str(raised.value) == text

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("package",), "SetAdditionalMetadataJson: scope must be 'manifest', 'component', or 'variant'."),
            (("manifest", "c"), "SetAdditionalMetadataJson: 'manifest' scope takes no component/variant."),
            (("component",), "model_package: 'component' must not be null."),
            (("component", "c", "v"), "SetAdditionalMetadataJson: 'component' scope takes no variant."),
            (("variant", "c"), "model_package: 'variant' must not be null."),
            (("manifest", None, None, "{"), "additional_metadata: JSON parse error."),
        ],
    )
    def test_scopes_of_metadata(self, tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
        opened = ModelPackage.open(package(tmp_path / "p", {"components": {"c": {"variants": {}}}}))
        with pytest.raises(ValueError) as raised:
            opened.set_additional_metadata_json(*arguments)
        assert str(raised.value) == text

    def test_a_closed_package_raises(self, tmp_path: Path) -> None:
        made = ModelPackage()
        made.close()
        made.close()
        for call in (
            made.get_info,
            made.prune,
            made.__enter__,
            made.commit,
            made.set_metadata,
            lambda: made.set_layout("x"),
            lambda: made.set_variant_executor_info_inline("c", "v", "n", "{"),
            lambda: made.resolve_string_ref("a"),
        ):
            with pytest.raises(ValueError, match=r"^Model package is closed\.$"):
                call()

    def test_arguments_of_the_wrong_type(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError) as raised:
            ModelPackage().commit(str(tmp_path / "x"), 1)  # type: ignore[arg-type]
        assert str(raised.value).startswith(
            "commit(): incompatible function arguments. The following argument types are supported:\n"
            "    1. (self: distort.capi.onnxruntime_pybind11_state.ModelPackage, dest_root: str | None = None, mode: "
            "distort.capi.onnxruntime_pybind11_state.ModelPackageWriteMode = <ModelPackageWriteMode.PRESERVE: 0>) -> "
            "None\n\nInvoked with: "
        )
        with pytest.raises(TypeError, match=r"Invoked with: kwargs: package_root=3$"):
            ModelPackage.open(package_root=3)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="incompatible constructor arguments"):
            ModelPackage(1)  # type: ignore[call-arg]
        for text in ("\ud800", b"\xff"):
            with pytest.raises(TypeError, match="incompatible function arguments"):
                ModelPackage().set_metadata(text)  # type: ignore[arg-type]


class TestAssets:
    def test_the_hash_is_of_names_and_bytes(self, tmp_path: Path) -> None:
        one = folder(tmp_path / "one", {"a.txt": "hi", "sub/b.txt": "yo"})
        (one / "empty").mkdir()
        uri = "sha256:bd90026977a470fc5287a320286a482e4e34611d18c3deaf4066f930c34f9a53"
        assert ModelPackage.compute_directory_hash(str(one)) == uri
        (one / "a.txt").rename(one / "c.txt")
        assert ModelPackage.compute_directory_hash(str(one)) != uri
        nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        assert ModelPackage.compute_directory_hash(str(one / "empty")) == nothing
        (one / "link").symlink_to("c.txt")
        with pytest.raises(ValueError, match="symlink not allowed"):
            ModelPackage.compute_directory_hash(str(one))

    def test_an_asset_is_copied_at_the_commit(self, tmp_path: Path) -> None:
        source = folder(tmp_path / "asset", {"f": "1", "sub/g": "2"})
        opened = ModelPackage.open(package(tmp_path / "p", {"components": {}}))
        uri = opened.add_shared_asset(str(source))
        assert opened.add_shared_asset(str(source), uri) == uri
        assert opened.resolve_asset_uri(uri) == str(source)
        opened.commit()
        place = tmp_path / "p" / "shared_assets" / uri.replace(":", "-")
        assert tree(place) == tree(source)
        assert opened.resolve_asset_uri(uri) == str(place)
        assert opened.resolve_string_ref(f"{uri}/sub/g", must_exist=True) == str(place / "sub" / "g")
        opened.commit(str(tmp_path / "copy"))
        assert tree(tmp_path / "copy" / "shared_assets" / place.name) == tree(source)
        opened.remove_shared_asset(uri)
        assert not (tmp_path / "copy" / "shared_assets" / place.name).exists()
        assert opened.get_info()["shared_assets"] == []

    def test_a_source_that_changed_is_not_committed(self, tmp_path: Path) -> None:
        source = folder(tmp_path / "asset", {"f": "1"})
        opened = ModelPackage.open(package(tmp_path / "p", {"components": {}}))
        opened.add_shared_asset(str(source))
        opened.set_metadata("new")
        (source / "f").write_text("2")
        before = tree(tmp_path / "p")
        with pytest.raises(RuntimeError, match="Shared asset source mutated during commit"):
            opened.commit()
        with pytest.raises(RuntimeError, match="Shared asset hash mismatch during dest_root commit"):
            opened.commit(str(tmp_path / "dest"))
        assert tree(tmp_path / "p") == before
        assert not (tmp_path / "dest").exists()

    def test_what_is_no_asset(self, tmp_path: Path) -> None:
        source = folder(tmp_path / "asset", {"f": "1"})
        (tmp_path / "link").symlink_to(source)
        opened = ModelPackage.open(package(tmp_path / "p", {"components": {}}))
        with pytest.raises(RuntimeError, match="hash mismatch — computed sha256:"):
            opened.add_shared_asset(str(source), ABSENT)
        with pytest.raises(RuntimeError, match="copy_in=false rejected in portable layout"):
            opened.add_shared_asset(str(source), copy_in=False)
        with pytest.raises(FileNotFoundError, match="is not a directory"):
            opened.add_shared_asset(str(source / "f"))
        with pytest.raises(ValueError, match="cannot be a link"):
            opened.add_shared_asset(str(tmp_path / "link"))
        assert opened.get_info()["shared_assets"] == []

    def test_an_installed_package_refers_to_assets_elsewhere(self, tmp_path: Path) -> None:
        source = folder(tmp_path / "asset", {"f": "1"})
        opened = ModelPackage.open(package(tmp_path / "p", {"components": {}, "layout": "installed"}))
        uri = opened.add_shared_asset(str(source), copy_in=False)
        opened.commit()
        assert json.loads((tmp_path / "p/manifest.json").read_text())["shared_assets"] == {uri: str(source)}
        assert not (tmp_path / "p/shared_assets").exists()
        opened.set_layout("portable")
        before = tree(tmp_path / "p")
        with pytest.raises(ValueError, match="escapes package_root"):
            opened.commit()
        assert tree(tmp_path / "p") == before
        opened.remove_shared_asset(uri)
        opened.commit()
        assert source.exists()


class TestPaths:
    @pytest.mark.parametrize("text", ["/etc/passwd", "../other", "a/../../b", "link/file", "link"])
    def test_a_portable_package_is_not_left(self, tmp_path: Path, text: str) -> None:
        root = package(tmp_path / "p", {"components": {}})
        folder(tmp_path / "other", {"file": "{}"})
        (tmp_path / "p" / "link").symlink_to(tmp_path / "other")
        opened = ModelPackage.open(root)
        context = ModelPackageContext(root)
        with pytest.raises(ValueError):
            opened.resolve_string_ref(text)
        with pytest.raises(RuntimeError, match=r"^Failed to resolve '"):
            context.resolve_string_ref(text)
        for manifest in (
            {"components": {"c": text}},
            {"components": {"c": {"variants": {"v": {"variant_directory": text}}}}},
            {"components": {"c": {"variants": {text: {}}}}},
            {"components": {"c": {"variants": {"v": {"executor_info": {"ort": f"../{text}"}}}}}},
            {"components": {}, "shared_assets": {ABSENT: text}},
        ):
            with pytest.raises((ValueError, FileNotFoundError)):
                ModelPackage.open(package(tmp_path / "p", manifest))
        configuration = {"variants": {"v": {"executor_info": {"ort": {"model_file": f"../{text}"}}}}}
        with pytest.raises(RuntimeError, match="Failed to resolve ORT variant 'model_file'"):
            ModelPackageContext(package(tmp_path / "p", {"components": {"c": configuration}}))

    def test_paths_in_a_package(self, tmp_path: Path) -> None:
        root = package(tmp_path / "p", {"components": {}}, {"a/f": ""})
        opened = ModelPackage.open(root)
        assert opened.resolve_string_ref("./a//f") == f"{root}/a/f"
        assert opened.resolve_string_ref("f", f"{root}/a", True) == f"{root}/a/f"
        assert opened.resolve_string_ref("none/./x") == f"{root}/none/x"
        assert opened.resolve_string_ref("sha256:abc") == f"{root}/sha256:abc"  # no asset's URI
        with pytest.raises(FileNotFoundError, match=r"'.*/none' does not exist"):
            opened.resolve_string_ref("none", must_exist=True)
        with pytest.raises(ValueError, match="input must not be empty"):
            opened.resolve_string_ref("")
        with pytest.raises(ValueError, match="escapes package_root"):
            opened.resolve_string_ref("x", str(tmp_path))

    def test_paths_out_of_a_package_where_they_are_allowed(self, tmp_path: Path) -> None:
        folder(tmp_path / "other", {"component.json": EMPTY})
        root = package(tmp_path / "p", {"components": {"c": "../other"}})
        info = ModelPackage.open(root, allow_external_paths=True).get_info()
        assert info["layout"] == "portable"
        root = package(tmp_path / "p", {"components": {"c": "../other"}, "layout": "installed"})
        assert ModelPackage.open(root).resolve_string_ref("../x") == str(tmp_path / "x")

    def test_an_asset_is_not_left_in_any_layout(self, tmp_path: Path) -> None:
        source = folder(tmp_path / "asset", {"f": "1"})
        opened = ModelPackage.open(package(tmp_path / "p", {"components": {}, "layout": "installed"}))
        uri = opened.add_shared_asset(str(source))
        for below in ("../x", "/etc", "a/../.."):
            with pytest.raises(ValueError, match="ResolvePath"):
                opened.resolve_string_ref(f"{uri}/{below}")


class TestSchema:
    @pytest.mark.parametrize(
        ("manifest", "text"),
        [
            ({}, "manifest: missing required 'components' object."),
            ({"components": []}, "manifest: 'components' must be an object."),
            ({"components": {}, "more": 1}, "manifest: unknown field 'more'."),
            ({"components": {}, "schema_version": None}, "must be a"),
            ({"components": {}, "schema_version": "1.0.0"}, "must be a"),
            ({"components": {}, "schema_version": "2.0"}, "schema_version major 2 is not supported"),
            ({"components": {}, "package_name": 1}, "manifest: 'package_name' must be a string."),
            ({"components": {}, "layout": "loose"}, "manifest: 'layout' must be 'portable' or 'installed'."),
            ({"components": {}, "shared_assets": []}, "manifest: shared_assets must be an object."),
            ({"components": {}, "shared_assets": {"x": "y"}}, "key 'x' is not a valid sha256:<hex> URI."),
            ({"components": {"c": 1}}, "component 'c': value must be a string"),
            ({"components": {"c": {}}}, "component 'c': missing required 'variants' object."),
            ({"components": {"c": {"variants": [], "component_name": 1}}}, "component_name must be a string."),
            ({"components": {"c": {"variants": {"v": []}}}}, "variant 'v': expected a JSON object."),
            ({"components": {"c": {"variants": {"v": {"ep": None}}}}}, "variant 'v': 'ep' must be a string."),
            ({"components": {"c": {"variants": {"v": {"executor_info": {"a": 1}}}}}}, "must be a string \\(path\\)"),
        ],
    )
    def test_what_is_no_manifest(self, tmp_path: Path, manifest: dict[str, Any], text: str) -> None:
        root = package(tmp_path / "p", manifest)
        with pytest.raises(ValueError, match=text):
            ModelPackage.open(root)
        with pytest.raises(RuntimeError, match=f"Failed to open model package at '.*{text}"):
            ModelPackageContext(root)

    @pytest.mark.parametrize("text", ["", "{", "[1,]", "{}x", "NaN", '{"a": 01}', '{"a": "\ud800"}', "[" * 100_000])
    def test_what_is_no_json(self, tmp_path: Path, text: str) -> None:
        folder(tmp_path / "p", {})
        (tmp_path / "p" / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(ValueError, match="Failed to parse JSON at"):
            ModelPackage.open(str(tmp_path / "p"))

    def test_a_newer_minor_version_may_have_more_fields(self, tmp_path: Path) -> None:
        root = package(tmp_path / "p", {"schema_version": "1.7", "components": {"c": {"variants": {}, "x": 1}}, "y": 2})
        opened = ModelPackage.open(root)
        assert opened.get_info()["schema_version_minor"] == 7
        opened.set_variant("c", "v", '{"z": 3}')
        opened.commit()
        written = json.loads((tmp_path / "p" / "manifest.json").read_text())
        assert written["y"] == 2 and written["components"]["c"] == {"variants": {"v": {"z": 3}}, "x": 1}

    def test_no_folder_no_package(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="is not a directory"):
            ModelPackage.open(str(tmp_path / "none"))
        with pytest.raises(OSError, match="Cannot open file"):
            ModelPackage.open(str(tmp_path))

    def test_json_as_text(self) -> None:
        text = "[1e+15,100000000000000.0,1e+16,1.2345678901234569e+23,0,-0.0,1.5e-07,18446744073709551615]"
        assert jsontext.compact(jsontext.parse(text)) == text
        text = '"\\u0001\\b\x7f😀"'
        assert jsontext.compact(jsontext.parse(text)) == text
        assert jsontext.compact(jsontext.parse('{"a": 1, "b": [ ], "a": {}}')) == '{"a":{},"b":[]}'
        assert jsontext.pretty({"a": [1], "b": {}}) == '{\n  "a": [\n    1\n  ],\n  "b": {}\n}\n'
        for wrong in ("1e400", "-Infinity", "1 2", "'a'", '"\\ud800"', '"\t"'):
            with pytest.raises(jsontext.InvalidJson):
                jsontext.parse(wrong)


class TestNothingIsLost:
    def test_a_call_that_raises_changes_nothing(self, tmp_path: Path) -> None:
        component = {"variants": {"v": {"ep": "a", "executor_info": {"n": {}}}}}
        opened = ModelPackage.open(package(tmp_path / "p", {"components": {"c": component}}, {"v/bad.json": "{"}))
        before, info = opened.get_component_json("c"), opened.get_info()
        for call in (
            lambda: opened.set_component_inline("c", '{"variants":{"w":{"variant_directory":"none"}}}'),
            lambda: opened.set_component_external("c", "../x"),
            lambda: opened.set_variant("c", "v", '{"executor_info":{"n":"bad.json"}}'),
            lambda: opened.set_variant("c", "w", "[]"),
            lambda: opened.set_variant_executor_info_inline("c", "v", "n", "[]"),
            lambda: opened.set_variant_executor_info_external("c", "v", "n", "bad.json"),
            lambda: opened.set_additional_metadata_json("component", "c", json="{"),
            lambda: opened.set_layout("none"),
        ):
            with pytest.raises((ValueError, FileNotFoundError)):
                call()
        assert opened.get_component_json("c") == before
        assert opened.get_info() == info

    def test_a_destination_has_to_be_empty(self, tmp_path: Path) -> None:
        opened = ModelPackage.open(package(tmp_path / "p", {"components": {}}))
        with pytest.raises(RuntimeError, match="is not empty"):
            opened.commit(str(folder(tmp_path / "full", {"f": "1"})))
        with pytest.raises(RuntimeError, match="exists and is not a directory"):
            opened.commit(str(tmp_path / "full" / "f"))
        with pytest.raises(OSError, match="Not a directory"):
            opened.commit(str(tmp_path / "full" / "f" / "below"))
        with pytest.raises(OSError, match="Cannot create dest_root ''"):
            opened.commit("")
        (tmp_path / "empty").mkdir()
        opened.commit(str(tmp_path / "empty"))
        assert tree(tmp_path / "full") == {"f": b"1"}

    def test_a_commit_that_could_not_be_opened_leaves_nothing(self, tmp_path: Path) -> None:
        component = {"variants": {"v": {"variant_directory": "v"}}}
        root = package(tmp_path / "p", {"components": {"c": component}})
        (tmp_path / "p" / "v").mkdir()
        (tmp_path / "empty").mkdir()
        opened = ModelPackage.open(root)
        opened.add_shared_asset(str(folder(tmp_path / "asset", {"f": "1"})))
        for dest in ("empty", "a/b"):
            with pytest.raises(FileNotFoundError, match=f"ResolvePath: '{tmp_path / dest / 'v'}' does not exist"):
                opened.commit(str(tmp_path / dest))
        assert tree(tmp_path / "empty") == {} and not (tmp_path / "a").exists()
        opened.commit()  # it still is where it was
        assert json.loads((tmp_path / "p" / "manifest.json").read_text())["components"] == {"c": component}

    def test_a_write_that_fails_leaves_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        root = package(tmp_path / "p", {"components": {"c": "c.json"}}, {"c.json": EMPTY})
        opened = ModelPackage.open(root)
        opened.set_variant("c", "v", "{}")
        before = tree(tmp_path / "p")

        def fail(*arguments: object) -> None:
            raise OSError("no space left")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="no space left"):
            opened.commit()
        assert tree(tmp_path / "p") == before

    def test_what_is_staged_goes_when_the_block_is_left(self, tmp_path: Path) -> None:
        with Staging() as staging:
            staging.write(str(tmp_path / "a" / "b" / "f"), "text")
            assert len(list((tmp_path / "a" / "b").iterdir())) == 1
        assert not (tmp_path / "a").exists()

    def test_components_that_would_leave_the_destination(self, tmp_path: Path) -> None:
        folder(tmp_path / "other", {"c.json": EMPTY})
        root = package(tmp_path / "p", {"components": {"c": "../other/c.json"}, "layout": "installed"})
        opened = ModelPackage.open(root)
        with pytest.raises(ValueError, match=r"relative path '\.\./other/c.json' escapes dest_root"):
            opened.commit(str(tmp_path / "dest"))
        opened.set_layout("portable")
        before = tree(tmp_path / "p")
        with pytest.raises(ValueError, match=r"escapes package_root '.*' \(portable layout\)"):
            opened.commit()
        assert tree(tmp_path / "p") == before

    def test_prune_takes_what_was_removed(self, tmp_path: Path) -> None:
        variants = {"v": {"variant_directory": "a"}, "w": {"variant_directory": "a/b"}, "x": {}, "here": {}}
        variants["here"]["variant_directory"] = "."
        root = package(
            tmp_path / "p",
            {"components": {"c": {"variants": variants}, "d": "d"}},
            {"a/f": "1", "a/b/g": "2", "x/h": "3", "mine/i": "4", "d/component.json": EMPTY},
        )
        for name, age_s in (("sha256-x.tmp.1", 100), ("sha256-x.tmp.2", 0)):
            staged = folder(tmp_path / "p" / "shared_assets" / name, {"f": "1"})
            time_s = staged.stat().st_mtime - age_s
            os.utime(staged, (time_s, time_s))
        opened = ModelPackage.open(root)
        opened.prune()
        assert not (tmp_path / "p/shared_assets/sha256-x.tmp.1").exists()
        assert (tmp_path / "p/shared_assets/sha256-x.tmp.2").exists()
        opened.remove_variant("c", "here")
        opened.remove_variant("c", "v")
        opened.prune()
        assert (tmp_path / "p/a/f").exists()  # with a/b in it, which is in use
        opened.set_variant("c", "w", '{"variant_directory": "x"}')
        opened.remove_component("d")
        opened.prune()
        assert sorted(p.name for p in (tmp_path / "p").iterdir()) == ["manifest.json", "mine", "shared_assets", "x"]


class TestReading:
    def test_names_and_counts(self, two_variants: str) -> None:
        context = ModelPackageContext(two_variants)
        assert context.get_schema_version() == 1
        assert (context.get_component_count(), context.get_component_names()) == (1, ["model"])
        assert context.get_variant_count("model") == 3
        assert context.get_variant_names("model") == ["cuda", "cpu", "late"]
        assert context.get_variant_ep_name("model", "cuda") == "CUDAExecutionProvider"
        for call in (context.get_variant_count, context.get_variant_names):
            with pytest.raises(RuntimeError, match=r"^Component model not found: none$"):
                call("none")
        with pytest.raises(RuntimeError, match=r"^Variant 'none' not found in component 'model'\.$"):
            context.get_variant_ep_name("model", "none")

    def test_the_first_variant_of_the_cpu_is_selected_and_runs(self, two_variants: str) -> None:
        options = ModelPackageOptions(distort.SessionOptions())
        selected = ModelPackageContext(two_variants).select_component("model", options)
        assert selected.get_selected_variant_name() == "cpu"
        assert selected.get_selected_variant_folder_path() == f"{two_variants}/cpu"
        session = selected.create_session()
        assert isinstance(session, distort.InferenceSession)
        assert session.get_providers() == ["CPUExecutionProvider"]
        np.testing.assert_array_equal(session.run(None, {"x": np.float32([1, 2])})[0], [3, 6])
        for call in (session.set_providers, session.enable_fallback):
            with pytest.raises(NotImplementedError, match="not supported for sessions created from a model package"):
                call()

    @pytest.mark.parametrize(
        "variant", [{}, {"ep": "CUDAExecutionProvider"}, {"ep": "CPUExecutionProvider", "device": "npu"}]
    )
    def test_no_variant_suits(self, tmp_path: Path, variant: dict[str, str]) -> None:
        context = ModelPackageContext(package(tmp_path / "p", {"components": {"c": {"variants": {"v": variant}}}}))
        options = ModelPackageOptions(distort.SessionOptions())
        with pytest.raises(RuntimeError, match="No suitable model variant found"):
            context.select_component("c", options)
        with pytest.raises(RuntimeError, match=r"^Component model not found\.$"):
            context.select_component("none", options)

    def session(
        self, tmp_path: Path, configuration: Any, options: distort.SessionOptions | None = None
    ) -> distort.InferenceSession:
        variant = {"ep": "CPUExecutionProvider", "executor_info": {"ort": configuration}}
        root = package(tmp_path / "p", {"components": {"c": {"variants": {"v": variant}}}})
        save_model(tmp_path / "p" / "v" / "model.onnx", 2.0)
        selected = ModelPackageContext(root).select_component("c", ModelPackageOptions(distort.SessionOptions()))
        return selected.create_session(options)

    def test_a_package_s_session_options(self, tmp_path: Path) -> None:
        wanted = {
            "session.intra_op_num_threads": "2",
            "session.graph_optimization_level": "enable_basic",
            "session.execution_mode": "sequential",
            "session.enable_mem_pattern": "false",
            "session.log_id": "named",
            "session.disable_prepacking": "1",
            "session.model_external_initializers_file_folder_path": ".",
        }
        session = self.session(tmp_path, {"model_file": "model.onnx", "session_options": wanted})
        options = session.get_session_options()
        assert options.intra_op_num_threads == 2
        assert options.graph_optimization_level == distort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        assert not options.enable_mem_pattern and options.logid == "named"
        assert options.get_session_config_entry("session.disable_prepacking") == "1"
        path = options.get_session_config_entry("session.model_external_initializers_file_folder_path")
        assert path == str(tmp_path / "p" / "v")

        own = distort.SessionOptions()
        own.intra_op_num_threads = 1
        session = self.session(tmp_path, {"model_file": "model.onnx", "session_options": wanted}, own)
        options = session.get_session_options()
        assert options.intra_op_num_threads == 1 and options.logid == ""
        assert options.get_session_config_entry("session.model_external_initializers_file_folder_path") == path
        with pytest.raises(RuntimeError, match="does not have configuration"):
            own.get_session_config_entry("session.model_external_initializers_file_folder_path")

    @pytest.mark.parametrize(
        ("configuration", "error", "text"),
        [
            ({}, C.Fail, "Selected variant 'v' has no executor_info"),
            ({"model_file": 1}, RuntimeError, "model_file must be a string for variant 'v' in component 'c'"),
            ({"model_file": "none.onnx"}, C.NoSuchFile, "File doesn't exist"),
            ({"model_file": "model.onnx", "session_options": []}, RuntimeError, "must be a JSON object"),
            ({"model_file": "model.onnx", "session_options": {"a": 1}}, RuntimeError, "entries must be strings"),
            (
                {"model_file": "model.onnx", "session_options": {"session.enable_profiling": "1"}},
                RuntimeError,
                "cannot be set in model package session options",
            ),
            (
                {"model_file": "model.onnx", "session_options": {"session.execution_mode": "1"}},
                C.InvalidArgument,
                "must be 'sequential' or 'parallel'; got '1'",
            ),
            (
                {"model_file": "model.onnx", "session_options": {"session.intra_op_num_threads": "1.5"}},
                C.InvalidArgument,
                "must be a base-10 int32; got '1.5'",
            ),
            ({"model_file": "model.onnx", "session_options": {"": "1"}}, C.InvalidArgument, "Config key is empty"),
            ({"model_file": "model.onnx", "provider_options": {"a": "1"}}, C.NotImplemented, "Cannot apply package"),
        ],
    )
    def test_configurations_that_make_no_session(
        self, tmp_path: Path, configuration: dict[str, Any], error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error, match=text):
            self.session(tmp_path, configuration)

    def test_a_selection_is_made_by_a_context_alone(self) -> None:
        with pytest.raises(TypeError, match="No constructor defined!"):
            ModelPackageComponentContext()
        with pytest.raises(TypeError, match="incompatible constructor arguments"):
            ModelPackageOptions(None)  # type: ignore[arg-type]


def test_the_write_modes() -> None:
    assert [(mode.name, int(mode)) for mode in ModelPackageWriteMode] == [("PRESERVE", 0), ("DENSE", 1)]
    assert str(ModelPackageWriteMode.DENSE) == "ModelPackageWriteMode.DENSE"


def test_authoring_imports_no_actors() -> None:
    code = "import sys, distort.model_package; print('distort.cluster' in sys.modules, 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
