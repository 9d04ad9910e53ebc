"""One function takes secrets out of whatever is shown or stored; refusals, documents and the plan go through it."""

import sys

import pytest

from focusvit.cli import main
from focusvit.runs.run_dir import RunDir
from pipeline.errors import DataError, UsageError, did_you_mean
from pipeline.io import storage, store
from pipeline.secrets import masked
from testkit.guarded_source import guarded_source

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://me:hunter2@host:5000/x", "http://me:***@host:5000/x"),
        ("postgresql+psycopg2://me:hunter2@db:5432/m", "postgresql+psycopg2://me:***@db:5432/m"),
        ("mysql://me:p@hunter2/x@db/m", "mysql://me:***@db/m"),  # a password with @ and /
        ("redis://:hunter2@db", "redis://:***@db"),
        ("ftp://me:hunter2%40@host/a.tar", "ftp://me:***@host/a.tar"),
        ("https://hunter2@github.com/x", "https://***@github.com/x"),
        ("mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dhunter2", "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3D***"),
        ("https://s3/x?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2&part=3",
         "https://s3/x?X-Amz-Credential=***&X-Amz-Signature=***&part=3"),
        ("see https://h/x?token=hunter2, then", "see https://h/x?token=***, then"),
        ("https://h/x?sv=2022&sig=hunter2%3D", "https://h/x?sv=2022&sig=***"),
        ("AccountName=a;AccountKey=hunter2==;End=1", "AccountName=a;AccountKey=***;End=1"),
        ("host=db user=me password=hunter2 dbname=m", "host=db user=me password=*** dbname=m"),
        ("{'client_secret': 'hunter2', \"token\": \"hunter2\"}", "{'client_secret': '***', \"token\": \"***\"}"),
        ("Authorization: Bearer hunter2", "Authorization: Bearer ***"),
        ("http://a:hunter2@b and ftp://c:hunter2@d", "http://a:***@b and ftp://c:***@d"),
    ],
)  # fmt: skip
def test_a_secret_becomes_stars_and_the_rest_stays(given, shown):
    assert masked(given) == shown and masked(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/a:b@c.jpg", "http://host:80/people/me@example.org", "abfs://container@account.dfs/x",
        "ssh://git@host/x", "num_tokens=100 and tokens=36", "key=5", "the password is wrong", "http://[::bad",
        "sqlite:////a b/mlflow.db", "12 tokens: 9",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text):
    assert masked(text) == text


@pytest.mark.parametrize("kind", [UsageError, DataError, storage.StoreError])
def test_a_refusal_never_holds_a_secret(kind):
    error = kind(f"cannot read ftp://me:{SECRET}@host/x")
    assert SECRET not in str(error) + repr(error) and "ftp://me:***@host/x" in str(error)


def test_a_document_is_stored_without_secrets(tmp_path):
    storage.put_json(str(tmp_path / "a.json"), {"from": f"http://me:{SECRET}@host/x", "n": [1, "b"]})
    assert storage.read_json(str(tmp_path / "a.json")) == {"from": "http://me:***@host/x", "n": [1, "b"]}


def test_a_run_goes_on_from_an_address_whose_password_no_file_holds(tmp_path):
    run, facts = RunDir(str(tmp_path)), {"classes": ["a"]}
    config = {"init_from": f'ftp://me:{SECRET}@host/x\nand "http://{SECRET}@h"', "lr": (1, 2)}
    run.prepare(config, facts)
    run.prepare(config, facts)
    run.set_info({"tracking_uri": f"mysql://me:{SECRET}@db/m"})
    assert run.info()["tracking_uri"] == "mysql://me:***@db/m"
    assert not [path for path in tmp_path.rglob("*.json") if SECRET in path.read_text()]
    with pytest.raises(UsageError, match="another config: init_from"):
        run.prepare({**config, "init_from": "ftp://me@host/y"}, facts)


@pytest.fixture
def guarded():
    with guarded_source("me", SECRET) as address:
        yield address


def test_a_source_behind_a_password_leaves_it_nowhere(guarded, tmp_path, capfd):
    out = tmp_path / "shards"
    preprocess = ["preprocess", "--source", guarded, "--out", str(out), "--split", "train", "--local", "--workers", "0"]
    assert main(preprocess) == 0
    said = capfd.readouterr()
    assert "http://me:***@127.0.0.1" in said.out and SECRET not in said.out + said.err
    next(out.glob("train-*.tar")).unlink()  # so that repair has to ask the source
    assert main(["verify", str(out), "--repair", "--workers", "0"]) == 2 and "--source" in capfd.readouterr().err
    assert main(["verify", str(out), "--repair", "--workers", "0", "--source", guarded]) == 0
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err
    for path in (path for path in out.rglob("*") if path.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("uri", ["http://me:hunter2@127.0.0.1:1/x.tar", "nope://me:hunter2@h/x"])
def test_a_place_that_cannot_be_read_is_named_without_its_password(uri, capsys, monkeypatch):
    monkeypatch.setattr(store, "_ATTEMPTS", 1)
    assert main(["info", uri]) in (1, 2)
    said = capsys.readouterr().err
    assert SECRET not in said and "Traceback" not in said


def test_a_bug_shows_its_trace_without_secrets(monkeypatch, capsys):
    def fail(argv):
        raise RuntimeError(f"no such thing as ftp://me:{SECRET}@host")

    monkeypatch.setattr("pipeline.care.contact_sheet.main", fail)
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    with pytest.raises(RuntimeError) as found:
        main(["show", "data", "--out", "sheet.png"])
    sys.excepthook(found.type, found.value, found.tb)
    said = capsys.readouterr().err
    assert SECRET not in said and "Traceback" in said and "ftp://me:***@host" in said


def test_a_slip_of_the_finger_is_answered_with_the_word_that_was_meant():
    assert did_you_mean("pretrian", ["pretrain", "predict"]) == " Did you mean 'pretrain'?"
    assert did_you_mean("loader-workrs", ["loader_workers"]) == " Did you mean 'loader_workers'?"
    assert did_you_mean("xyz", ["pretrain"]) == ""
