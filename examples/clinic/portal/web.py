"""A small JSON server: exact routes, bounded bodies, one log line a request, a clean stop."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import sys
import threading
import time
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Iterator, Mapping, NamedTuple
from urllib.parse import parse_qsl

BODY_LIMIT = 64 * 1024
STOP_SECONDS = 8


class Request(NamedTuple):
    """What a route is given: the query string and the JSON body, `None` without one."""

    query: Mapping[str, str]
    body: Any


class Answer(NamedTuple):
    """A status and what to send: anything JSON can say, or text of another media type."""

    status: int
    content: Any
    media_type: str = "application/json"

    def encoded(self) -> bytes:
        if self.media_type != "application/json":
            return str(self.content).encode()
        return json.dumps(self.content, separators=(",", ":"), default=plain).encode()


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


Route = Callable[[Request], Answer]
Routes = Mapping["tuple[str, str]", Route]


def plain(value: Any) -> str:
    """Writes the database's dates, times and UUIDs as JSON strings."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def serve(routes: Routes) -> None:
    """Serves `routes` until SIGTERM or Ctrl-C, then lets requests in progress finish."""
    host = os.environ.get("DATABRICKS_APP_HOST", "0.0.0.0")
    port = int(os.environ.get("DATABRICKS_APP_PORT", "8000"))
    with Server((host, port), routes) as server:
        # `shutdown` waits for the loop below, so the signal's own thread must not call it.
        def stop(*_: Any) -> None:
            threading.Thread(target=server.shutdown).start()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        print(f"listening on {host}:{port}", flush=True)
        server.serve_forever(poll_interval=0.2)
    server.drain(STOP_SECONDS)


class Server(ThreadingHTTPServer):
    """One thread a connection; counts the requests in progress."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], routes: Routes) -> None:
        self.routes = routes
        self.in_progress = 0
        self.changed = threading.Condition()
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        # HTTPServer would look its own name up in the DNS, which can take seconds.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    @contextmanager
    def working(self) -> Iterator[None]:
        with self.changed:
            self.in_progress += 1
        try:
            yield
        finally:
            with self.changed:
                self.in_progress -= 1
                self.changed.notify_all()

    def drain(self, seconds: float) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self.in_progress == 0, seconds)


class Handler(BaseHTTPRequestHandler):
    """Reads a request, finds its route, answers and logs."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 120  # for each read, so also the life of an idle connection

    def respond(self) -> None:
        started = time.monotonic()
        path, _, query = self.path.partition("?")
        with self.server.working():
            answer = self.answer(path, dict(parse_qsl(query)))
            self.send(answer)
        self.log(path, answer, time.monotonic() - started)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = respond

    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        try:
            body = self.read_json()
            return self.route(path)(Request(query, body))
        except Refusal as refusal:
            return Answer(refusal.status, {"error": refusal.why})
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            traceback.print_exc()
            return Answer(500, {"error": "internal error"})

    def route(self, path: str) -> Route:
        method = "GET" if self.command == "HEAD" else self.command
        route = self.server.routes.get((method, path))
        if route is not None:
            return route
        allowed = [method for method, known in self.server.routes if known == path]
        if allowed:
            raise Refusal(405, f"only {' and '.join(sorted(allowed))} here")
        raise Refusal(404, "no such path")

    def read_json(self) -> Any:
        # An unread body would be taken for the next request: after a refusal, hang up.
        try:
            data = self.read_body()
        except Refusal:
            self.close_connection = True
            raise
        if not data:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise Refusal(400, "the body is not JSON") from None

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self.read_chunks()
        size = self.headers.get("Content-Length", "0").strip()
        return self.rfile.read(bounded(size, 10, 0))

    def read_chunks(self) -> bytes:
        body = b""
        while True:
            line = self.rfile.readline(256).decode("latin-1")
            size = bounded(line.partition(";")[0].strip(), 16, len(body))
            if size == 0:
                break
            body += self.rfile.read(size)
            self.rfile.readline(3)
        while self.rfile.readline(1024).strip():
            pass  # trailers
        return body

    def send(self, answer: Answer) -> None:
        body = answer.encoded()
        self.send_response(answer.status)
        self.send_header("Content-Type", f"{answer.media_type}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        # The standard library calls this for what is not HTTP; its own answer is HTML.
        self.close_connection = True
        self.send(Answer(code, {"error": message or "bad request"}))

    def version_string(self) -> str:
        return os.environ.get("DATABRICKS_APP_NAME", "app")

    def log(self, path: str, answer: Answer, seconds: float) -> None:
        shown = path if path.isprintable() else repr(path)
        line = f"{self.command} {shown} {answer.status} {seconds * 1000:.0f}ms"
        if answer.status >= 400 and isinstance(answer.content, dict):
            line += f" {answer.content.get('error') or answer.content.get('why')}"
        print(line, flush=True)

    def log_message(self, *_: Any) -> None:
        """Says nothing: `log` has one line a request."""


def bounded(digits: str, base: int, already: int) -> int:
    """Returns the size that `digits` mean, unless it exceeds what is left of the limit."""
    if not digits.isalnum() or len(digits) > 12:
        raise Refusal(400, "the body has no valid length")
    try:
        size = int(digits, base)
    except ValueError:
        raise Refusal(400, "the body has no valid length") from None
    if already + size > BODY_LIMIT:
        raise Refusal(413, f"the body is larger than {BODY_LIMIT} bytes")
    return size
