"""Addresses with a host, a user or a repository open their store, or say in a sentence why they do not."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from focusvit.cli import main
from pipeline.errors import DataError, UsageError
from pipeline.io import storage
from pipeline.io.store import open_store
from pipeline.secrets import masked
from pipeline.shards.dataset import open_dataset
from testkit.image_sources import class_images


class Hosted(MemoryFileSystem):
    """A store that needs a host, as ftp, sftp and hdfs do; each host holds its own files."""

    protocol = "hosted"
    hosts: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, host: str, **options: Any) -> None:
        if host == "down":
            raise ConnectionRefusedError(111, "Connection refused")
        super().__init__(**options)
        self.store, self.host = self.hosts.setdefault(host, {}), host  # type: ignore[misc]

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        host = path.partition("://")[2].partition("/")[0]
        return {"host": host.rpartition("@")[2]} if host else {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.partition("://")[2].partition("/")[2].strip("/") if "://" in path else path


class ReadOnly(Hosted):
    """As http and github."""

    protocol = "readonly"

    def put_file(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    def pipe_file(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def hosted() -> Iterator[None]:
    for kind in (Hosted, ReadOnly):
        fsspec.register_implementation(kind.protocol, kind, clobber=True)
    yield
    Hosted.hosts.clear()


def test_a_host_in_the_address_chooses_the_store() -> None:
    storage.put("hosted://one/x/y", b"1")
    storage.put("hosted://user:pw@two/x/y", b"2")
    assert storage.read_bytes("hosted://one/x/y") == b"1" and storage.read_bytes("hosted://two/x/y") == b"2"
    assert storage.list_names("hosted://one/x") == ["y"] and not storage.exists("hosted://three/x/y")
    assert list(storage.find_files("hosted://one/x")) == ["y"]


def test_each_thread_has_a_connection_of_its_own() -> None:
    found = [open_store("hosted://one/x")[0]]
    thread = threading.Thread(target=lambda: found.append(open_store("hosted://one/x")[0]))
    thread.start()
    thread.join()
    assert found[0] is open_store("hosted://one/y")[0] and found[1] is not found[0]


def test_source_and_output_in_such_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    for class_name, files in class_images(classes=2, per_class=2).items():
        for name, data in files.items():
            storage.put(f"hosted://h/set/{class_name}/{name}", data)
    run = ["preprocess", "--source", "hosted://h/set", "--local", "--workers", "0", "--out"]
    assert main([*run, "hosted://h/out"]) == 0
    assert open_dataset("hosted://h/out").split("train").num_samples == 4
    assert main([*run, "readonly://h/out"]) == 2
    assert "readonly://h/out/" in (error := capsys.readouterr().err) and "cannot be written" in error


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hosted:///x", r"cannot open hosted:///x: .*'host'.* ftp://HOST/FOLDER"),
        ("hosted://user:secret@down/x", r"cannot open hosted://user:\*\*\*@down/x: .*Connection refused"),
        ("ftp:///x", r"cannot open ftp:///x: .*host"),
        ("ftp://user:secret@127.0.0.1:1/x", r"cannot open ftp://user:\*\*\*@127\.0\.0\.1:1/x: .*refused"),
        ("github://folder/x", r"cannot open github://folder/x: .*'org' and 'repo'"),
        ("zip:///tmp/a.zip", "zip:///tmp/a.zip is a place inside another one.*Unpack it"),
        ("zip://inner::file:///tmp/a.zip", "is a place inside another one"),
        ("simplecache::s3://bucket/x", "is a place inside another one"),
        ("tar://inner::s3://bucket/a.tar", "is a place inside another one"),
        ("nosuch://bucket/x", "cannot open nosuch:// places"),
    ],
)
def test_addresses_that_open_nothing_are_refused_in_words(
    uri: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((UsageError, DataError), match=words):
        storage.exists(uri)
    for place in (["--source", uri, "--out", str(tmp_path / "out")], ["--source", str(tmp_path), "--out", uri]):
        assert main(["preprocess", *place, "--local", "--workers", "0"]) in (1, 2)
    assert "Traceback" not in (error := capsys.readouterr().err) and "secret" not in error


def test_hdfs_without_its_library_is_one_sentence() -> None:
    with pytest.raises((UsageError, DataError), match=r"cannot open hdfs://127\.0\.0\.1:1/x"):
        storage.exists("hdfs://127.0.0.1:1/x")


def test_the_owner_and_repository_of_github_are_no_secret() -> None:
    assert masked("github://owner:repository@main/set") == "github://owner:repository@main/set"
    assert masked("ftp://owner:repository@main/set") == "ftp://owner:***@main/set"


def test_a_refused_ftp_leaves_no_traceback_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "focusvit.cli", "preprocess", "--source", "ftp://127.0.0.1:1/x", "--out"]
    done = subprocess.run([*command, str(tmp_path), "--local"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
