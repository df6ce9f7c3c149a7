"""The files of examples/cluster, as far as they can be looked at without a cluster."""

from __future__ import annotations

import ast
import copy
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import onnx.parser
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "cluster"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def options_of_program() -> set[str]:
    """What run_model.py takes."""
    tree = ast.parse((FOLDER / "run_model.py").read_text())
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_argument")
    ]
    return {ast.literal_eval(call.args[0]) for call in calls}


def test_ray_takes_its_cluster() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = documents("ray-cluster.yaml")
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)  # as `ray up` does, with Ray's schema
    assert prepared["provider"]["head_ip"] not in prepared["provider"]["worker_ips"]
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = config[commands][-1]
        assert "RAY_AUTH_MODE=token" in start and "--disable-usage-stats" in start
        subprocess.run(["bash", "-n", "-c", start], check=True)
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert (FOLDER / config["file_mounts"]["~/distort"] / "pyproject.toml").exists()


def test_the_manifest_has_the_shape_of_kuberays() -> None:
    cluster, job = documents("kuberay.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    spec = cluster["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert float(container["resources"]["limits"]["cpu"]).is_integer()
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_versions_are_those_that_distort_takes() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = next(r for r in map(Requirement, project["dependencies"]) if r.name == "ray")
    text = "".join(path.read_text() for path in FOLDER.iterdir())
    versions = set(re.findall(r"ray\[default\]==([\d.]+)|rayproject/ray:([\d.]+)-|rayVersion: ([\d.]+)", text))
    found = {next(filter(None, groups)) for groups in versions}
    assert len(found) == 1 and all(version in wanted.specifier for version in found)
    assert set(re.findall(r"distort:([\d.]+\d)", text)) == {project["version"]}


@pytest.mark.parametrize("name", ["kuberay.yaml", "slurm.sh", "README.md"])
def test_the_program_takes_what_it_is_given(name: str) -> None:
    text = (FOLDER / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if re.search(r"python\S* \S*run_model\.py", line)]
    assert lines
    for line in lines:
        assert set(re.findall(r"(--[a-z]+)", line.partition("run_model.py")[2])) <= options_of_program()


def test_the_script_is_one_for_bash() -> None:
    subprocess.run(["bash", "-n", str(FOLDER / "slurm.sh")], check=True)
    text = (FOLDER / "slurm.sh").read_text()
    assert text.index("#SBATCH") < text.index("set -euo")  # options after the first command are not read
    assert set(re.findall(r"\$\{?(SLURM_\w+)", text)) <= {
        "SLURM_JOB_ID",
        "SLURM_JOB_NODELIST",
        "SLURM_JOB_NUM_NODES",
        "SLURM_CPUS_PER_TASK",
        "SLURM_GPUS_ON_NODE",
        "SLURM_SUBMIT_DIR",
    }


def test_options_of_ray_start_exist() -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    text = "".join((FOLDER / name).read_text() for name in ("ray-cluster.yaml", "slurm.sh")).replace("\\\n", " ")
    commands = re.findall(r"ray start ((?:[^\n;&]|\n {4}--)*)", text)
    assert len(commands) == 4
    for command in commands:
        assert set(re.findall(r"(--[a-z-]+)", command)) <= known


def test_feeds_are_made_for_every_kind_of_input() -> None:
    import importlib.util

    import distort

    spec = importlib.util.spec_from_file_location("run_model", FOLDER / "run_model.py")
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    kinds = ("float", "double", "float16", "int64", "int32", "uint8", "bool")
    inputs = ", ".join(f"{kind}[N,2] x{kind}" for kind in kinds)
    outputs = inputs.replace(" x", " y")
    nodes = " ".join(f"y{kind} = Identity(x{kind})" for kind in kinds)
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({inputs}) => ({outputs}) {{ {nodes} }}'
    session = distort.InferenceSession(onnx.parser.parse_model(text).SerializeToString())
    feeds = {argument.name: program.feed(argument, {"N": 3}) for argument in session.get_inputs()}
    for result in session.run(None, feeds):
        assert result.shape == (3, 2)
