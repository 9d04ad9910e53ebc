"""Real MLflow servers, plain, with users, and with a name they do not know; README's journeys, typed literally."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import requests

from cluster.doctor.services import check_tracking
from pipeline.shards.dataset import open_dataset
from pipeline.sources.embedded import write_shapes
from testkit.checkout import ROOT
from testkit.mlflow_server import MlflowServer
from testkit.on_cluster import Cluster
from testkit.ray_head import BIN, RayHead, free_ports
from testkit.readme import blocks

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]  # a journey is up to five jobs, each with a start of its own
BLOCKS = blocks(ROOT / "cluster" / "README.md") | blocks(ROOT / "cluster" / "DEPLOYMENT.md")
PASSWORD = "correct-horse-battery-staple"


def test_doctor_and_a_plain_server(tmp_path):
    with MlflowServer(tmp_path) as server:
        assert check_tracking(server.url)[0].found.endswith("is reachable and writable")
    assert "nothing answers" in check_tracking(server.url)[0].found


def test_doctor_and_a_server_that_does_not_know_its_name(tmp_path):
    with MlflowServer(tmp_path, "--allowed-hosts", "runs.example") as server:
        found = check_tracking(server.url)[0]
        assert found.level == "broken" and "refuses the host name 127.0.0.1" in found.found
        assert '--allowed-hosts "127.0.0.1,127.0.0.1:*"' in found.fix


def test_a_server_with_users(tmp_path, monkeypatch):
    secrets = {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "k" * 64}
    with MlflowServer(tmp_path, "--app-name", "basic-auth", environment=secrets) as server:
        assert "asks for a user and password" in check_tracking(server.url)[0].found
        body = {"username": "reviewer", "password": "another-long-password"}
        url = f"{server.url}/api/2.0/mlflow/users/create"
        assert requests.post(url, json=body, auth=("admin", PASSWORD), timeout=20).status_code == 200
        for user, password in (("admin", PASSWORD), ("reviewer", "another-long-password")):
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            assert check_tracking(server.url)[0].level == "ok"
        # A run of that user, through our own tracking module.
        from focusvit.runs.tracker import Tracker

        with Tracker.open(server.url, "focusvit", "one") as tracker:
            tracker.params({"optim.lr": 1e-3})
            run_id = tracker.run_id
        auth = ("reviewer", "another-long-password")
        read = requests.get(f"{server.url}/api/2.0/mlflow/runs/get", params={"run_id": run_id}, auth=auth, timeout=20)
        assert read.json()["run"]["info"]["status"] == "FINISHED"
        assert PASSWORD not in read.text and "another-long-password" not in read.text


def bash(script: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture
def images(tmp_path):
    write_shapes(tmp_path / "data" / "images", train_per_class=12, val_per_class=4)
    return tmp_path


def test_the_journey_of_a_laptop_as_it_is_printed(images):
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "DATA": str(images / "data")}
    environment.pop("MLFLOW_TRACKING_URI", None)
    bash(BLOCKS["laptop"], images, environment)
    assert (images / "mlflow.db").is_file()
    assert "0 broken" in bash("focusvit doctor", images, environment).stdout
    port = free_ports(1)[0]
    command = BLOCKS["review"].strip().replace("5000", str(port)).split()
    ui = subprocess.Popen([str(BIN / command[0]), *command[1:]], cwd=images, env=environment, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert time.monotonic() < until and ui.poll() is None, "the UI did not start"
            time.sleep(0.5)
    finally:
        os.killpg(ui.pid, 2)
        ui.wait(30)


def test_the_journey_of_own_machines_as_it_is_printed(images):
    with RayHead(num_cpus=1) as head, MlflowServer(images / "mlflow") as server:
        head.add_node(num_cpus=1)
        cluster = Cluster(head, server, images)
        environment = {**cluster.environment, "DATA": str(images / "data")}
        said = bash(BLOCKS["submit"], images, environment)
        assert said.stdout.count("SUCCEEDED") == 5
        job = re.search(r"^(pretrain-\S+)", said.stdout, re.MULTILINE).group(1)
        for line in BLOCKS["watch"].replace("JOB", job).splitlines():
            bash(line, images, environment)
        assert {run["info"]["status"] for run in cluster.runs()} == {"FINISHED"}


# As much of kubectl as the journey needs, in front of a head and an MLflow server that are there already.
KUBECTL = """#!/bin/sh
case "$1 $2 $3" in
"apply -f "*) python -c 'import sys, yaml; assert all(yaml.safe_load_all(open(sys.argv[1])))' "$3" ;;
"get secret focusvit") base64 < "$HEAD_TOKEN" ;;
"port-forward service/"*) ;;
*) echo "kubectl: $*" >&2; exit 1 ;;
esac
"""


def test_the_journey_on_kubernetes_as_it_is_printed(images):
    """Typed literally but for addresses and the data folder; the client finds its token where the journey put it."""
    (images / "bin").mkdir()
    (images / "bin" / "kubectl").write_text(KUBECTL)
    (images / "bin" / "kubectl").chmod(0o755)
    with RayHead(num_cpus=1) as head, MlflowServer(images / "mlflow") as server:
        head.add_node(num_cpus=1)
        cluster = Cluster(head, server, images)
        environment = {**cluster.environment, "HOME": str(images), "HEAD_TOKEN": str(head.token_path)}
        environment["PATH"] = f"{images / 'bin'}:{environment['PATH']}"
        for name in ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI"):
            environment.pop(name)
        here = {"http://127.0.0.1:8265": head.url, "http://mlflow:5000": server.url}
        here |= {"/data/imagenet": str(images / "data" / "images"), "/data/": f"{images / 'data'}/"}
        printed = "|".join(map(re.escape, here))  # in one pass: what was put in may look like something printed
        script, num = re.subn(printed, lambda found: here[found[0]], BLOCKS["kubernetes"])
        assert num >= len(here)
        bash(script, ROOT, environment)
        assert (images / ".ray" / "auth_token").read_text() == head.token_path.read_text()
        assert {run["info"]["status"] for run in cluster.runs()} == {"FINISHED"}
        jobs = json.loads(cluster.focusvit("jobs", "list", "--json").stdout)
        assert [job["verb"] for job in jobs] == ["preprocess", "preprocess", "pretrain"]
    assert set(open_dataset(str(images / "data" / "shards")).splits) == {"train", "val"}


@pytest.fixture
def bucket(tmp_path):
    """An S3-speaking server on loopback with an empty bucket: (place, variables that open it)."""
    port = free_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "moto.log").open("wb") as log:
        command = [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not _answers(f"{url}/moto-api/data.json"):
            assert time.monotonic() < until and server.poll() is None, (tmp_path / "moto.log").read_text()
            time.sleep(0.3)
        requests.put(f"{url}/shards", timeout=20).raise_for_status()
        keys = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": PASSWORD, "AWS_DEFAULT_REGION": "us-east-1"}
        yield "s3://shards/digits", {**keys, "AWS_ENDPOINT_URL": url}
    finally:
        server.terminate()
        server.wait(30)


def test_a_job_writes_to_a_store_with_keys_that_nobody_sees(images, bucket, monkeypatch):
    out, keys = bucket
    source = images / "data" / "images"
    with RayHead(num_cpus=1) as head, MlflowServer(images / "mlflow") as server:
        head.add_node(num_cpus=1)
        cluster = Cluster(head, server, images)
        cluster.environment |= keys
        said = cluster.submit("preprocess", "--source", source, "--out", out, "--split", "train")
        assert "2 nodes run code" in said
        assert PASSWORD not in head.log_text() + said  # neither the key nor anything made of it
        cluster.focusvit("preprocess", "--source", source, "--out", images / "local", "--split", "train", "--local")
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    remote, local = (open_dataset(str(place)).split("train") for place in (out, images / "local"))
    assert remote.root_hash == local.root_hash


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False
