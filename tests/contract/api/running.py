"""A real server process over an embedded data folder, and ways to talk to it."""

from __future__ import annotations

import http.client
import os
import re
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.services import build_services
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.database import open_database
from jobs.store.schema import upgrade
from tests.conftest import ROOT
from tests.contract.api.support import MULTIPART
from tests.processes import Process

MB = 1_000_000
SILENCE_S = 3
# Much more than the server's own, so that what its system keeps for a client buys that little time.
SLOWEST_BYTES_PER_S = 4 * MB
SERVER = """
import logging, sys
import api.deadlines, api.server
from api.wsgi import make_app
from jobs.errors import StartupError
from jobs.settings import load_settings

logging.basicConfig(level="INFO")
api.server.SILENCE_S = int(sys.argv[2])
api.deadlines.SLOWEST_BYTES_PER_S = int(sys.argv[3])
settings = load_settings()
try:
    left = lambda: print("left")
    api.server.serve(lambda: make_app(settings), settings, workers=int(sys.argv[1]), on_exit=left)
except StartupError as error:
    print("refused:", error.code, error.message)
    sys.exit(2)
print("served")
"""


@dataclass
class Running:
    """A server process over an embedded data folder, and the key to it."""

    process: Process
    settings: Settings
    key: str = ""

    @property
    def port(self) -> int:
        """Where it listens, as it says itself."""
        [port] = re.findall(r"listening on http://127\.0\.0\.1:(\d+)", self.process.output)
        return int(port)

    @property
    def headers(self) -> dict[str, str]:
        """What opens the API."""
        return {"Authorization": f"Bearer {self.key}"}

    def start(self) -> None:
        """Start and wait until it answers."""
        self.process.start(lambda: "listening on" in self.process.output)
        assert self.get("/healthz")[0] == 200

    def connect(self) -> http.client.HTTPConnection:
        """A connection that fails rather than hangs."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def send(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = self.connect()
        try:
            connection.request(method, path, body, self.headers | named)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """GET a path."""
        return self.send("GET", path, **headers)

    def raw(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def head(self, *lines: str, path: str = "/v1/jobs") -> bytes:
        """The head of an upload."""
        usual = (f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {self.key}")
        return "\r\n".join([*usual, f"Content-Type: {MULTIPART}", *lines, "", ""]).encode()

    def uploads_left(self) -> tuple[int, int]:
        """Rows of uploads, and files of objects that no job owns."""
        store = Store(open_database(self.settings, exclusive=False), 1)
        with store.database.read() as connection:
            rows = connection.exec_driver_sql("select count(*) from uploads").scalar_one()
            jobs = set(connection.exec_driver_sql("select id from jobs").scalars())
        store.close()
        folder = self.settings.data_dir / "objects" / "jobs"
        files = {Path(path).parent.name: names for path, _, names in os.walk(folder)}
        return rows, sum(len(names) for job_id, names in files.items() if job_id not in jobs)


def prepare(folder: Path, *, workers: int = 1, **variables: str) -> Running:
    """Describe a server and make its database and a key."""
    settings = Settings(data_dir=folder, require_keys=True)
    services = build_services(settings)
    upgrade(services.store.database)
    _, key = services.store.keys.create("ann")
    services.close()
    environment = {"CAPTIONFLEET_DATA_DIR": str(folder), "CAPTIONFLEET_REQUIRE_KEYS": "1"}
    environment |= {"CAPTIONFLEET_PORT": "0", "PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"} | variables
    # gunicorn leaves closing some sockets to the garbage collector.
    warnings = ["-W", "error", "-W", "ignore::ResourceWarning"]
    limits = (str(SILENCE_S), str(SLOWEST_BYTES_PER_S))
    command = [sys.executable, *warnings, "-c", SERVER, str(workers), *limits]
    process = Process(command, environment=environment, folder=ROOT)
    return Running(process, settings, key)
