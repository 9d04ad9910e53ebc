"""Submitting: what is shipped, what travels in the open and what does not, what is refused before anything is sent."""

import io
import json
import os
import re
import types

import pytest
from testkit.web import scripted_server

from cluster import follow as follow_module
from cluster import jobs, package, submit
from cluster.connection import auth_token, connect, jobs_url
from cluster.follow import Printer, follow
from cluster.job_environment import DEFAULTS, SECRETS_FILE, is_secret, job_variables
from cluster.places import Place, check_for_job, places_of, tracking_uri_of, warn_loopback
from cluster.progress_lines import last_bar, read_bar
from pipeline.errors import DataError, UsageError

PREPROCESS = ["preprocess", "--source", "/data/in", "--out=/data/out", "--split", "train"]


@pytest.fixture
def web():
    with scripted_server() as server:
        yield server


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
    assert job.entrypoint == "python -m cluster.job preprocess --source /data/in --out=/data/out --split train"


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


def test_wait_and_detach_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as end:
        submit.main(["--wait", "--detach", "--", *PREPROCESS])
    assert end.value.code == 2 and "exclude each other" in capsys.readouterr().err


# --- the door of the cluster


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("head", "http://head:8265"),
        ("http://head:9000/", "http://head:9000"),
        ("https://head", "https://head:443"),
        ("[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_addresses(address, url):
    assert jobs_url(address) == url


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://head:10001", "http://head:8265"),
        ("ftp://head", "not an http address"),
        ("http://me:pw@head:8265", "names a user"),
        ("http://head:port", "Write http://HEAD:8265"),
        ("http://127.0.0.1:9", "nothing answers at http://127.0.0.1:9 "),
        ("http://no-such-host.invalid:8265", "no such host"),
    ],
)
def test_wrong_addresses_are_said_in_one_paragraph(address, words):
    with pytest.raises(UsageError) as error:
        connect(address)
    assert words in str(error.value) and "\n" not in str(error.value) and ":pw" not in str(error.value)


def test_no_address_at_all(monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(UsageError, match="no cluster named"):
        jobs_url(None)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")
    assert jobs_url(None) == "http://head:8265"


def test_the_token_is_found_where_ray_finds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert auth_token() == ""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("default\n")
    assert auth_token() == "default"
    (tmp_path / "other").write_text("named")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
    assert auth_token() == "named"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "direct")
    assert auth_token() == "direct"


@pytest.mark.parametrize(
    ("version", "jobs_answer", "words"),
    [
        (
            (200, '{"version": "4", "ray_version": "2.9.3", "ray_commit": "x"}'),
            (200, "[]"),
            "runs Ray 2.9.3, this checkout",
        ),
        ((200, '{"version": "4", "ray_version": "2.60.0", "ray_commit": "x"}'), (401, "Missing"), "asks for a token"),
        ((200, '{"version": "4", "ray_version": "2.60.0", "ray_commit": "x"}'), (403, "Invalid"), "refuses the token"),
        ((404, "no page"), (404, ""), "not as a Ray job server"),
        ((200, "OK"), (200, ""), "not as a Ray job server"),
        (
            (200, '{"version": "4", "ray_version": "2.60.0", "ray_commit": "x"}'),
            (500, "no ray[default]"),
            "default extra",
        ),
    ],
)
def test_heads_that_cannot_be_used(web, version, jobs_answer, words):
    web.answers |= {("GET", "/api/version"): version, ("GET", "/api/jobs/"): jobs_answer}
    with pytest.raises(UsageError) as error:
        connect(web.url)
    assert words in str(error.value) and "\n" not in str(error.value)


# --- following


BAR = "preprocess:  42%|####      | 5/12 [00:10<00:14,  2.00 shard/s, failures=0]"


def test_bars_are_read_from_a_log():
    bar = read_bar(BAR)
    assert (bar.what, bar.percent, bar.done, bar.total, bar.left, bar.rate, bar.more) == (
        "preprocess", 42, "5", "12", "00:14", "2.00 shard/s", "failures=0")  # fmt: skip
    assert last_bar(f"hello\n{BAR}\rpretrain: 100%|##| 1.2k/1.2k [01:00<00:00, 20img/s]\nbye").what == "pretrain"
    assert read_bar("42% of nothing") is None and last_bar("") is None
    assert str(bar) == "preprocess: 5/12 (42 %), 2.00 shard/s, 00:14 left, failures=0"


def test_the_printer_repeats_nothing_after_an_interruption():
    out = io.StringIO()
    printer = Printer(out)
    printer.restart()
    printer.write("one\ntw")
    printer.restart()  # followed again: Ray sends the log from its start
    printer.write("one\ntwo\nthr")
    printer.restart()
    printer.write("one\n")
    printer.write("two\nthree\n")
    assert out.getvalue() == "one\ntwo\nthree\n"


def test_bars_overwrite_themselves_on_a_terminal_and_stay_lines_in_a_file():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        printer = Printer(out)
        printer.write(f"start\n{BAR}\n{BAR}\nend\n")
    assert terminal.getvalue() == f"start\n\r{BAR}\x1b[K\r{BAR}\x1b[K\nend\n"
    assert file.getvalue() == f"start\n{BAR}\n{BAR}\nend\n"


class FakeClient:
    """The part of JobSubmissionClient that we use, with a scripted job."""

    def __init__(self, status="SUCCEEDED", code=0, message="", log=("hello\n",), fail=None):
        self.info = types.SimpleNamespace(
            submission_id="one", job_id=None, status=status, driver_exit_code=code, message=message, start_time=1000,
            end_time=61000, metadata={"focusvit_verb": "info"}, entrypoint="python -m cluster.job info /x",
        )  # fmt: skip
        self.log, self.fail, self.stopped = log, fail, []

    async def tail_job_logs(self, job):
        if self.fail:
            raise self.fail
        for text in self.log:
            yield text

    def get_job_status(self, job):
        status = self.info.status
        return types.SimpleNamespace(is_terminal=lambda: status in ("SUCCEEDED", "FAILED", "STOPPED"))

    def get_job_info(self, job):
        return self.info

    def get_job_logs(self, job):
        return "".join(self.log)

    def list_jobs(self):
        return [self.info]

    def stop_job(self, job):
        self.stopped.append(job)


@pytest.mark.parametrize(
    ("status", "code", "expected"), [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("STOPPED", None, 130)]
)
def test_the_exit_code_of_a_job_is_passed_on(capsys, status, code, expected):
    assert follow(FakeClient(status, code), "one", "http://h:1") == expected
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.parametrize(("code", "words"), [(None, "no space left"), (-9, "no space left"), (127, "--python")])
def test_a_job_that_never_ran_says_why(code, words):
    with pytest.raises(DataError, match=words):
        follow(FakeClient("FAILED", code, "Traceback\n  ...\nOSError: no space left on device\n"), "one", "http://h:1")


def test_a_lost_head_is_said(monkeypatch):
    monkeypatch.setattr(follow_module, "PATIENCE_S", 0.0)
    with pytest.raises(DataError, match="no contact with the head"):
        follow(FakeClient(fail=ConnectionError("refused")), "one", "http://h:1")


@pytest.mark.parametrize(("answer", "stopped", "code"), [("s\n", ["one"], 130), ("d\n", [], 130), ("", [], 130)])
def test_ctrl_c_asks_stop_or_detach(monkeypatch, capsys, answer, stopped, code):
    client = FakeClient()
    monkeypatch.setattr(follow_module, "_tail", lambda *args: None)
    monkeypatch.setattr(follow_module.asyncio, "run", lambda coroutine: (_ for _ in ()).throw(KeyboardInterrupt))
    terminal = types.SimpleNamespace(isatty=lambda: bool(answer), readline=lambda: answer)
    monkeypatch.setattr(follow_module.sys, "stdin", terminal)
    assert follow(client, "one", "http://h:1") == code and client.stopped == stopped
    said = capsys.readouterr().err
    assert ("asked to stop" in said) == bool(stopped) and (stopped or "focusvit jobs logs one --follow" in said)


# --- jobs


def run_jobs(monkeypatch, client, *argv):
    monkeypatch.setattr(jobs, "connect", lambda address: client)
    return jobs.main([*argv, "--jobs-address", "http://h:1"])


def test_jobs_list_status_logs_stop(monkeypatch, capsys):
    client = FakeClient(log=("hello\n", "train-3.tar is tried again (2 of 3): its worker died\n", BAR + "\n"))
    assert run_jobs(monkeypatch, client, "list") == 0
    assert "info /x" in capsys.readouterr().out
    assert run_jobs(monkeypatch, client, "list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["duration_s"] == 60
    assert run_jobs(monkeypatch, client, "status", "one") == 0
    shown = capsys.readouterr().out
    assert "5/12 (42 %), 2.00 shard/s, 00:14 left, failures=0" in shown and re.search(r"^retries +1$", shown, re.M)
    assert run_jobs(monkeypatch, client, "status", "one", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["retries"], row["bar"]["done"], row["bar"]["left"]) == (1, "5", "00:14")
    assert run_jobs(monkeypatch, client, "logs", "one") == 0
    assert capsys.readouterr().out.startswith("hello\n")
    assert run_jobs(monkeypatch, client, "stop", "one") == 0
    assert "has ended already" in capsys.readouterr().out
    with pytest.raises(UsageError, match="knows no job 'two'"):
        run_jobs(monkeypatch, client, "status", "two")


@pytest.mark.parametrize("argv", [[], ["watch"], ["status"], ["stop", "--json"]])
def test_wrong_uses_of_jobs_show_the_right_one(argv):
    with pytest.raises(UsageError, match="usage: focusvit jobs"):
        jobs.main(argv)


def test_follow_belongs_to_logs():
    with pytest.raises(UsageError, match="belongs to `jobs logs`"):
        jobs.main(["list", "--follow"])


def test_secrets_reach_every_process_of_a_job(tmp_path, monkeypatch):
    from cluster import job_environment

    (tmp_path / "cluster").mkdir()
    (tmp_path / SECRETS_FILE).write_text('{"X_PASSWORD": "hunter2"}')
    monkeypatch.setattr(job_environment, "__file__", str(tmp_path / "cluster" / "job_environment.py"))
    monkeypatch.setenv("X_PASSWORD", "old")
    job_environment.load_secrets()
    assert os.environ["X_PASSWORD"] == "hunter2"
