"""Submitting: what is shipped, what travels in the open and what does not, what is refused before anything is sent."""

import json
import os
import types

import pytest

from cluster.jobs import package, submit
from cluster.jobs.environment import DEFAULTS, SECRETS_FILE, is_secret, job_variables
from cluster.jobs.places import Place, check_for_job, places_of, tracking_uri_of, warn_loopback
from pipeline.errors import DataError, UsageError

PREPROCESS = ["preprocess", "--source", "/data/in", "--out=/data/out", "--split", "train"]


def make_checkout(root):
    for name in package.PACKAGES:
        (root / name / "__pycache__").mkdir(parents=True)
        (root / name / "__init__.py").write_text(f"'{name}'\n")
        (root / name / "__pycache__" / "x.pyc").write_bytes(b"cache")
    (root / "data").mkdir()
    (root / "data" / "big.tar").write_bytes(b"x")
    return root


def test_only_code_is_shipped_and_its_fingerprint_follows_every_byte(tmp_path):
    root = make_checkout(tmp_path / "checkout")
    assert set(package.code_files(root)) == {f"{name}/__init__.py" for name in package.PACKAGES}
    before = package.fingerprint(root)
    (root / "data" / "big.tar").write_bytes(b"other")
    assert package.fingerprint(root) == before
    (root / "pipeline" / "__init__.py").write_text("'changed'\n")
    assert package.fingerprint(root) != before


def test_what_is_staged_has_the_fingerprint_of_the_checkout(tmp_path):
    root = make_checkout(tmp_path / "checkout")
    (tmp_path / "copy").mkdir()
    package.stage(root, tmp_path / "copy")
    assert package.fingerprint(tmp_path / "copy") == package.fingerprint(root)
    assert not (tmp_path / "copy" / "data").exists()


def test_code_that_a_head_would_refuse_names_its_largest_file(tmp_path, monkeypatch):
    root = make_checkout(tmp_path)
    (root / "focusvit" / "weights.bin").write_bytes(b"w" * 5000)
    monkeypatch.setattr(package, "MAX_BYTES", 4000)
    with pytest.raises(UsageError, match=r"focusvit/weights\.bin"):
        package.stage(root, tmp_path / "copy")


def test_variables_that_travel_and_those_that_do_not():
    here = {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "MLFLOW_TRACKING_PASSWORD": "hunter2",
        "AWS_ACCESS_KEY_ID": "AKIA",
        "AWS_ENDPOINT_URL": "http://store:9000",
        "AWS_CONFIG_FILE": "/home/me/.aws/config",
        "HOME": "/home/me",
        "RAY_AUTH_TOKEN": "ray-token",
    }
    plain, secret = job_variables(here, ["HOME", "NUMBER=7", "STORE=s3://me:pw@bucket"])
    assert plain == {**DEFAULTS, "MLFLOW_TRACKING_URI": "http://mlflow:5000", "AWS_ENDPOINT_URL": "http://store:9000",
                     "HOME": "/home/me", "NUMBER": "7"}  # fmt: skip
    assert secret == {"MLFLOW_TRACKING_PASSWORD": "hunter2", "AWS_ACCESS_KEY_ID": "AKIA", "STORE": "s3://me:pw@bucket"}
    assert job_variables({"OMP_WAIT_POLICY": "ACTIVE"}, ["OMP_WAIT_POLICY"])[0]["OMP_WAIT_POLICY"] == "ACTIVE"
    for entry, words in (("ABSENT", "no such variable"), ("RAY_AUTH_TOKEN=x", "stays outside jobs")):
        with pytest.raises(UsageError, match=words):
            job_variables(here, [entry])


@pytest.mark.parametrize("name", ["X_PASSWORD", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "my_api_key"])
def test_secrets_are_known_by_name(name):
    assert is_secret(name, "x") and not is_secret("MLFLOW_EXPERIMENT_NAME", "x")


def test_places_of_a_command():
    assert places_of(PREPROCESS) == [Place("--source", "/data/in", "read"), Place("--out", "/data/out", "write")]
    transfer = ["transfer", "--checkpoint", "s3://b/run", "--task", "a=/x", "b=/y", "--suite", "quick"]
    assert [place.uri for place in places_of(transfer)] == ["s3://b/run", "/x", "/y"]
    assert tracking_uri_of(transfer, "http://m:5000") == "http://m:5000"
    assert tracking_uri_of([*transfer, "--tracking-uri", "http://n:5000"], "http://m:5000") == "http://n:5000"
    assert tracking_uri_of(PREPROCESS, "http://m:5000") is None and tracking_uri_of(transfer, None) == ""


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["preprocess", "--source", "images", "--out", "/o"], "--source images is relative"),
        (["preprocess", "--source", "/i", "--out=out"], "--out out is relative"),
        (["preprocess", "--source", "/i", "--out", "/o", "--checksums", "sums"], "--checksums sums is relative"),
        (["pretrain", "demo", "--data", "/d", "--run_dir", "runs/a"], "--run-dir runs/a is relative"),
        (["pretrain", "demo", "--data", "/d", "--run_dir=runs/a"], "--run-dir runs/a is relative"),
        (["pretrain", "demo", "--data", "/d", "--score-on", "pets=pets"], "--score-on pets is relative"),
        (["pretrain", "demo", "--data", "/d", "--distill.teacher", "vit"], "--distill.teacher vit is relative"),
        (["pretrain", "demo", "--data", "/d", "--tracking_uri", "sqlite:///mlflow.db"], "is relative"),
        (["evaluate", "--checkpoint", "/c", "--data", "/d", "--confusion", "a.png"], "--confusion a.png is relative"),
        (["preprocess", "--source", "file:///i", "--out", "/o"], "without file://"),
        (["pretrain", "demo", "--data", "/d", "--tracking-uri", "http://me:pw@m:5000"], "holds a password"),
        (["pretrain", "demo", "--data", "/d"], "MLFLOW_TRACKING_URI"),
        (["pretrain", "demo", "--data", "/d", "--tracking-uri", "sqlite:///mlflow.db"], "is relative"),
        (["transfer", "--checkpoint", "/c", "--task", "a=/d"], "without --out"),
        (["show", "./shards"], "./shards is a path of this machine"),
        (["transfer", "--task", "pets=shards/pets", "--checkpoint", "/c"], "--task shards/pets is relative"),
    ],
)
def test_commands_that_would_mean_something_else_on_a_cluster(argv, words):
    with pytest.raises(UsageError) as error:
        check_for_job(argv, tracking_uri_of(argv, None))
    assert words in str(error.value) and "pw" not in str(error.value).split("password")[0]


def test_commands_that_are_fine():
    check_for_job(PREPROCESS, None)
    check_for_job(["pretrain", "demo", "--data", "s3://b/d", "--run-dir", "/r"], "http://mlflow:5000")
    check_for_job(["pretrain", "demo", "--optim.lr", "1e-3", "--data", "/d", "--epochs", "3"], "http://mlflow:5000")


def test_loopback_uris_of_another_machine_are_noticed():
    assert warn_loopback("http://head:8265", ["http://127.0.0.1:5000", "/data", ""]) == ["http://127.0.0.1:5000"]
    assert warn_loopback("http://127.0.0.1:8265", ["http://127.0.0.1:5000"]) == []


def test_a_job_keeps_its_secrets_out_of_what_ray_shows(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    job = submit.make_job(submit.SubmitConfig(name="one"), PREPROCESS, make_checkout(tmp_path))
    assert "hunter2" not in json.dumps(job.runtime_env("/w")) + job.entrypoint
    assert json.loads(job.extra_files()[SECRETS_FILE])["MLFLOW_TRACKING_PASSWORD"] == "hunter2"
    assert job.entrypoint == "python -m cluster.jobs.job preprocess --source /data/in --out=/data/out --split train"


def test_dry_run_prints_the_exact_job_and_sends_nothing(monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    monkeypatch.setattr(submit, "connect", lambda url: pytest.fail("a dry run must not connect"))
    assert submit.main(["--jobs-address", "http://head:8265", "--dry-run", "--", *PREPROCESS]) == 0
    shown = capsys.readouterr()
    job = json.loads(shown.out)
    assert job["secrets"] == {"MLFLOW_TRACKING_PASSWORD": "***"} and "hunter2" not in shown.out + shown.err
    assert job["entrypoint"].endswith("--split train") and job["spec"]["fingerprint"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--jobs-address", "x:1"], "no command after --"),
        (["--jobs-address", "x:1", "--"], "no command after --"),
        (["--jobs-address", "x:1", "--", "pretrian"], "unknown verb 'pretrian'"),
        (["--jobs-address", "x:1", "--", "ui"], "run it without submit"),
    ],
)
def test_wrong_submissions(argv, words):
    with pytest.raises(UsageError, match=words):
        submit.main(argv)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RuntimeError("Request failed with status code 400: one is already there."), UsageError, "another --name"),
        (RuntimeError("Request failed with status code 413: Too Large."), UsageError, "too large"),
        (RuntimeError("Traceback\nno disk"), DataError, "did not accept the job: no disk"),
        (ConnectionError(), DataError, "did not accept the job: ConnectionError"),
    ],
)
def test_a_head_that_does_not_take_the_job(tmp_path, error, kind, words):
    def refuse(**job):
        raise error

    job = submit.make_job(submit.SubmitConfig(name="one"), PREPROCESS, make_checkout(tmp_path))
    with pytest.raises(kind, match=words):
        submit._send(types.SimpleNamespace(submit_job=refuse), job, str(tmp_path))


def test_secrets_reach_every_process_of_a_job(tmp_path, monkeypatch):
    from cluster.jobs import environment

    (tmp_path / "cluster").mkdir()
    (tmp_path / SECRETS_FILE).write_text('{"X_PASSWORD": "hunter2"}')
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "cluster" / "jobs" / "environment.py"))
    monkeypatch.setenv("X_PASSWORD", "old")
    environment.load_secrets()
    assert os.environ["X_PASSWORD"] == "hunter2"
