"""Deployment files read by programs of others: Kubernetes' own schemas, a Compose implementation, pip's parser.

None of them needs a cluster, a daemon or the network.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from testkit.checkout import ROOT
from testkit.command_lines import check

pytestmark = [pytest.mark.soak, pytest.mark.filterwarnings("ignore")]
CONFIGS = ROOT / "cluster" / "configs"
KUBERNETES = "1.31"


def kubernetes_objects() -> list:
    """Every object of Kubernetes itself, and each pod that KubeRay would make of its templates."""
    found = []
    for path in sorted(CONFIGS.glob("kube*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if not document["apiVersion"].startswith("ray.io/"):
                found.append(pytest.param(document, id=f"{path.stem}-{document['kind']}"))
                continue
            spec = document["spec"].get("rayClusterSpec", document["spec"])
            for number, group in enumerate([spec["headGroupSpec"], *spec["workerGroupSpecs"]]):
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **group["template"]}
                found.append(pytest.param(pod, id=f"{path.stem}-pod{number}"))
    return found


@pytest.mark.parametrize("manifest", kubernetes_objects())
def test_kubernetes_knows_every_field(manifest):
    import kubernetes_validate

    assert kubernetes_validate.validate(manifest, KUBERNETES, strict=True) == KUBERNETES


def test_kubernetes_refuses_a_field_that_it_does_not_know():
    import kubernetes_validate

    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [], "volumess": []}}
    with pytest.raises(kubernetes_validate.ValidationError, match="volumess"):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def compose_config(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess:
    """`podman-compose config`: reads, merges and substitutes as `up` would; asks podman for nothing but its version."""
    (tmp_path / "podman").write_text("#!/bin/sh\necho podman version 5.0.0\n")
    (tmp_path / "podman").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "DATA"}
    environment |= {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", **variables}
    command = [sys.executable, "-m", "podman_compose", "-f", str(CONFIGS / "compose.yaml"), "config"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_compose_reads_its_file(tmp_path, monkeypatch):
    done = compose_config(tmp_path, DATA="/somewhere")
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"head", "worker", "mlflow"}
    for service in services.values():
        words = service["command"]
        assert check(words if isinstance(words, str) else shlex.join(words), monkeypatch)
    assert services["head"]["volumes"] == services["worker"]["volumes"] == ["/somewhere:/somewhere"]


def test_compose_asks_for_the_data_folder(tmp_path):
    done = compose_config(tmp_path)
    assert done.returncode != 0 and "set DATA to a folder" in done.stderr


def pip_commands() -> list[str]:
    texts = [path.read_text().replace("\\\n", " ") for path in (CONFIGS / "Dockerfile", *CONFIGS.glob("*.sh"))]
    for path in CONFIGS.glob("ray-up-*.yaml"):
        texts += [
            line for value in yaml.safe_load(path.read_text()).values() if isinstance(value, list) for line in value
        ]
    found = [one for text in texts for one in re.findall(r"\bpip (?:install|wheel|download)[^&|;\n]*", text)]
    return sorted({line.strip() for line in found})


@pytest.mark.parametrize("command", pip_commands())
def test_pip_understands_its_commands(command):
    from pip._internal.commands import create_command

    words = shlex.split(command)[1:]
    options, places = create_command(words[0]).parse_args(words[1:])
    assert places or options.requirements or options.editables
