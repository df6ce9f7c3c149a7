"""Packages that distort and onnxruntime write and read, compared. onnxruntime is an optional oracle."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx.parser
import pytest

import distort
from distort import model_package

CPU = "CPUExecutionProvider"
ABSENT = "sha256:" + "0" * 64
#: of a folder with a file f that has the text 1
ONE = "sha256:1d78474aadd198b6350a57f173d5a77529d7fea760958dca22f86bd59670fa44"
#: where in onnxruntime's source an error was raised, which is no part of its text
_PLACE = re.compile(r"(/onnxruntime_src\S+ .*?\)(::<lambda\(.*?\)>)? |\w+\.cc:\d+ \w+ )(?=[A-Z'])")


@pytest.fixture(scope="module")
def rival() -> Any:
    found = pytest.importorskip("onnxruntime")
    if not hasattr(found, "ModelPackage"):
        pytest.skip("this onnxruntime has no model packages")
    return found


@pytest.fixture(scope="module")
def ours() -> Any:
    names = {name: getattr(model_package, name) for name in model_package.__all__}
    return SimpleNamespace(**names, SessionOptions=distort.SessionOptions)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif text.startswith("->"):
            path.symlink_to(text.removeprefix("->"))
        else:
            path.write_text(text)


def save_model(path: Path, factor: float) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        agraph (float[2] x) => (float[2] y) <float w = {{{factor}}}> {{ y = Mul(x, w) }}"""
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else b"/" for p in sorted(root.rglob("*"))}


def outcome(call: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """What a call returns, or the class and the text of what it raises."""
    try:
        return "", call(*arguments)
    except Exception as error:  # noqa: BLE001  # whatever it is, it has to be the rival's
        return type(error).__name__, _PLACE.sub("", str(error)).strip()


def info_of(opened: Any) -> dict[str, Any]:
    info: dict[str, Any] = opened.get_info()
    info["shared_assets"].sort(key=lambda asset: asset["uri"])  # onnxruntime has pending ones in a hash table's order
    return info


def describe(api: Any, root: str, **rules: bool) -> tuple[str, Any]:
    return outcome(lambda: info_of(api.ModelPackage.open(root, **rules)))


def manifest(**fields: Any) -> str:
    return json.dumps({"schema_version": "1.0", "components": {}, **fields})


def one_variant(**fields: Any) -> str:
    return manifest(components={"c": {"variants": {"v": fields}}})


# -- reading

PACKAGES: dict[str, dict[str, str]] = {
    "empty": {"manifest.json": manifest()},
    "nothing": {},
    "no json": {"manifest.json": "{"},
    "a list": {"manifest.json": "[]"},
    "byte order mark": {"manifest.json": "\ufeff" + manifest()},
    "descriptions": {
        "manifest.json": manifest(package_name="n", package_version="2", description="d", additional_metadata=[1e16])
    },
    "no components": {"manifest.json": '{"schema_version":"1.0"}'},
    "unknown field": {"manifest.json": manifest(more=1)},
    "unknown field of a minor": {"manifest.json": manifest(schema_version="1.2", more=1)},
    "name is a number": {"manifest.json": manifest(package_name=1, layout=1)},
    "layout": {"manifest.json": manifest(layout="loose")},
    "inline": {"manifest.json": one_variant(ep=CPU, device="cpu", compatibility_string="x"), "v/": ""},
    "a file for a folder": {"manifest.json": one_variant(), "v": ""},
    "declared": {"manifest.json": one_variant(variant_directory="a/b"), "a/b/": ""},
    "declared and missing": {"manifest.json": one_variant(variant_directory="a/b")},
    "declared above": {"manifest.json": one_variant(variant_directory="../x")},
    "variant is a list": {"manifest.json": manifest(components={"c": {"variants": {"v": []}}})},
    "variant's field": {"manifest.json": one_variant(more=1)},
    "variant's ep": {"manifest.json": one_variant(ep=None)},
    "variant's name": {"manifest.json": manifest(components={"c": {"variants": {"../x": {}}}})},
    "executor info": {
        "manifest.json": one_variant(executor_info={"ort": "o.json", "other": {"b": 1.0, "a": "é"}}),
        "v/o.json": '{ "a" : 1 }\n',
    },
    "executor info is missing": {"manifest.json": one_variant(executor_info={"ort": "o.json"}), "v/": ""},
    "executor info without a folder": {"manifest.json": one_variant(executor_info={"ort": "o.json"})},
    "executor info is no json": {"manifest.json": one_variant(executor_info={"ort": "o.json"}), "v/o.json": "{"},
    "executor info is a number": {"manifest.json": one_variant(executor_info={"ort": 1})},
    "external": {
        "manifest.json": manifest(components={"c": "d", "e": "d/e.json"}),
        "d/component.json": '{"component_name":"x","variants":{"v":{}},"additional_metadata":1}',
        "d/e.json": '{"variants":{}}',
        "d/v/": "",
    },
    "external is missing": {"manifest.json": manifest(components={"c": "d"})},
    "external without its file": {"manifest.json": manifest(components={"c": "d"}), "d/": ""},
    "external is no component": {"manifest.json": manifest(components={"c": "d"}), "d/component.json": "{}"},
    "component is a number": {"manifest.json": manifest(components={"c": 1}, layout="loose")},
    "assets": {
        "manifest.json": manifest(shared_assets={ABSENT: "given"}),
        "given/f": "1",
        f"shared_assets/{ABSENT.replace(':', '-')}/f": "2",
        f"shared_assets/sha256-{'1' * 64}/f": "3",
        "shared_assets/other/f": "4",
    },
    "asset's key": {"manifest.json": manifest(shared_assets={"sha256:1": "x"})},
    "asset above": {"manifest.json": manifest(shared_assets={ABSENT: "../x"})},
    "asset is the package": {"manifest.json": manifest(shared_assets={ABSENT: "."})},
    "asset through a link": {"manifest.json": manifest(shared_assets={ABSENT: "l/x"}), "d/x/": "", "l": "->d"},
    "assets are a link": {"manifest.json": manifest(), "d/": "", "shared_assets": "->d"},
    "link inside": {"manifest.json": one_variant(), "d/": "", "v": "->d"},
    "link outside": {"manifest.json": one_variant(), "v": "->.."},
    "link to nothing": {"manifest.json": one_variant(), "v": "->none"},
    "installed": {
        "manifest.json": manifest(layout="installed", components={"c": "../p/d.json"}, shared_assets={ABSENT: "/x"}),
        "d.json": '{"variants":{"v":{"variant_directory":".."}}}',
    },
}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_read_alike(rival: Any, ours: Any, tmp_path: Path, name: str) -> None:
    write(tmp_path / "p", PACKAGES[name])
    (tmp_path / "p").mkdir(exist_ok=True)
    root = str(tmp_path / "p")
    for rules in (
        {},
        {"allow_external_paths": True},
        {"strict_unknown_fields": False},
        {"follow_symlinks": False},
    ):
        assert describe(ours, root, **rules) == describe(rival, root, **rules)

    def context(api: Any) -> tuple[str, Any]:
        def read() -> list[Any]:
            opened = api.ModelPackageContext(root)
            names = opened.get_component_names()
            variants = [(n, v) for n in names for v in opened.get_variant_names(n)]
            counts = [opened.get_schema_version(), opened.get_component_count(), *map(opened.get_variant_count, names)]
            return [names, variants, counts, [opened.get_variant_ep_name(*v) for v in variants]]

        return outcome(read)

    assert context(ours) == context(rival)


@pytest.mark.parametrize(
    "version",
    [1, 0, 2, -1, 1.0, "1", "1.", ".1", "1.0.0", "01.00", " 1.0", "+1.0", "1.99", "2.0", "", None, True, 2**64 - 1],
)
def test_versions(rival: Any, ours: Any, tmp_path: Path, version: Any) -> None:
    write(tmp_path, {"manifest.json": manifest(schema_version=version)})
    assert describe(ours, str(tmp_path)) == describe(rival, str(tmp_path))


@pytest.mark.parametrize("follow_symlinks", [True, False])
@pytest.mark.parametrize("layout", ["portable", "installed"])
def test_references_mean_the_same(rival: Any, ours: Any, tmp_path: Path, layout: str, follow_symlinks: bool) -> None:
    root = tmp_path / "p"
    files = {"d/f": "1", "in": "->d", "out": "->..", f"shared_assets/{ABSENT.replace(':', '-')}/f": "2"}
    write(root, {"manifest.json": manifest(layout=layout), **files})
    packages = [api.ModelPackage.open(str(root), follow_symlinks=follow_symlinks) for api in (ours, rival)]
    contexts = [api.ModelPackageContext(str(root)) for api in (ours, rival)]
    paths = ["", ".", "d", "d/", "d//f", "./d/./f", "d/..", "none/../d", "none/.", "../p", "/etc", "//", "in/f", "in/x"]
    paths += ["out", "out/x", "a\\b", "C:/x", "..x", "d\0x", "sha256:1"]
    paths += [ABSENT + end for end in ("", "/", "/f", "/x", "/../x", "//etc", "x")] + [ABSENT.replace("0", "1")]
    for path in paths:
        for base in (None, "", str(root / "d"), str(tmp_path), f"{root}/d/../d"):
            for must_exist in (True, False):
                one, other = (outcome(p.resolve_string_ref, path, base, must_exist) for p in packages)
                assert one == other, (path, base, must_exist)
                one, other = (outcome(c.resolve_string_ref, path, base, must_exist) for c in contexts)
                assert one == other, (path, base, must_exist)


def test_hashes_are_equal(rival: Any, ours: Any, tmp_path: Path) -> None:
    names = ["a", "a/b", "a-b/c", "a.b", "A", "é", "z z", "sub/deep/er", "sub/e'm\"p", "1\n2"]
    write(tmp_path / "d", {f"{name.replace('a/b', 'x/b')}": name * 1000 for name in names})
    write(tmp_path / "d", {"empty/": "", "big": "0123456789" * 300_000})
    write(tmp_path / "linked", {"f": "->../d/A"})
    (tmp_path / "link").symlink_to("d")
    for name in ("d", "d/", "empty", "link", "linked", "none", "d/big", ""):
        path = f"{tmp_path}/{name}" if name else ""
        one, other = (outcome(api.ModelPackage.compute_directory_hash, path) for api in (ours, rival))
        assert one == other, name


# -- writing


class Twins:
    """The same calls on both, each in a folder of its own that is called the same."""

    def __init__(self, rival: Any, ours: Any, base: Path) -> None:
        self.apis, self.bases = (ours, rival), (base / "one", base / "two")
        self.packages: list[Any] = [None, None]

    def write(self, files: dict[str, str]) -> None:
        for base in self.bases:
            write(base, files)

    def new(self) -> None:
        self.packages = [api.ModelPackage() for api in self.apis]

    def open(self, name: str, **rules: bool) -> None:
        self.packages = [
            api.ModelPackage.open(str(base / name), **rules) for api, base in zip(self.apis, self.bases, strict=True)
        ]

    def call(self, method: str, *arguments: Any) -> Any:
        """Paths start with ``@``, which is the folder. Mode is 0 or 1."""
        got = []
        for api, base, opened in zip(self.apis, self.bases, self.packages, strict=True):
            given = [a.replace("@", str(base)) if isinstance(a, str) else a for a in arguments]
            if method == "commit":
                given[1:] = [api.ModelPackageWriteMode(mode) for mode in given[1:]]
            answer = outcome(getattr(opened, method), *given)
            text = re.sub(r"\.tmp\.[0-9a-f]{16}", ".tmp", repr(answer).replace(str(base), "@"))
            got.append(re.sub(r"failed: \w[\w ]*", "failed", text))
        assert got[0] == got[1], (method, arguments)
        return got[0]

    def check(self) -> None:
        infos = []
        for opened, base in zip(self.packages, self.bases, strict=True):
            info = info_of(opened)
            # onnxruntime tells an older one after some commits; what it writes is right, and compared
            del info["additional_metadata_json"]
            infos.append(json.dumps(info).replace(str(base), "@"))
        assert infos[0] == infos[1]

    def check_files(self) -> None:
        one, other = map(tree, self.bases)
        assert one == other

    def crosswise(self, name: str) -> None:
        """Each reads what the other wrote, as it reads its own."""
        for base in self.bases:
            one, other = (describe(api, str(base / name)) for api in self.apis)
            assert one == other and not one[0], one


@pytest.fixture
def twins(rival: Any, ours: Any, tmp_path: Path) -> Iterator[Twins]:
    yield Twins(rival, ours, tmp_path)


def test_a_package_from_nothing(twins: Twins) -> None:
    twins.write({"asset/f": "1", "asset/sub/g": "2", "asset/empty/": ""})
    twins.new()
    for call in (
        ("commit",),
        ("prune",),
        ("set_component_external", "c", "c"),
        ("set_metadata", "name", None, "what it is"),
        ("set_component_inline", "c", '{"variants":{"first":{}},"component_name":"c"}'),
        ("set_variant", "c", "v", '{"ep":"CPUExecutionProvider","device":"cpu","variant_directory":"none"}'),
        ("set_variant", "c", "v", '{"ep":"CPUExecutionProvider","device":"cpu"}'),
        ("set_variant_executor_info_inline", "c", "v", "ort", '{"model_file":"m.onnx","n":[1.50,1e15,"\\u00e9"]}'),
        ("set_additional_metadata_json", "manifest", None, None, '{"k":{}}'),
        ("add_shared_asset", "@/asset"),
        ("commit", "@/p"),
        ("commit", "@/p"),
        ("set_metadata", "", "1.0"),
        ("set_layout", "installed"),
        ("commit",),
        ("commit", "@/q/r", 1),
    ):
        twins.call(*call)
        twins.check()
        twins.check_files()
    twins.crosswise("p")
    twins.crosswise("q/r")


def test_components_in_files(twins: Twins) -> None:
    files = {
        "manifest.json": manifest(components={"c": "d", "i": {"variants": {"q": {}}}}),
        "d/component.json": '{"variants":{"v":{"executor_info":{"ort":"o.json"}}}}',
        "d/v/o.json": '{"model_file": "m.onnx"}',
        "q/f": "1",
        "mine/f": "2",
    }
    twins.write({f"p/{name}": text for name, text in files.items()})
    twins.open("p")
    for call in (
        ("get_component_json", "c"),
        ("get_variant_json", "c", "v"),
        ("commit", None, 1),
        ("set_variant_executor_info_inline", "c", "v", "ort", '{"model_file":"m.onnx"}'),
        ("set_component_external", "n", "new/er/x.json"),
        ("set_component_external", "m", "mine"),
        ("set_variant", "n", "w", '{"ep":"x"}'),
        ("set_variant", "m", "w", '{"ep":"x"}'),
        ("commit",),
        ("commit", None, 1),
        ("set_variant", "c", "w", "{}"),
        ("commit", None, 0),
        ("remove_variant", "i", "q"),
        ("prune",),
        ("remove_component", "c"),
        ("prune",),
        ("remove_component", "n"),
        ("prune",),
        ("commit",),
        ("set_component_inline", "m", '{"variants":{}}'),
        ("prune",),
    ):
        twins.call(*call)
        twins.check()
        twins.check_files()
        twins.crosswise("p")


def test_assets_and_layouts(twins: Twins) -> None:
    twins.write({"asset/f": "1", "more/f": "2", "p/manifest.json": manifest(), "p/given/f": "3"})
    (uri,) = {model_package.ModelPackage.compute_directory_hash(str(base / "asset")) for base in twins.bases}
    twins.open("p")
    for call in (
        ("add_shared_asset", "@/asset", None, False),
        ("add_shared_asset", "@/asset", "sha256:1"),
        ("add_shared_asset", "@/none"),
        ("add_shared_asset", "@/asset/f"),
        ("add_shared_asset", "@/asset", uri),
        ("resolve_asset_uri", uri),
        ("resolve_asset_uri", ABSENT),
        ("resolve_string_ref", uri + "/f", None, True),
        ("commit",),
        ("add_shared_asset", "@/asset"),
        ("commit",),
        ("commit", "@/q"),
        ("remove_shared_asset", ABSENT),
        ("remove_shared_asset", uri),
        ("set_layout", "installed"),
        ("add_shared_asset", "@/p/given", None, False),
        ("add_shared_asset", "@/p/given", None, True),
        ("add_shared_asset", "@/more", None, True),
        ("set_layout", "none"),
        ("commit", "@/r"),
        ("commit",),
    ):
        twins.call(*call)
        twins.check()
    twins.crosswise("q")
    twins.crosswise("r")


def random_call(chance: random.Random) -> tuple[Any, ...]:
    component, variant, key = (chance.choice(names) for names in (("c", "d", "e"), ("v", "w"), ("ort", "x")))
    path = chance.choice(["a", "a/b", "f/f.json", "f/none", "../x", "/x", "", "v"])
    asset = chance.choice(["@/one", "@/two", "@/none"])
    text = chance.choice(
        [
            *("{", "[]", "{}", "null", '{"a":1}', '{"variants":{}}', '{"variants":{"v":{"ep":"x"},"w":{}}}'),
            *(
                '{"ep":"CPU","device":null}',
                '{"ep":"CPU"}',
                '{"variant_directory":"a"}',
                '{"variant_directory":"none"}',
            ),
            *('{"executor_info":{"x":{}}}', '{"executor_info":{"x":"none"}}', '{"executor_info":{"x":[]}}'),
        ]
    )
    return chance.choice(
        [
            ("set_component_inline", component, text),
            ("set_component_external", component, path),
            ("remove_component", component),
            ("set_variant", component, variant, text),
            ("remove_variant", component, variant),
            ("set_variant_executor_info_inline", component, variant, key, text),
            # no folder, nor a file that is no JSON: after such an error, onnxruntime's later calls fail too
            ("set_variant_executor_info_external", component, variant, key, chance.choice(["f", "none", "../x", "/x"])),
            ("remove_variant_executor_info", component, variant, key),
            ("set_additional_metadata_json", "manifest", None, None, text),
            ("set_additional_metadata_json", "component", component, None, text),
            ("set_metadata", path, None, path),
            ("get_component_json", component),
            ("get_variant_json", component, variant),
            ("resolve_string_ref", path),
            ("add_shared_asset", asset),
            ("add_shared_asset", asset, ABSENT),
            ("remove_shared_asset", chance.choice([ABSENT, ONE])),
            ("resolve_string_ref", chance.choice([ABSENT, ONE]) + chance.choice(["", "/f", "/../f"])),
            ("prune",),
            ("commit",),
            ("commit", None, 1),
        ]
    )


@pytest.mark.parametrize("seed", range(40))
def test_calls_in_any_order(twins: Twins, seed: int) -> None:
    """Answers, errors, and files agree, whatever is called."""
    chance = random.Random(seed)
    files = {"manifest.json": manifest(components={"c": "a"}), "a/component.json": '{"variants":{"v":{}}}'}
    files |= {"a/v/f": "1", "a/b/": "", "f/f.json": '{"variants":{"w":{"ep":"CPU"}}}', "v/": ""}
    twins.write({"one/f": "1", "two/f": "2", **{f"p/{name}": text for name, text in files.items()}})
    twins.open("p")
    for _ in range(40):
        twins.call(*random_call(chance))
        if not (twins.bases[1] / "p").exists():
            # onnxruntime's prune takes the package itself, where a component's file had been to be in its folder
            assert (twins.bases[0] / "p" / "manifest.json").exists()
            return
        twins.check()
        twins.check_files()
    opened = [outcome(api.ModelPackage.open, str(base / "p"))[0] for api in twins.apis for base in twins.bases]
    assert len(set(opened)) == 1


# -- selecting and running


def selected(api: Any, root: str, options: Any = None) -> tuple[str, Any]:
    def run() -> list[Any]:
        context = api.ModelPackageContext(root)
        chosen = context.select_component("c", api.ModelPackageOptions(options or api.SessionOptions()))
        answer = [chosen.get_selected_variant_name(), chosen.get_selected_variant_folder_path()]
        session = chosen.create_session(options)
        result = session.run(None, {"x": np.float32([1, 2])})[0].tolist()
        return [*answer, result, session.get_providers(), session.get_session_options().intra_op_num_threads]

    return outcome(run)


@pytest.mark.parametrize(
    "variants",
    [
        {},
        {"a": {"ep": CPU}},
        {"a": {"ep": "CUDAExecutionProvider"}, "b": {"ep": CPU}, "c": {"ep": CPU}},
        {"a": {}, "b": {"ep": CPU, "compatibility_string": "x"}, "c": {"ep": CPU}},
        {"a": {"ep": CPU, "device": "gpu"}, "b": {"ep": CPU, "device": "CPU"}},
        {"a": {"ep": CPU, "device": "npu"}},
        {"a": {"ep": CPU, "device": ""}},
        {"a": {"ep": "cpuexecutionprovider"}},
    ],
)
@pytest.mark.parametrize("folders", [True, False])
def test_the_same_variant_is_selected(
    rival: Any, ours: Any, tmp_path: Path, variants: dict[str, dict[str, str]], folders: bool
) -> None:
    bodies = {}
    for position, (name, body) in enumerate(variants.items()):
        file = "model.onnx" if folders else f"m/{name}.onnx"
        save_model(tmp_path / (f"{name}/model.onnx" if folders else file), 2.0 + position)
        bodies[name] = {**body, "executor_info": {"ort": {"model_file": file}}}
    write(tmp_path, {"manifest.json": manifest(components={"c": {"variants": bodies}})})
    assert selected(ours, str(tmp_path)) == selected(rival, str(tmp_path))
    assert (
        selected(ours, str(tmp_path), ours.SessionOptions())[1]
        == selected(rival, str(tmp_path), rival.SessionOptions())[1]
    )


@pytest.mark.parametrize(
    "configuration",
    [
        {},
        [],
        {"model_file": 1},
        {"model_file": ""},
        {"model_file": "../model.onnx"},
        {"model_file": "none.onnx"},
        {"model_file": "model.onnx", "more": 1},
        *(
            {"model_file": "model.onnx", "session_options": options}
            for options in (
                *([], "x", None, {"a": 1}, {"a\0b": "1"}, {"": "1"}, {"a" * 1025: "1"}, {"a": "1"}),
                {"session.intra_op_num_threads": "2"},
                *({"session.intra_op_num_threads": text} for text in ("", "x", "1.5", "99999999999", "+1", " 1")),
                *({"session.enable_cpu_mem_arena": text} for text in ("0", "true", "True", "x")),
                *({"session.execution_mode": text} for text in ("sequential", "ORT_SEQUENTIAL", "1")),
                *({"session.graph_optimization_level": text} for text in ("enable_basic", "Enable_All", "0")),
                *({key: "1"} for key in ("session.enable_profiling", "session.optimized_model_filepath")),
                *({"session.model_external_initializers_file_folder_path": text} for text in (".", "none", "../..")),
            )
        ),
        *({"model_file": "model.onnx", "provider_options": options} for options in ({}, [], {"a": 1}, {"a": "1"})),
    ],
)
def test_configurations_of_a_session(rival: Any, ours: Any, tmp_path: Path, configuration: Any) -> None:
    save_model(tmp_path / "v" / "model.onnx", 2.0)
    variant = {"ep": CPU, "executor_info": {"ort": configuration if isinstance(configuration, dict) else "o.json"}}
    write(tmp_path, {"manifest.json": one_variant(**variant), "v/o.json": json.dumps(configuration)})
    assert selected(ours, str(tmp_path)) == selected(rival, str(tmp_path))
