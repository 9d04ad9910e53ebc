"""A web server on loopback whose answers a test writes down: {(method, start of the path): (status, body)}."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Web:
    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[tuple[str, str], tuple[int, str]] = {}


@contextmanager
def scripted_server() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            known = (key for key in web.answers if key[0] == self.command and self.path.startswith(key[1]))
            key = next(known, None)
            status, body = web.answers[key] if key else (404, "no such page")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = answer

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web = Web(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
