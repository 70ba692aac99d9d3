"""Ports to listen on, and the small server that shows a process's metrics on one of its own."""

from __future__ import annotations

import errno
import logging
import socket
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

from jobs.errors import StartupError
from jobs.meters import Exposition
from jobs.settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 2048
METRICS_PATH = "/metrics"
# A client that is slower is let go; one is served at a time.
SCRAPE_S = 5.0
OURS = "CAPTIONFLEET"
# Below them only root may listen.
FREE_PORTS = 1024
SUGGESTED = 20


def open_listener(host: str, port: int, variables: str = OURS) -> socket.socket:
    """Return a listening socket; raise ``StartupError`` in one line that names the setting to change."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        message = f"{variables}_HOST={host} is no address of this machine: {error}"
        raise StartupError("configuration_invalid", message) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = f"{variables}_PORT={port} on {host} cannot be used: {error.strerror or error}"
        message = f"{reason}{_advice(error, listener.family, host, port, variables)}"
        raise StartupError("configuration_invalid", message) from error
    return listener


def _advice(error: OSError, family: int, host: str, port: int, variables: str) -> str:
    """Return the end of a sentence that says what to do: mostly to take another port, which is free now."""
    if error.errno == errno.EADDRNOTAVAIL:
        return f"; {variables}_HOST={host} is no address of this machine"
    # 8080 instead of 80, and 8443 instead of 443.
    first = port + 1 if port >= FREE_PORTS else 8000 + port
    for other in range(first, min(first + SUGGESTED, 65536)):
        if _is_free(family, host, other):
            option = f"`--port {other}`, or " if variables == OURS else ""
            return f"; another one is free: {option}{variables}_PORT={other}"
    return ""


def _is_free(family: int, host: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def open_metrics_listener(settings: Settings) -> socket.socket | None:
    """Return a socket on the metrics port, ``None`` where none is set; raise ``StartupError``."""
    if settings.metrics_port is None:
        return None
    return open_listener(settings.metrics_host, settings.metrics_port, "CAPTIONFLEET_METRICS")


def show_metrics(listener: socket.socket | None, exposition: Exposition) -> None:
    """Answer scrapes from a thread as long as the process lives.

    Processes that share the socket, and what they count, may each do so: any of them answers.
    """
    if listener is None:
        return
    server = _Server(listener.getsockname()[:2], _handler(exposition), bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _Server(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Log what broke a scrape; one that was given up is no error."""
        level = logging.DEBUG if isinstance(sys.exc_info()[1], OSError) else logging.ERROR
        log.log(level, "a scrape broke", exc_info=True)


def _handler(exposition: Exposition) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = SCRAPE_S

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != METRICS_PATH:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            body, content_type = exposition.render(self.headers.get("Accept", ""))
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            log.debug("metrics: " + format, *args)

    return Handler
