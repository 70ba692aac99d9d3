"""A small HTTP server of the test's own: it remembers what came and answers as the test says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Came:
    """One request that came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


Answering = Callable[[BaseHTTPRequestHandler, Came], None]


@dataclass
class Web:
    """A running server; ``answering`` may be changed at any time."""

    port: int
    answering: Answering
    came: list[Came] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        """Return an address on this server."""
        return f"{scheme}://{host}:{self.port}{path}"


def answer(handler: BaseHTTPRequestHandler, status: int = 200, body: bytes = b"", **headers: str) -> None:
    """Send a whole answer; header names are written with underscores."""
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def serving(
    answering: Answering, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[Web]:
    """Serve on a free port until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _take(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            came = Came(self.command, self.path, dict(self.headers), self.rfile.read(length))
            web.came.append(came)
            try:
                web.answering(self, came)
            except OSError:
                self.close_connection = True  # The client went away, which some tests want.

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _take  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that breaks off, or refuses the certificate, is no error of the server's."""

    server = Server((host, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    web = Web(server.server_address[1], answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
