"""An S3-speaking server on loopback with one bucket, for the time of a test; every library of the process finds it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.io import store


@contextmanager
def s3_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yields 's3://bucket', empty. Child processes inherit the way to it."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }.items():
        monkeypatch.setenv(name, value)
    store._store.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="bucket")
    yield "s3://bucket"
    store._store.cache_clear()
    server.stop()
