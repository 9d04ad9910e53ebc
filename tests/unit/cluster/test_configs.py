"""Deployment files: their fields are those that KubeRay, Ray's autoscaler, Compose and Docker know, and every command
line in them is one that its program understands. What only a cloud or a registry can tell is listed in the README."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from testkit.checkout import ROOT
from testkit.command_lines import check

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's and MLflow's own, while their commands are imported
CONFIGS = ROOT / "cluster" / "configs"
KUBERAY = json.loads((ROOT / "tests" / "testkit" / "kuberay_v1.json").read_text())
MANIFESTS = sorted(CONFIGS.glob("kube*.yaml"))
RAY_UP = sorted(CONFIGS.glob("ray-up-*.yaml"))
RAY_VERSION = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE).group(1)


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


def cluster_specs() -> list[dict]:
    found = []
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] == "RayCluster":
                found.append(document["spec"])
            elif document["kind"] == "RayJob":
                found.append(document["spec"]["rayClusterSpec"])
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kuberay_knows_every_field(path):
    for document in documents(path):
        assert {"apiVersion", "kind", "metadata"} <= set(document)
        if document["apiVersion"] == "ray.io/v1":
            assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
            jsonschema.validate(document["spec"], {**KUBERAY[document["kind"]], "$defs": KUBERAY["$defs"]})


def test_the_field_list_refuses_what_kuberay_does_not_know():
    spec = documents(CONFIGS / "kuberay-cluster.yaml")[0]["spec"]
    spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(jsonschema.ValidationError, match="imagee"):
        jsonschema.validate(spec, {**KUBERAY["RayCluster"], "$defs": KUBERAY["$defs"]})


@pytest.mark.parametrize("spec", cluster_specs(), ids=lambda spec: spec["workerGroupSpecs"][0]["groupName"])
def test_clusters_are_locked_current_and_consistent(spec):
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == RAY_VERSION
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            assert container["resources"]["requests"] == container["resources"]["limits"]
            if "nvidia.com/gpu" in container["resources"]["limits"]:
                assert "/dev/shm" in {mount["mountPath"] for mount in container["volumeMounts"]}
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def start_words(parameters: dict[str, str]) -> str:
    return " ".join(f"--{name}={value}" for name, value in parameters.items())


def manifest_commands() -> list[str]:
    commands = [f"ray start --head {start_words(spec['headGroupSpec']['rayStartParams'])}" for spec in cluster_specs()]
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] == "RayJob":
                commands.append(document["spec"]["entrypoint"])
            if document["kind"] == "Deployment":
                for container in document["spec"]["template"]["spec"]["containers"]:
                    commands.append(shlex.join([*container["command"], *container["args"]]))
    compose = yaml.safe_load((CONFIGS / "compose.yaml").read_text())
    commands += [service["command"] for service in compose["services"].values()]
    for path in RAY_UP:
        config = documents(path)[0]
        for line in [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]:
            commands += [part.strip() for part in line.split("&&") if re.search(r"\bray (start|stop)\b", part)]
    return sorted(set(commands))


@pytest.mark.parametrize("command", manifest_commands())
def test_every_command_is_understood_by_its_program(command, monkeypatch):
    assert check(command, monkeypatch)


@pytest.mark.parametrize("path", RAY_UP, ids=lambda path: path.name)
def test_ray_up_accepts_its_files(path):
    import ray
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = documents(path)[0]
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    validate_config(prepare_config(config))
    for target in config["file_mounts"].values():
        assert target.startswith("~") or (ROOT / target).is_file(), f"{path.name} ships {target}, which does not exist"
    everything = [line for name, lines in config.items() if name.endswith("commands") for line in lines]
    for line in everything:
        subprocess.run(["bash", "-n", "-c", line], check=True)
    starts = [line for line in everything if "ray start" in line]
    assert starts and all("RAY_AUTH_MODE=token" in line for line in starts)


def test_compose_is_consistent_and_listens_on_loopback_only():
    compose = yaml.safe_load((CONFIGS / "compose.yaml").read_text())
    known = {"image", "environment", "secrets", "volumes", "shm_size", "restart", "command", "ports", "depends_on",
             "deploy", "user"}  # fmt: skip
    ports = [str(port) for service in compose["services"].values() for port in service.get("ports", [])]
    assert len(ports) > 1 and all(port.startswith("127.0.0.1:") for port in ports)
    for service in compose["services"].values():
        assert set(service) <= known
        assert set(service.get("secrets", [])) <= set(compose["secrets"])
    assert compose["services"]["worker"]["environment"]["RAY_AUTH_MODE"] == "token"
    assert "mlflow:*" in compose["services"]["mlflow"]["command"]


def test_dockerfile_copies_what_exists():
    text = (CONFIGS / "Dockerfile").read_text().replace("\\\n", " ")
    instructions = [line for line in text.splitlines() if line and not line.startswith("#")]
    known = {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "ENV", "USER"}
    assert {line.split()[0] for line in instructions} <= known
    copied = [name for line in instructions if line.startswith("COPY") for name in line.split()[1:-1]]
    assert {"pipeline", "focusvit", "transfer", "cluster"} <= {name.rstrip("/") for name in copied}
    for name in copied:
        assert (ROOT / name).exists(), f"the Dockerfile copies {name}, which does not exist"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_shell(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
