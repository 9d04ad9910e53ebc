"""The door of a cluster: its address, its token, and every kind of head that cannot be used, said in one paragraph."""

import pytest

from cluster.connection import auth_token, connect, jobs_url
from focusvit.cli import main
from pipeline.errors import UsageError
from testkit.web import scripted_server


@pytest.fixture
def web():
    with scripted_server() as server:
        yield server


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
        ("http://127.0.0.1:9", "nothing answers at http://127.0.0.1:9 (connection refused)"),
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


NEW = (200, '{"version": "4", "ray_version": "2.60.0", "ray_commit": "x"}')
OLD = (200, '{"version": "4", "ray_version": "2.9.3", "ray_commit": "x"}')


@pytest.mark.parametrize(
    ("version", "jobs_answer", "words"),
    [
        (OLD, (200, "[]"), ("runs Ray 2.9.3, this checkout needs", "start the head again")),
        (NEW, (401, "Missing authentication token"), ("asks for a token", "~/.ray/auth_token")),
        (NEW, (403, "Invalid authentication token"), ("refuses the token of this machine", "~/.ray/auth_token")),
        ((404, "no page"), (404, ""), ("not as a Ray job server",)),
        ((200, "<html>"), (200, ""), ("not as a Ray job server", "usually port 8265")),
        (NEW, (500, "no ray[default]"), ("default extra",)),
    ],
)
def test_heads_that_cannot_be_used(web, capsys, version, jobs_answer, words):
    web.answers |= {("GET", "/api/version"): version, ("GET", "/api/jobs/"): jobs_answer}
    assert main(["jobs", "list", "--jobs-address", web.url]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words) and error.count("\n") == 1
