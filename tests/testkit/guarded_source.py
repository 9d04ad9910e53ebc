"""An image source behind a user name and a password."""

import base64
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from testkit.image_sources import jpeg


@contextmanager
def guarded_source(user: str, password: str) -> Iterator[str]:
    """A web server with a tar of images in two classes for whoever knows the password; yields its whole address."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(6):
            data = jpeg(number)
            member = tarfile.TarInfo(f"{'ab'[number % 2]}/{number}.jpg")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    content = packed.getvalue()
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            allowed, there = self.headers.get("Authorization") == wanted, self.path.split("?")[0] == "/train.tar"
            begin, end, status = 0, len(content), 200
            if (span := self.headers.get("Range")) and allowed and there:
                first, _, last = span.removeprefix("bytes=").partition("-")
                begin, end, status = int(first), min(len(content), int(last or len(content)) + 1), 206
            body = content[begin:end] if allowed and there else b""
            self.send_response(status if allowed and there else 404 if allowed else 401)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Accept-Ranges", "bytes")
            if status == 206:
                self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://{user}:{password}@127.0.0.1:{server.server_port}/train.tar"
        server.shutdown()
