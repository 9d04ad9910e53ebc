"""A proxy in front of an object store that refuses, cuts answers short, or is away: what real stores do at times."""

import http.client
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_BUSY = (
    b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>Reduce your request rate</Message></Error>"
)
_NOT_PASSED_ON = {"transfer-encoding", "connection", "content-length", "server", "date"}


class FlakyStore:
    """Passes requests on to `target`. A context manager; `url` is where it listens.

    A share `failing` of the requests gets a 503 or half an answer. After `until` requests (None: never) the store is
    away: connections are closed without a word, until somebody sets `until` anew.
    """

    def __init__(self, target: str, *, failing: float = 0.0, seed: int = 0) -> None:
        self.target, self.failing = urlsplit(target), failing
        self.until: int | None = None
        self.requests = self.failed = 0
        self._random, self._lock = random.Random(seed), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.answer(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FlakyStore":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _mood(self) -> str:
        with self._lock:
            self.requests += 1
            away = self.until is not None and self.requests > self.until
            bad = self._random.random() < self.failing
            self.failed += away or bad
            return "away" if away else self._random.choice(["busy", "cut"]) if bad else "well"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        mood = self._mood()
        if mood == "away":
            request.close_connection = True
            return
        if mood == "busy":
            self._send(request, 503, [("Content-Type", "application/xml")], _BUSY)
            return
        link = http.client.HTTPConnection(self.target.hostname or "", self.target.port, timeout=60)
        link.request(request.command, request.path, body, dict(request.headers))
        answer = link.getresponse()
        data = answer.read()
        link.close()
        cut = mood == "cut" and request.command == "GET" and len(data) > 1
        self._send(
            request, answer.status, answer.getheaders(), data, cut=cut, length=answer.getheader("Content-Length")
        )

    @staticmethod
    def _send(
        request: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        data: bytes,
        *,
        cut: bool = False,
        length: str | None = None,
    ) -> None:
        request.send_response(status)
        for name, value in headers:
            if name.lower() not in _NOT_PASSED_ON:
                request.send_header(name, value)
        request.send_header("Content-Length", (length if request.command == "HEAD" else None) or str(len(data)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data[: len(data) // 2] if cut else data)
        request.close_connection = cut
